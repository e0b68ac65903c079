"""One gradient: the loss of a set of examples, each of their proteins encoded once, whatever the memory.

Where several ranks train together, each has a plan of its own, for its share of the step's proteins and examples.

Shapes: B examples of the step, K proteins of an example, P unique proteins of the step, D width.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from peftide.training.batches import token_chunks, unique_members
from peftide.training.ranks import ALONE, Ranks
from peftide.training.shares import dealt_examples, dealt_proteins, gather_vectors

Encode = Callable[[np.ndarray], Tensor]  # rows of proteins (P,) -> vectors (P, D), with gradient
LossOfMembers = Callable[[Tensor], Tensor]  # vectors (B, K, D) -> this rank's part of the mean loss


@dataclass(frozen=True)
class StepPlan:
    """The unique proteins of a step in parts, each encoded by one call, and where each example finds its own.

    parts: rows of proteins; num_kept: how many of the last parts may hold their graphs at the same time;
    members_BK: index of each example's proteins in the parts laid end to end. With several ranks the parts are of this
    rank's proteins (one empty part where it has none), and the members are indices into the step's proteins, of which
    there are num_proteins; places: index there of each protein of the parts laid end to end. Where weights are shared
    out, empty parts come first until every rank has as many.
    """

    parts: tuple[np.ndarray, ...]
    num_kept: int
    members_BK: np.ndarray
    places: np.ndarray
    num_proteins: int


def plan_step(
    members_BK: np.ndarray,
    tokens_P: np.ndarray,
    *,
    token_budget: int,
    call_tokens: int | None = None,
    ranks: Ranks = ALONE,
) -> StepPlan:
    """Plan a step over the examples whose proteins (rows of `tokens_P`) are `members_BK`.

    token_budget: tokens whose graphs fit in memory together; call_tokens: the most to encode in one call, where that
    is less. The parts, and with them the dropout, do not depend on a budget of `call_tokens` or more.
    """
    rows, local_BK = unique_members(members_BK)
    dealt = dealt_proteins(tokens_P[rows], ranks.count)
    limits = (token_budget, call_tokens or token_budget)
    parts, num_kept = _parts(dealt[ranks.rank], tokens_P[rows], *limits)
    if ranks.shards:
        plans = [_parts(own, tokens_P[rows], *limits) for own in dealt]
        num_empty = max(len(of_rank) for of_rank, _ in plans) - len(parts)
        parts, num_kept = [np.empty(0, np.int64)] * num_empty + parts, min(kept for _, kept in plans)
    places = np.concatenate(parts)
    if ranks.count == 1:
        in_parts = np.empty(len(rows), dtype=np.int64)
        in_parts[places] = np.arange(len(rows))
        local_BK = in_parts[local_BK]
    else:
        local_BK = local_BK[dealt_examples(np.arange(len(local_BK)), ranks)]
    return StepPlan(tuple(rows[part] for part in parts), num_kept, local_BK, places, len(rows))


def _parts(own: np.ndarray, tokens_P: np.ndarray, token_budget: int, call_tokens: int) -> tuple[list[np.ndarray], int]:
    """Proteins in parts, and how many of the last of these may hold their graphs together."""
    chunks = token_chunks(tokens_P[own], token_budget=min(token_budget, call_tokens))
    parts = [own[chunk] for chunk in chunks] or [own]
    from_last = np.cumsum([tokens_P[part].sum() for part in reversed(parts)])
    return parts, max(1, int((from_last <= token_budget).sum()))


def backward(encode: Encode, loss_of: LossOfMembers, plan: StepPlan, *, seed: int, ranks: Ranks = ALONE) -> float:
    """Add this rank's part of the gradient of the loss to every trained parameter; return its part of the loss.

    The kept parts are plain back-propagation. The others take two passes with the same result (gradient caching: Gao
    et al. 2021, "Scaling deep contrastive learning batch size under memory limited setup"): vectors without graph, the
    loss and its gradient with respect to the vectors, then each part again with its graph. Dropout is seeded per part,
    so that both passes of a part draw the same, and that of `loss_of` by itself, so that it does not depend on the
    number of parts. Raises torch.OutOfMemoryError on every rank where an encoding runs out of memory on one.
    """
    first_kept = len(plan.parts) - plan.num_kept
    vectors = []
    with ranks.alike_in_memory():
        for number, rows in enumerate(plan.parts):
            _seed(_mix(seed, 1 + number))
            with torch.set_grad_enabled(number >= first_kept):
                vectors.append(encode(rows))
    is_trained = vectors[-1].requires_grad
    leaves = [part.detach().requires_grad_(is_trained) for part in vectors]
    known_PD = torch.cat(leaves)
    if ranks.count > 1:
        known_PD = gather_vectors(known_PD, plan.places, num_proteins=plan.num_proteins, ranks=ranks)
    _seed(_mix(seed, 0))
    loss = loss_of(known_PD[torch.from_numpy(plan.members_BK)])
    if loss.requires_grad:  # not on a rank without examples where vectors are looked up
        loss.backward()
    if is_trained:
        with ranks.alike_in_memory():
            for number in reversed(range(len(plan.parts))):
                if number < first_kept:
                    _seed(_mix(seed, 1 + number))
                    vectors[number] = encode(plan.parts[number])
                vectors[number].backward(leaves[number].grad)
                vectors[number] = leaves[number]  # lets go of the graph
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
