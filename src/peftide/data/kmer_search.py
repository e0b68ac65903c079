"""Pairs of proteins that may be related: shared spaced seeds of a reduced alphabet on nearby diagonals."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

# Murphy, Wallqvist and Levy (2000), 10 letters; B, Z, J, U, O go with what they stand for, X with nothing
REDUCED_ALPHABET = ("LVIMJ", "CU", "A", "G", "ST", "P", "FYW", "EDNQBZ", "KRO", "H")
NO_LETTER = len(REDUCED_ALPHABET)
SEEDS = ("11011011", "110010100011")  # 1: the letter counts. Two patterns find 5-10 % more than one
HITS_PER_PROTEIN = 20_000  # seeds too frequent for this many hits are left out: time grows linearly with proteins
HITS_PER_BLOCK = 500_000  # keeps the arrays of one step in the processor's cache
DIAGONAL_BIN = 16  # residues; hits in two neighbouring bins count together
MIN_SHARED_SEEDS = 3


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


@dataclass(frozen=True)
class _Occurrences:
    """Seeds of all proteins in order of protein: seed number, protein and position (O,)."""

    seed_O: np.ndarray
    protein_O: np.ndarray
    position_O: np.ndarray


def find_candidates(queries: Sequence[str], targets: Sequence[str] | None, *, per_query: int) -> Candidates:
    """The most promising pairs of a query and a target, at most `per_query` per query on average, best first.

    targets: None searches the queries among themselves, each pair once with query < target.
    """
    query = _occurrences(queries)
    target = query if targets is None else _occurrences(targets)
    order_O = np.argsort(target.seed_O, kind="stable")
    num_seeds = len(SEEDS) * NO_LETTER ** SEEDS[0].count("1")
    first_of_seed = np.concatenate([[0], np.cumsum(np.bincount(target.seed_O, minlength=num_seeds))])
    begin_O, end_O = first_of_seed[query.seed_O], first_of_seed[query.seed_O + 1]
    count_O = end_O - begin_O
    count_O[count_O > _largest_frequency(count_O, HITS_PER_PROTEIN * len(queries))] = 0
    if targets is None:  # only the occurrences after one's own: proteins are in order within a seed
        begin_O = np.empty_like(order_O)
        begin_O[order_O] = np.arange(1, len(order_O) + 1)
        count_O = np.where(count_O > 0, end_O - begin_O, 0)
    longest = int(max(query.position_O.max(initial=0), target.position_O.max(initial=0))) + DIAGONAL_BIN
    span = 2 * longest
    place_O = (target.protein_O * span - target.position_O)[order_O]
    num_targets = len(queries if targets is None else targets)
    blocks = []
    for block in _blocks(query.protein_O, count_O):
        size_O = count_O[block]
        shift_O = begin_O[block] - np.concatenate([[0], np.cumsum(size_O)[:-1]])
        hit = np.repeat(shift_O, size_O)
        hit += np.arange(len(hit))
        key = place_O[hit]
        key += np.repeat(query.protein_O[block] * num_targets * span + query.position_O[block] + longest, size_O)
        blocks.append(_best_diagonals(key, span))
    pair, diagonal, num_shared = (np.concatenate(column) for column in zip(*blocks, strict=True))
    found = Candidates(pair // num_targets, pair % num_targets, num_shared, diagonal - longest)
    return _most_promising(found, len(queries), per_query, is_self_search=targets is None)


def _occurrences(sequences: Sequence[str]) -> _Occurrences:
    letter_of_byte = np.full(256, NO_LETTER, dtype=np.int64)
    for number, letters in enumerate(REDUCED_ALPHABET):
        letter_of_byte[list(letters.encode())] = number
    gap = "." * max(map(len, SEEDS))
    letters = letter_of_byte[np.frombuffer((gap.join(sequences) + gap).encode(), dtype=np.uint8)]
    length_P = np.array([len(sequence) + len(gap) for sequence in sequences])
    start_P = np.concatenate([[0], np.cumsum(length_P)])
    columns = []
    for number, pattern in enumerate(SEEDS):
        size = len(letters) - len(pattern) + 1
        seed, is_valid = np.full(size, number), np.ones(size, dtype=bool)
        for offset in (place for place, mark in enumerate(pattern) if mark == "1"):
            seed = seed * NO_LETTER + letters[offset : offset + size]
            is_valid &= letters[offset : offset + size] != NO_LETTER
        place = np.flatnonzero(is_valid)
        columns.append((seed[place], place))
    seed_O, place_O = (np.concatenate(column) for column in zip(*columns, strict=True))
    order_O = np.argsort(place_O, kind="stable")
    seed_O, place_O = seed_O[order_O], place_O[order_O]
    protein_O = np.searchsorted(start_P, place_O, side="right") - 1
    return _Occurrences(seed_O, protein_O, place_O - start_P[protein_O])


def _largest_frequency(count_O: np.ndarray, most_hits: int) -> int:
    """The highest frequency of a seed such that all seeds up to it give at most `most_hits` hits."""
    hits_of_frequency = np.bincount(count_O) * np.arange(count_O.max(initial=0) + 1)
    within = np.flatnonzero(np.cumsum(hits_of_frequency) <= most_hits)
    return int(within[-1]) if len(within) else 0


def _blocks(protein_O: np.ndarray, count_O: np.ndarray) -> list[slice]:
    """Runs of whole proteins with about HITS_PER_BLOCK hits each."""
    if not len(protein_O):
        return [slice(0, 0)]
    first_of_protein = np.flatnonzero(np.concatenate([[True], protein_O[1:] != protein_O[:-1]]))
    hits_before = np.concatenate([[0], np.cumsum(count_O)])[first_of_protein]
    first_of_block = first_of_protein[np.unique(hits_before // HITS_PER_BLOCK, return_index=True)[1]]
    edges = [*first_of_block.tolist(), len(protein_O)]
    return [slice(*edge) for edge in pairwise(edges)]


def _best_diagonals(key_H: np.ndarray, span: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pair, diagonal and number of hits of the best two neighbouring bins of each pair with MIN_SHARED_SEEDS.

    key_H: pair * span + diagonal of each hit.
    """
    key_H //= DIAGONAL_BIN
    key_H.sort()
    is_first = np.concatenate([[True], key_H[1:] != key_H[:-1]])[: len(key_H)]
    first = np.flatnonzero(is_first)
    bin_B, num_B = key_H[first], np.diff(np.concatenate([first, [len(key_H)]]))
    with_next_B = num_B.copy()
    with_next_B[:-1] += np.where(bin_B[1:] == bin_B[:-1] + 1, num_B[1:], 0)
    enough = with_next_B >= MIN_SHARED_SEEDS
    diagonal_B, num_B = (bin_B[enough] + 1) * DIAGONAL_BIN, with_next_B[enough]
    pair_B = diagonal_B // span
    best_first = np.lexsort((-num_B, pair_B))
    pair, best = np.unique(pair_B[best_first], return_index=True)
    chosen = best_first[best]
    return pair, diagonal_B[chosen] - pair * span, num_B[chosen]


def _most_promising(found: Candidates, num_queries: int, per_query: int, *, is_self_search: bool) -> Candidates:
    """At most per_query * num_queries candidates, best first, without a protein's hits on itself."""
    if is_self_search:
        found = found.take(found.query_C != found.target_C)
    order_C = np.argsort(-found.num_seeds_C, kind="stable")
    return found.take(order_C[: per_query * num_queries])
