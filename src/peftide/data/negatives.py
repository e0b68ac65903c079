"""Negative pairs for data that have only positive ones: random, but with each protein as often as among positives."""

from dataclasses import replace

import numpy as np

from peftide.data.clusters import sequence_groups
from peftide.errors import UserError
from peftide.records import UNUSED, Dataset

ROUNDS = 200  # of shuffling again what cannot stand
DEFAULT_CLASSES = ("0", "1")


def sample_negatives(
    dataset: Dataset, *, ratio: float = 1.0, generator: np.random.Generator
) -> tuple[Dataset, tuple[str, ...]]:
    """The positive pairs followed by sampled negative ones, and notes that say what was done.

    Each protein gets `ratio` times as many negatives as it has positives, so that its number of partners tells
    nothing. Where the dataset has a split, this is so within each split, and negatives stay within it (unused pairs
    get none): so split first, and no negative is lost. No negative is a known positive of any split, in either order
    and under any id of the same sequences, nor a pair of a protein with itself, nor a repetition. Negatives are
    presumed, not observed: a few will be true but unknown interactions.

    Raises:
        UserError: not pairs, some are negative already, or the ratio is not above 0.
    """
    _check(dataset, ratio)
    sequence_P = sequence_groups(dataset.proteins.sequences)[1]
    known = np.unique(_keys(sequence_P[dataset.members_NK], len(sequence_P)))
    split_N = np.full(len(dataset), "") if dataset.split_N is None else dataset.split_N
    new_pairs, new_splits, notes = [], [], []
    for split in sorted(set(split_N.tolist()) - {UNUSED}):
        members_M2 = dataset.members_NK[split_N == split]
        stubs = _stubs(members_M2, ratio, num_proteins=len(sequence_P), generator=generator)
        pairs_M2, num_missing = _pair_up(stubs, sequence_P, known, generator)
        new_pairs.append(pairs_M2)
        new_splits.append(np.full(len(pairs_M2), split))
        where = f" in {split}" if split else ""
        notes.append(f"{len(pairs_M2):,} presumed negatives sampled for {len(members_M2):,} positives{where}")
        if num_missing:
            notes[-1] += (
                f"; {num_missing:,} fewer than asked, since proteins with many positives have too few other partners"
            )
    negatives_M2 = np.concatenate(new_pairs)
    targets = np.concatenate([np.ones(len(dataset)), np.zeros(len(negatives_M2))]).astype(np.float32)
    done = replace(
        dataset,
        kind="binary",
        members_NK=np.concatenate([dataset.members_NK, negatives_M2]),
        targets=targets,
        classes=dataset.classes or DEFAULT_CLASSES,
        split_N=None if dataset.split_N is None else np.concatenate([split_N, *new_splits]),
    )
    return done, tuple(notes)


def _check(dataset: Dataset, ratio: float) -> None:
    if dataset.members_NK.shape[1] != 2:
        raise UserError("negatives can be sampled for pairs only; this table has single proteins")
    if ratio <= 0:
        raise UserError(f"the ratio of negatives to positives is {ratio:g}; give a number above 0, such as 1 or 10")
    if dataset.targets is not None and (dataset.kind != "binary" or not (dataset.targets == 1).all()):
        num_other = int((dataset.targets != 1).sum())
        raise UserError(
            f"{num_other:,} of {len(dataset):,} pairs are labelled other than positive; negatives are sampled only "
            "for tables of positive pairs: leave them out of the table, or use it as it is"
        )


def _stubs(members_M2: np.ndarray, ratio: float, *, num_proteins: int, generator: np.random.Generator) -> np.ndarray:
    """Each protein as often as it shall be in a negative: rounded up or down at random, an even number in all."""
    wanted_P = ratio * np.bincount(members_M2.ravel(), minlength=num_proteins)
    number_P = np.floor(wanted_P + generator.random(num_proteins)).astype(np.int64)
    stubs = np.repeat(np.arange(num_proteins), number_P)
    return stubs[: len(stubs) // 2 * 2] if len(stubs) % 2 == 0 else np.delete(stubs, generator.integers(len(stubs)))


def _pair_up(
    stubs: np.ndarray, sequence_P: np.ndarray, known: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, int]:
    """Pairs (M, 2) of the stubs, and how many could not be made.

    Pairs that may not be are dissolved together with as many good ones, and shuffled again.
    """
    pairs_M2 = generator.permutation(stubs).reshape(-1, 2)
    is_bad_M = _is_bad(pairs_M2, sequence_P, known)
    for _ in range(ROUNDS):
        if not is_bad_M.any():
            break
        bad, good = np.flatnonzero(is_bad_M), np.flatnonzero(~is_bad_M)
        partners = generator.choice(good, size=min(len(bad), len(good)), replace=False)
        again = np.concatenate([bad, partners])
        tried_M2 = pairs_M2.copy()
        tried_M2[again] = generator.permutation(pairs_M2[again].ravel()).reshape(-1, 2)
        is_bad_after_M = _is_bad(tried_M2, sequence_P, known)
        if is_bad_after_M.sum() <= is_bad_M.sum():
            pairs_M2, is_bad_M = tried_M2, is_bad_after_M
    return pairs_M2[~is_bad_M], int(is_bad_M.sum())


def _is_bad(pairs_M2: np.ndarray, sequence_P: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Mask (M,) of known positives, pairs of a sequence with itself, and repetitions."""
    sequence_M2 = sequence_P[pairs_M2]
    key_M = _keys(sequence_M2, len(sequence_P))
    order_M = np.argsort(key_M, kind="stable")
    is_repeated_M = np.zeros(len(key_M), dtype=bool)
    is_repeated_M[order_M[1:]] = key_M[order_M[1:]] == key_M[order_M[:-1]]
    is_known_M = known[np.minimum(np.searchsorted(known, key_M), len(known) - 1)] == key_M
    return is_repeated_M | is_known_M | (sequence_M2[:, 0] == sequence_M2[:, 1])


def _keys(pairs_M2: np.ndarray, num_proteins: int) -> np.ndarray:
    """One number (M,) for each pair, the same in either order."""
    return pairs_M2.min(axis=1) * num_proteins + pairs_M2.max(axis=1)
