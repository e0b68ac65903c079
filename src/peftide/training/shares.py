"""Who does what of a step, or of an encoding, where several ranks train together.

Examples are dealt by number, proteins by tokens, apart from each other: a protein that many pairs of a step share is
still encoded once, by one rank. Between encoder and head the ranks exchange the vectors, and on the way back their
gradients, which is little beside what they stand for.

Shapes: P proteins, D width.
"""

import heapq
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from peftide.inference.embed import embed_proteins, length_batches
from peftide.inference.encoder import Encoder
from peftide.inference.live_bars import encoding_progress
from peftide.inference.store import StateStore
from peftide.models.tokens import Pieces
from peftide.training.ranks import Ranks


def dealt_proteins(tokens_P: np.ndarray, num_ranks: int) -> list[np.ndarray]:
    """Which proteins are each rank's, ascending: the next longest goes to the rank with the fewest tokens so far."""
    loads = [(0, rank) for rank in range(num_ranks)]
    dealt: list[list[int]] = [[] for _ in range(num_ranks)]
    for row in np.argsort(-tokens_P, kind="stable").tolist():
        load, rank = loads[0]
        dealt[rank].append(row)
        heapq.heapreplace(loads, (load + int(tokens_P[row]), rank))
    return [np.array(sorted(rows), dtype=np.int64) for rows in dealt]


def dealt_examples(batch: np.ndarray, ranks: Ranks) -> np.ndarray:
    """The examples of a step that this rank puts through the head: as many as others have, or one more."""
    return np.array_split(batch, ranks.count)[ranks.rank]


def gather_vectors(own_PD: Tensor, places: np.ndarray, *, num_proteins: int, ranks: Ranks) -> Tensor:
    """Vectors (num_proteins, D) of a whole step from those of each rank, which lie at `places` there.

    In the backward pass each rank gets the gradient of its own vectors, summed over all ranks.
    """
    found = _Gather.apply(own_PD, torch.from_numpy(places).to(own_PD.device), num_proteins, ranks)
    assert isinstance(found, Tensor)
    return found


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own_PD: Tensor, places: Tensor, num_proteins: int, ranks: Ranks) -> Tensor:
        ctx.places, ctx.ranks = places, ranks
        whole_PD = own_PD.new_zeros(num_proteins, own_PD.shape[1])
        whole_PD[places] = own_PD
        return ranks.sum_tensor(whole_PD)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None, None]:
        (gradient_PD,) = gradients
        return ctx.ranks.sum_tensor(gradient_PD.contiguous())[ctx.places], None, None, None


def embed_together(
    encoder: Encoder,
    proteins: Sequence[Pieces],
    ranks: Ranks,
    *,
    token_budget: int,
    store: StateStore | None = None,
    console: Console | None = None,
) -> np.ndarray:
    """Vectors (P, D) as `embed_proteins` gives them, each rank encoding its share of the proteins.

    console: where a live bar shows how far this rank is; none when absent.
    """
    tokens_P = np.array([protein.num_tokens for protein in proteins])
    dealt = dealt_proteins(tokens_P, ranks.count)
    own = [proteins[row] for row in dealt[ranks.rank]]
    vectors_PD = np.zeros((len(proteins), encoder.width), dtype=np.float32)
    with encoding_progress(console or Console(quiet=True), sum(protein.num_residues for protein in own)) as advance:
        vectors_PD[dealt[ranks.rank]] = embed_proteins(
            encoder, own, token_budget=token_budget, store=store, advance=advance
        )
    if ranks.count == 1:
        return vectors_PD
    if ranks.shards:  # as many calls as the others
        num_calls = [len(list(length_batches(tokens_P[rows].tolist(), token_budget))) for rows in dealt]
        for _ in range(max(num_calls) - num_calls[ranks.rank]):
            embed_proteins(encoder, [proteins[int(tokens_P.argmin())]], token_budget=token_budget)
    return ranks.sum_tensor(torch.from_numpy(vectors_PD)).numpy()
