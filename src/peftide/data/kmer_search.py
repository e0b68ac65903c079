"""Pairs of proteins that may be related: shared spaced seeds of a reduced alphabet on nearby diagonals."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

# Murphy, Wallqvist and Levy (2000), 10 letters; B, Z, J, U, O go with what they stand for, X with nothing
REDUCED_ALPHABET = ("LVIMJ", "CU", "A", "G", "ST", "P", "FYW", "EDNQBZ", "KRO", "H")
NO_LETTER = len(REDUCED_ALPHABET)
SEEDS = ("11011011", "110010100011", "1110100101", "1100110000101")  # 1: the letter counts; all with six of them
NUM_SEEDS = len(SEEDS) * NO_LETTER**6
HITS_PER_BLOCK = 500_000  # keeps the arrays of one step in the processor's cache
DIAGONAL_BIN = 16  # residues; hits in two neighbouring bins count together
MIN_SHARED_SEEDS = 3
NUM_PREFERRED = 5  # best candidates of either protein, which the many of a large family do not crowd out


@dataclass(frozen=True)
class Candidates:
    """Possible relatives, best first: rows of query and target (C,), number of seeds they share near one diagonal.

    diagonal_C: position in the query minus position in the target where those seeds lie, to within a bin.
    """

    query_C: np.ndarray
    target_C: np.ndarray
    num_seeds_C: np.ndarray
    diagonal_C: np.ndarray

    def __len__(self) -> int:
        return len(self.query_C)

    def take(self, rows: np.ndarray) -> "Candidates":
        """Those in `rows` (indices or mask)."""
        return Candidates(self.query_C[rows], self.target_C[rows], self.num_seeds_C[rows], self.diagonal_C[rows])


def find_candidates(
    queries: Sequence[str], targets: Sequence[str] | None, *, per_query: int, hits_per_query: int
) -> Candidates:
    """The most promising pairs of a query and a target, at most `per_query` per query on average, best first.

    targets: None searches the queries among themselves, each pair once with query < target. hits_per_query: the most
    frequent seeds are left out until no more occurrences of a query's seeds in targets remain, on average; so time
    grows linearly with the number of proteins (0.1 ms for 1,000 hits), as memory does (80 kB for a protein).
    """
    query = _occurrences(queries)
    target = query if targets is None else _occurrences(targets)
    by_seed = np.argsort(target.seed_O, kind="stable").astype(np.int32)
    first_of_seed = np.concatenate([[0], np.cumsum(np.bincount(target.seed_O, minlength=NUM_SEEDS))]).astype(np.int32)
    if targets is None:  # only the occurrences after one's own: proteins are in order within a seed
        begin_O = np.empty_like(by_seed)
        begin_O[by_seed] = np.arange(1, len(by_seed) + 1)
    else:
        begin_O = first_of_seed[query.seed_O]
    frequency_O = np.diff(first_of_seed)[query.seed_O]
    is_used_O = frequency_O <= _largest_frequency(frequency_O, hits_per_query * len(queries))
    count_O = np.where(is_used_O, first_of_seed[query.seed_O + 1] - begin_O, 0)
    num_targets = len(target.start_P)
    span = 2 * (max(map(len, [*queries, *(targets or ())]), default=0) + DIAGONAL_BIN)
    place_O = target.places(by_seed, span)
    del frequency_O, is_used_O, by_seed
    blocks = []
    for block in _blocks(query, count_O):
        size_O = count_O[block]
        hit = np.repeat(begin_O[block] - np.cumsum(size_O) + size_O, size_O) + np.arange(size_O.sum())
        protein_O, position_O = query.whereabouts(query.letter_O[block])
        key = place_O[hit] + np.repeat(protein_O * (num_targets * span) + position_O + span // 2, size_O)
        blocks.append(_best_diagonals(key, span))
    pair, diagonal, num_shared = (np.concatenate(column) for column in zip(*blocks, strict=True))
    found = Candidates(pair // num_targets, pair % num_targets, num_shared, diagonal - span // 2)
    if targets is None:
        found = found.take(found.query_C != found.target_C)
    return found.take(_best_first(found)[: per_query * len(queries)])


@dataclass(frozen=True)
class _Occurrences:
    """Seeds of all proteins in order of protein and position: number of the seed and place in the joined letters (O,).

    start_P: place of each protein's first letter. protein_L: protein of each letter.
    """

    seed_O: np.ndarray
    letter_O: np.ndarray
    start_P: np.ndarray
    protein_L: np.ndarray

    def whereabouts(self, letter_O: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Protein and position in it (O,) of some letters."""
        protein_O = self.protein_L[letter_O].astype(np.int64)
        return protein_O, letter_O - self.start_P[protein_O]

    def places(self, rows: np.ndarray, span: int) -> np.ndarray:
        """protein * span - position (O,) of the occurrences in `rows`, piece by piece to save memory."""
        place_O = np.empty(len(rows), dtype=np.int64)
        for start in range(0, len(rows), HITS_PER_BLOCK):
            piece = slice(start, start + HITS_PER_BLOCK)
            protein_O, position_O = self.whereabouts(self.letter_O[rows[piece]])
            place_O[piece] = protein_O * span - position_O
        return place_O


def _occurrences(sequences: Sequence[str]) -> _Occurrences:
    number_of_byte = np.full(256, NO_LETTER, dtype=np.int32)
    for number, letters in enumerate(REDUCED_ALPHABET):
        number_of_byte[list(letters.encode())] = number
    gap = "." * max(map(len, SEEDS))  # so that no seed reaches into the next protein
    number_L = number_of_byte[np.frombuffer((gap.join(sequences) + gap).encode(), dtype=np.uint8)]
    size = len(number_L) - len(gap) + 1
    seed_LS = np.empty((size, len(SEEDS)), dtype=np.int32)
    is_valid_LS = np.ones((size, len(SEEDS)), dtype=bool)
    for column, pattern in enumerate(SEEDS):
        seed_LS[:, column] = column
        for offset in (place for place, mark in enumerate(pattern) if mark == "1"):
            seed_LS[:, column] *= NO_LETTER
            seed_LS[:, column] += number_L[offset : offset + size]
            is_valid_LS[:, column] &= number_L[offset : offset + size] != NO_LETTER
    length_P = np.array([len(sequence) + len(gap) for sequence in sequences])
    letter_O = np.repeat(np.arange(size, dtype=np.int32), is_valid_LS.sum(axis=1))
    protein_L = np.repeat(np.arange(len(sequences), dtype=np.int32), length_P)
    return _Occurrences(seed_LS[is_valid_LS], letter_O, np.cumsum(length_P) - length_P, protein_L)


def _largest_frequency(count_O: np.ndarray, most_hits: int) -> int:
    """The highest frequency of a seed such that all seeds up to it give at most `most_hits` hits."""
    hits_of_frequency = np.bincount(count_O) * np.arange(count_O.max(initial=0) + 1)
    within = np.flatnonzero(np.cumsum(hits_of_frequency) <= most_hits)
    return int(within[-1]) if len(within) else 0


def _blocks(query: _Occurrences, count_O: np.ndarray) -> list[slice]:
    """Runs of whole proteins with about HITS_PER_BLOCK hits each."""
    first_of_protein = np.searchsorted(query.letter_O, query.start_P)
    hits_before = np.concatenate([[0], np.cumsum(count_O, dtype=np.int64)])[first_of_protein]
    first_of_block = first_of_protein[np.unique(hits_before // HITS_PER_BLOCK, return_index=True)[1]]
    return [slice(*edge) for edge in pairwise([*first_of_block.tolist(), len(count_O)])]


def _best_diagonals(key_H: np.ndarray, span: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pair, diagonal and number of hits of the best two neighbouring bins of each pair with MIN_SHARED_SEEDS.

    key_H: pair * span + diagonal of each hit. The two bins reach from 15 below their diagonal to 16 above it.
    """
    key_H //= DIAGONAL_BIN
    key_H.sort()
    is_first = np.concatenate([[True], key_H[1:] != key_H[:-1]])[: len(key_H)]
    first = np.flatnonzero(is_first)
    bin_B, num_B = key_H[first], np.diff(np.concatenate([first, [len(key_H)]]))
    with_next_B = num_B.copy()
    with_next_B[:-1] += np.where(bin_B[1:] == bin_B[:-1] + 1, num_B[1:], 0)
    enough = with_next_B >= MIN_SHARED_SEEDS
    diagonal_B, num_B = (bin_B[enough] + 1) * DIAGONAL_BIN - 1, with_next_B[enough]
    pair_B = diagonal_B // span
    best_first = np.lexsort((-num_B, pair_B))
    pair, best = np.unique(pair_B[best_first], return_index=True)
    chosen = best_first[best]
    return pair, diagonal_B[chosen] - pair * span, num_B[chosen]


def _best_first(found: Candidates) -> np.ndarray:
    """Order of the candidates: those preferred by one of their proteins, then the rest, each by number of seeds."""
    rank_C = np.minimum(*(_rank_within(side_C, found.num_seeds_C) for side_C in (found.query_C, found.target_C)))
    return np.lexsort((-found.num_seeds_C, rank_C >= NUM_PREFERRED))


def _rank_within(protein_C: np.ndarray, num_seeds_C: np.ndarray) -> np.ndarray:
    """Place (C,) of each candidate among those of the same protein, 0 for the most seeds."""
    order_C = np.lexsort((-num_seeds_C, protein_C))
    ordered_C = protein_C[order_C]
    rank_C = np.empty(len(order_C), dtype=np.int64)
    rank_C[order_C] = np.arange(len(order_C)) - np.searchsorted(ordered_C, ordered_C)
    return rank_C
