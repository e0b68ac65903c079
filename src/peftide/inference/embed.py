"""Vectors of many proteins: sorted by length, a token budget at a time, each sequence once.

Shapes: P proteins, D width, L residues of one protein.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import numpy as np
import torch

from peftide.errors import UserError
from peftide.inference.encoder import Encoder
from peftide.inference.store import StateStore, sequence_key
from peftide.models.tokens import Pieces

Encoded = TypeVar("Encoded", np.ndarray, list[np.ndarray])  # something of each protein
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


def _batches(
    encode: Callable[[Sequence[Pieces]], Encoded], proteins: Sequence[Pieces], *, token_budget: int, may_halve: bool
) -> Iterator[tuple[np.ndarray, Encoded]]:
    """Rows of proteins, the longest first, and what `encode` gives for them.

    Where memory runs out it goes on with half the tokens at once, and warns of it; where it may not (other processes
    wait for as many calls), it raises torch.OutOfMemoryError. Raises UserError where one protein alone is too much.
    """
    is_done = np.zeros(len(proteins), dtype=bool)
    while not is_done.all():
        rest = np.flatnonzero(~is_done)
        num_tokens = [proteins[int(row)].num_tokens for row in rest]
        for batch in length_batches(num_tokens, token_budget):
            rows = rest[batch]
            chosen = [proteins[int(row)] for row in rows]
            found = _encoded(encode, chosen) if may_halve else encode(chosen)
            if found is None:
                token_budget = max(1, sum(num_tokens[place] for place in batch) // 2)
                said = f"out of memory: going on with {token_budget:,} tokens at once (--token-budget)"
                warnings.warn(said, RuntimeWarning, stacklevel=2)
                break
            yield rows, found
            is_done[rows] = True


def _encoded(encode: Callable[[Sequence[Pieces]], Encoded], proteins: Sequence[Pieces]) -> Encoded | None:
    """What `encode` gives; None where memory ran out and fewer proteins can be tried, what was taken given back."""
    try:
        return encode(proteins)
    except torch.OutOfMemoryError as error:
        if len(proteins) == 1:
            raise UserError(
                f"out of memory encoding one protein of {proteins[0].num_residues:,} residues: lower --max-residues, "
                "close what else runs on this device, or use --device cpu"
            ) from error
    torch.cuda.empty_cache()
    return None


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
    wanted = [proteins[int(row)] for row in rows]
    may_halve = not encoder.is_sharded
    for batch, found in _batches(partial(_vectors, encoder), wanted, token_budget=token_budget, may_halve=may_halve):
        chosen = rows[batch]
        vectors_PD[chosen] = found
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
    for batch, found in _batches(partial(_residues, encoder), proteins, token_budget=token_budget, may_halve=True):
        for row, states_LD in zip(batch.tolist(), found, strict=True):
            states[row] = states_LD
        advance(sum(proteins[row].num_residues for row in batch))
    return states


def _vectors(encoder: Encoder, proteins: Sequence[Pieces]) -> np.ndarray:
    return encoder.vectors(proteins).cpu().numpy()


def _residues(encoder: Encoder, proteins: Sequence[Pieces]) -> list[np.ndarray]:
    hidden_TD, packed = encoder.hidden(proteins)
    pieces = iter(hidden_TD.float().cpu().split(list(packed.lengths)))
    return [_residues_of(protein, [next(pieces)[1:-1].numpy() for _ in protein.tokens]) for protein in proteins]


def _residues_of(protein: Pieces, pieces: Sequence[np.ndarray]) -> np.ndarray:
    """The states (L, D) of a protein from those of the residues of its pieces."""
    states = np.zeros((protein.num_residues, pieces[0].shape[1]), dtype=np.float32)
    counts = np.zeros((protein.num_residues, 1), dtype=np.float32)
    for start, piece in zip(protein.starts, pieces, strict=True):
        states[start : start + len(piece)] += piece
        counts[start : start + len(piece)] += 1
    return states / counts
