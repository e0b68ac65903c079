"""Split a dataset into train, val and test such that no protein, and no relative of one, is in two of them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from peftide.data.partition import deal_groups, partition_graph
from peftide.errors import UserError, raise_problems
from peftide.records import SPLITS, UNUSED, Dataset

NUM_TARGET_BINS = 10  # quantile bins by which a regression target is stratified


def random_split(
    dataset: Dataset, *, val_fraction: float, test_fraction: float, generator: np.random.Generator
) -> tuple[Dataset, tuple[str, ...]]:
    """The dataset with `split_N` filled by a random partition of its proteins, and notes that say what was done.

    Identical sequences under two ids stay together. Fractions are of the examples that are kept; labels are
    stratified. A pair whose two proteins fall in different splits becomes "unused"; the partition keeps as many as
    it can. Similar sequences can still fall in different splits: see `cluster_split`.

    Raises:
        UserError: the fractions make no sense, or a class has no example in a split.
    """
    return _split_by_group(
        dataset, sequence_groups(dataset.proteins.sequences), "protein",
        fractions_S=_checked_fractions(val_fraction, test_fraction), generator=generator,
    )  # fmt: skip


def sequence_groups(sequences: Sequence[str]) -> np.ndarray:
    """Number (P,) of each protein's sequence among the unique ones: equal for identical sequences."""
    number_of: dict[str, int] = {}
    return np.array([number_of.setdefault(sequence, len(number_of)) for sequence in sequences], dtype=np.int64)


def _checked_fractions(val_fraction: float, test_fraction: float) -> np.ndarray:
    problems = [
        f"{name} is {value}: give a number from 0 to below 1"
        for name, value in (("val_fraction", val_fraction), ("test_fraction", test_fraction))
        if not 0 <= value < 1
    ]
    if not problems and val_fraction + test_fraction >= 1:
        problems.append(
            f"val_fraction + test_fraction is {val_fraction + test_fraction:g}: nothing is left to train on"
        )
    raise_problems("cannot split", problems)
    return np.array([1 - val_fraction - test_fraction, val_fraction, test_fraction])


def _split_by_group(
    dataset: Dataset, group_P: np.ndarray, noun: str, *, fractions_S: np.ndarray, generator: np.random.Generator
) -> tuple[Dataset, tuple[str, ...]]:
    """Deal the groups of proteins out to the splits; `noun` names them in the notes."""
    if not len(dataset):
        raise UserError("cannot split: the table has no examples")
    members_NK = group_P[dataset.members_NK]
    used_groups, members_flat = np.unique(members_NK, return_inverse=True)
    groups_NK = members_flat.reshape(members_NK.shape)
    strata_NC = strata(dataset)
    strata_NC = strata_NC[:, strata_NC.any(axis=0)]
    wanted = fractions_S > 0  # a split of fraction 0 is not made
    names = [name for name, is_wanted in zip(SPLITS, wanted, strict=True) if is_wanted]
    if groups_NK.shape[1] == 1:
        count_GC = np.zeros((len(used_groups), strata_NC.shape[1]))
        np.add.at(count_GC, groups_NK[:, 0], strata_NC)
        part_G = deal_groups(count_GC, fractions_S=fractions_S[wanted], generator=generator)
    else:
        part_G = partition_graph(groups_NK, strata_NC, fractions_S=fractions_S[wanted], generator=generator)
    part_NK = part_G[groups_NK]
    kept_N = (part_NK == part_NK[:, :1]).all(axis=1)
    done = replace(dataset, split_N=np.where(kept_N, np.array(names)[part_NK[:, 0]], UNUSED))
    _check_classes(done, names, noun)
    return done, tuple(_notes(done, noun))


def strata(dataset: Dataset) -> np.ndarray:
    """Membership (N, C) as 0/1 of each example in the strata to balance: classes, or quantile bins of a number."""
    if dataset.targets is None:
        return np.ones((len(dataset), 1))
    if dataset.kind == "multilabel":
        none_N = dataset.targets.sum(axis=1) == 0
        return np.column_stack([dataset.targets, none_N]).astype(np.float64)
    if dataset.kind == "regression":
        edges = np.unique(np.quantile(dataset.targets, np.linspace(0, 1, NUM_TARGET_BINS + 1)[1:-1]))
        bin_N = np.searchsorted(edges, dataset.targets, side="right")
        return np.eye(len(edges) + 1)[bin_N]
    return np.eye(len(dataset.classes))[dataset.targets.astype(np.int64)]


def _check_classes(dataset: Dataset, names: Sequence[str], noun: str) -> None:
    """Refuse a split that lacks examples, or a class of a binary or multiclass label."""
    assert dataset.split_N is not None
    problems = [
        f"split {name!r} got no example: give larger fractions, more data, or a split column of your own"
        for name in names
        if not (dataset.split_N == name).any()
    ]
    if not problems and dataset.targets is not None and dataset.kind in ("binary", "multiclass"):
        for number, title in enumerate(dataset.classes):
            of_class_N = dataset.targets == number
            missing = [name for name in names if not (of_class_N & (dataset.split_N == name)).any()]
            if missing:
                num_proteins = len(np.unique(dataset.members_NK[of_class_N]))
                problems.append(
                    f"class {title!r} ({of_class_N.sum():,} examples, {num_proteins:,} proteins) has no example in "
                    f"{' and '.join(missing)}: bring more examples of it, merge it with another class or leave it out, "
                    "give larger fractions, or a split column of your own"
                )
    raise_problems(f"cannot split by {noun}", problems)


def _notes(dataset: Dataset, noun: str) -> list[str]:
    assert dataset.split_N is not None
    total = len(dataset)
    sizes = ", ".join(f"{(dataset.split_N == name).sum():,} {name}" for name in SPLITS)
    notes = [f"no split column: split by {noun} into {sizes}"]
    num_unused = int((dataset.split_N == UNUSED).sum())
    if num_unused:
        notes.append(
            f"{num_unused:,} of {total:,} pairs ({num_unused / total:.1%}) are unused: "
            "their two proteins are in different splits"
        )
    if dataset.kind == "multilabel" and dataset.targets is not None:
        for name in SPLITS:
            part_N = dataset.split_N == name
            absent = [
                title for title, column in zip(dataset.classes, dataset.targets.T, strict=True)
                if column.any() and not column[part_N].any()
            ]  # fmt: skip
            if part_N.any() and absent:
                notes.append(f"no example in {name} of: {', '.join(absent)}")
    return notes
