"""One gradient: the loss of a set of examples, each of their proteins encoded once, whatever the memory.

Shapes: B examples of the step, K proteins of an example, P unique proteins of the step, D width.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from peftide.training.batches import token_chunks, unique_members

Encode = Callable[[np.ndarray], Tensor]  # rows of proteins (P,) -> vectors (P, D), with gradient
LossOfMembers = Callable[[Tensor], Tensor]  # vectors (B, K, D) -> mean loss


@dataclass(frozen=True)
class StepPlan:
    """The unique proteins of a step in parts of at most a token budget, and where each example finds its own.

    parts: rows of proteins; members_BK: index of each example's proteins in the parts laid end to end.
    """

    parts: tuple[np.ndarray, ...]
    members_BK: np.ndarray


def plan_step(members_BK: np.ndarray, tokens_P: np.ndarray, *, token_budget: int) -> StepPlan:
    """Plan a step over the examples whose proteins (rows of `tokens_P`) are `members_BK`."""
    rows, local_BK = unique_members(members_BK)
    parts = token_chunks(tokens_P[rows], token_budget=token_budget)
    place = np.empty(len(rows), dtype=np.int64)
    place[np.concatenate(parts)] = np.arange(len(rows))
    return StepPlan(tuple(rows[part] for part in parts), place[local_BK])


def backward(encode: Encode, loss_of: LossOfMembers, plan: StepPlan, *, seed: int) -> float:
    """Add the gradient of the loss to every trained parameter; return the loss.

    One part is plain back-propagation. Several take two passes with the same result (gradient caching: Gao et al.
    2021, "Scaling deep contrastive learning batch size under memory limited setup"): all vectors without graph, the
    loss and its gradient with respect to the vectors, then each part again with its graph; the last part keeps its
    graph from the first pass. Dropout is seeded per part, so that both passes of a part draw the same, and that of
    `loss_of` by itself, so that it does not depend on the number of parts.
    """
    vectors = []
    for number, rows in enumerate(plan.parts):
        _seed(_mix(seed, 1 + number))
        with torch.set_grad_enabled(number == len(plan.parts) - 1):
            vectors.append(encode(rows))
    last = vectors[-1]
    leaves = [part.detach().requires_grad_(last.requires_grad) for part in vectors]
    _seed(_mix(seed, 0))
    loss = loss_of(torch.cat(leaves)[torch.from_numpy(plan.members_BK)])
    loss.backward()
    if last.requires_grad:
        last.backward(leaves[-1].grad)
        for number, rows in enumerate(plan.parts[:-1]):
            _seed(_mix(seed, 1 + number))
            encode(rows).backward(leaves[number].grad)
    return loss.item()


def _seed(seed: int) -> None:
    """Seed the generators that dropout draws from (`torch.manual_seed` also walks devices that are not in use)."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)  # the run may be on another GPU than the current one
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)


def _mix(seed: int, number: int) -> int:
    """A seed of its own for each part of a step, and for its loss."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
