"""Vectors of many proteins: sorted by length, a token budget at a time, each sequence once.

Shapes: P proteins, D width, L residues of one protein.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from peftide.inference.encoder import Encoder
from peftide.inference.store import StateStore, sequence_key
from peftide.models.tokens import Pieces

Advance = Callable[[int], None]  # told of the residues just encoded


def length_batches(num_tokens: Sequence[int], token_budget: int) -> Iterator[np.ndarray]:
    """Rows in order of falling length, cut into batches of at most `token_budget` tokens (one row at least).

    The longest come first, so that a batch that does not fit in memory fails at once and not after an hour.
    """
    order = np.argsort(-np.asarray(num_tokens), kind="stable")
    batch: list[int] = []
    total = 0
    for row in order:
        if batch and total + num_tokens[row] > token_budget:
            yield np.array(batch)
            batch, total = [], 0
        batch.append(int(row))
        total += num_tokens[row]
    if batch:
        yield np.array(batch)


def embedding_key(protein: Pieces) -> bytes:
    """Digest of all that decides a protein's vector under one backbone and pooling: its pieces and where they start."""
    return sequence_key(b"".join([np.array(protein.starts).tobytes(), *(piece.tobytes() for piece in protein.tokens)]))


@torch.inference_mode()
def embed_proteins(
    encoder: Encoder,
    proteins: Sequence[Pieces],
    *,
    token_budget: int,
    store: StateStore | None = None,
    advance: Advance = lambda residues: None,
) -> np.ndarray:
    """Vectors (P, D) in float32; with `store` (for a frozen encoder only) those known are read and new ones kept."""
    encoder.model.eval()
    vectors_PD = np.zeros((len(proteins), encoder.width), dtype=np.float32)
    rows = np.arange(len(proteins))
    digests = [embedding_key(protein) for protein in proteins] if store is not None else []
    if store is not None:
        _, absent = store.gather(digests, [1] * len(proteins), out=vectors_PD)
        advance(sum(proteins[row].num_residues for row in np.setdiff1d(rows, absent)))
        rows = np.array(absent, dtype=np.int64)
    for batch in length_batches([proteins[int(row)].num_tokens for row in rows], token_budget):
        chosen = rows[batch]
        vectors_PD[chosen] = encoder.vectors([proteins[row] for row in chosen]).cpu().numpy()
        if store is not None:
            store.put([digests[row] for row in chosen], [1] * len(chosen), vectors_PD[chosen])
        advance(sum(proteins[row].num_residues for row in chosen))
    return vectors_PD


@torch.inference_mode()
def embed_residues(
    encoder: Encoder,
    proteins: Sequence[Pieces],
    *,
    token_budget: int,
    advance: Advance = lambda residues: None,
) -> list[np.ndarray]:
    """Hidden states (L, D) of each protein's residues, float32; where windows overlap, their mean."""
    encoder.model.eval()
    states: list[np.ndarray] = [np.empty(0)] * len(proteins)
    for batch in length_batches([protein.num_tokens for protein in proteins], token_budget):
        chosen = [proteins[int(row)] for row in batch]
        hidden_TD, packed = encoder.hidden(chosen)
        pieces = iter(hidden_TD.float().cpu().split(list(packed.lengths)))
        for row, protein in zip(batch.tolist(), chosen, strict=True):
            states[row] = _residues_of(protein, [next(pieces)[1:-1].numpy() for _ in protein.tokens])
        advance(sum(protein.num_residues for protein in chosen))
    return states


def _residues_of(protein: Pieces, pieces: Sequence[np.ndarray]) -> np.ndarray:
    """The states (L, D) of a protein from those of the residues of its pieces."""
    states = np.zeros((protein.num_residues, pieces[0].shape[1]), dtype=np.float32)
    counts = np.zeros((protein.num_residues, 1), dtype=np.float32)
    for start, piece in zip(protein.starts, pieces, strict=True):
        states[start : start + len(piece)] += piece
        counts[start : start + len(piece)] += 1
    return states / counts
