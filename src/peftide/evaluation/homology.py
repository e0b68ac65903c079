"""Homology transfer: the label of the most similar training examples, from sequence matches found elsewhere.

Shapes: N training examples, M asked examples, P proteins, C columns of the target, H matches, K pair keys.
"""

from dataclasses import dataclass

import numpy as np

MOST_CANDIDATES = 4_000_000  # pairs of neighbours looked up at once: about 200 MB


@dataclass(frozen=True)
class Matches:
    """Pairs of similar proteins, in any order and once or twice: rows into a table of proteins, identity 0 to 1."""

    first_H: np.ndarray
    second_H: np.ndarray
    identity_H: np.ndarray


@dataclass(frozen=True)
class Neighbours:
    """The training proteins near each protein: those of protein p are `start[p]:start[p + 1]`, nearest first."""

    start: np.ndarray
    near_H: np.ndarray
    identity_H: np.ndarray

    @property
    def num_near(self) -> np.ndarray:
        """Number of neighbours of each protein."""
        return np.diff(self.start)


def nearest_training_proteins(
    matches: Matches, *, num_proteins: int, train_proteins: np.ndarray, num_nearest: int
) -> Neighbours:
    """The `num_nearest` most similar training proteins of every protein; a training protein matches itself by 1."""
    query_H = np.concatenate([matches.first_H, matches.second_H, train_proteins]).astype(np.int64)
    found_H = np.concatenate([matches.second_H, matches.first_H, train_proteins]).astype(np.int64)
    identity_H = np.concatenate([matches.identity_H, matches.identity_H, np.ones(len(train_proteins))])
    known_H = np.isin(found_H, train_proteins)
    query_H, found_H, identity_H = query_H[known_H], found_H[known_H], identity_H[known_H]
    by_identity = np.argsort(-identity_H, kind="stable")
    # the first of several matches of the same two proteins is their best
    kept = by_identity[np.unique((query_H * num_proteins + found_H)[by_identity], return_index=True)[1]]
    kept = kept[np.lexsort((found_H[kept], -identity_H[kept], query_H[kept]))]
    place = np.arange(len(kept)) - np.searchsorted(query_H[kept], query_H[kept])
    kept = kept[place < num_nearest]
    start = np.searchsorted(query_H[kept], np.arange(num_proteins + 1))
    return Neighbours(start, found_H[kept], identity_H[kept])


def transfer_to_proteins(
    neighbours: Neighbours, train_N: np.ndarray, targets_NC: np.ndarray, *, asked_M: np.ndarray
) -> np.ndarray:
    """Target of each asked protein's nearest labelled protein, mixed with the mean target by the identity, (M, C).

    score = identity * target + (1 - identity) * mean target; equally near proteins are averaged; none near: the mean.
    """
    num_proteins, num_columns = len(neighbours.start) - 1, targets_NC.shape[1]
    totals_PC = np.zeros((num_proteins, num_columns))
    np.add.at(totals_PC, train_N, targets_NC)
    targets_PC = totals_PC / np.maximum(np.bincount(train_N, minlength=num_proteins), 1)[:, None]
    lengths_M = neighbours.num_near[asked_M]
    row_H, entry_H = _expand(np.arange(len(asked_M)), neighbours.start[asked_M], lengths_M)
    best_M, num_nearest_M = np.zeros(len(asked_M)), np.zeros(len(asked_M))
    found_MC = np.zeros((len(asked_M), num_columns))
    np.maximum.at(best_M, row_H, neighbours.identity_H[entry_H])
    is_nearest_H = neighbours.identity_H[entry_H] == best_M[row_H]
    np.add.at(found_MC, row_H[is_nearest_H], targets_PC[neighbours.near_H[entry_H[is_nearest_H]]])
    np.add.at(num_nearest_M, row_H[is_nearest_H], 1)
    found_MC /= np.maximum(num_nearest_M, 1)[:, None]
    return best_M[:, None] * found_MC + (1 - best_M)[:, None] * targets_NC.mean(axis=0)


def transfer_to_pairs(
    neighbours: Neighbours,
    train_N2: np.ndarray,
    positive_N: np.ndarray,
    *,
    asked_M2: np.ndarray,
    most_candidates: int = MOST_CANDIDATES,
) -> np.ndarray:
    """Probability of each asked pair from the most similar positive and negative training pairs, (M,).

    The similarity of two pairs is the product of their proteins' identities, in the better of both orders. With
    p the fraction of positives in training: score = p + (1 - p) * best positive - p * best negative.
    most_candidates: about as many pairs of neighbours are held in memory at once.
    """
    num_proteins = len(neighbours.start) - 1
    key_K, label_K = _pair_keys(train_N2, positive_N, num_proteins)
    candidates_M = neighbours.num_near[asked_M2[:, 0]] * neighbours.num_near[asked_M2[:, 1]]
    best_M2 = np.zeros((len(asked_M2), 2))  # similarity to the nearest negative, to the nearest positive
    for rows in _blocks(candidates_M, most_candidates):
        row, key, similarity = _neighbouring_pairs(neighbours, asked_M2, rows)
        place = np.minimum(np.searchsorted(key_K, key), len(key_K) - 1)
        known = key_K[place] == key
        np.maximum.at(best_M2, (row[known], label_K[place[known]]), similarity[known])
    prevalence = float(np.mean(positive_N))
    return prevalence + (1 - prevalence) * best_M2[:, 1] - prevalence * best_M2[:, 0]


def _pair_keys(train_N2: np.ndarray, positive_N: np.ndarray, num_proteins: int) -> tuple[np.ndarray, np.ndarray]:
    """Sorted keys `first * P + second` of the training pairs in both orders, with their labels 0 or 1."""
    first_N, second_N = train_N2.astype(np.int64).T
    keys = np.concatenate([first_N * num_proteins + second_N, second_N * num_proteins + first_N])
    key_K, place_K = np.unique(keys, return_index=True)
    return key_K, np.tile(positive_N > 0.5, 2)[place_K].astype(np.int64)


def _blocks(candidates_M: np.ndarray, most_candidates: int) -> list[np.ndarray]:
    """Asked rows in blocks of about `most_candidates`; rows without any are left out."""
    rows = np.flatnonzero(candidates_M)
    block_of_row = np.cumsum(candidates_M[rows]) // most_candidates
    return np.split(rows, np.flatnonzero(np.diff(block_of_row)) + 1) if len(rows) else []


def _neighbouring_pairs(
    neighbours: Neighbours, asked_M2: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every pair of a neighbour of the first and one of the second protein: asked row, pair key and similarity."""
    first, second = asked_M2[rows].T
    row, entry_a = _expand(rows, neighbours.start[first], neighbours.num_near[first])
    second = asked_M2[row, 1]
    place, entry_b = _expand(np.arange(len(row)), neighbours.start[second], neighbours.num_near[second])
    entry_a = entry_a[place]
    key = neighbours.near_H[entry_a] * (len(neighbours.start) - 1) + neighbours.near_H[entry_b]
    return row[place], key, neighbours.identity_H[entry_a] * neighbours.identity_H[entry_b]


def _expand(owners: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each owner repeated `length` times, beside start, start + 1, ..., start + length - 1."""
    before = np.cumsum(lengths) - lengths
    within = np.arange(lengths.sum()) - np.repeat(before, lengths)
    return np.repeat(owners, lengths), np.repeat(starts, lengths) + within
