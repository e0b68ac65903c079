"""Split a dataset into train, val and test such that no protein, and no relative of one, is in two of them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from peftide.data.clusters import Clustering, sequence_groups
from peftide.data.partition import deal_groups, partition_graph
from peftide.errors import UserError, raise_problems
from peftide.records import SPLITS, UNUSED, Dataset

SPLIT_OF_PROTEINS = "; or split by protein, which lets similar proteins fall in different splits"
NUM_TARGET_BINS = 10  # quantile bins by which a regression target is stratified
MOST_BENT = 0.2  # of the size asked of a part: beyond, labels too rare for all parts are not spread over them
MOST_NAMED = 10  # labels in a note


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
        dataset, sequence_groups(dataset.proteins.sequences)[1], "protein", "",
        fractions_S=_checked_fractions(val_fraction, test_fraction), generator=generator,
    )  # fmt: skip


def cluster_split(
    dataset: Dataset,
    clustering: Clustering,
    *,
    val_fraction: float,
    test_fraction: float,
    generator: np.random.Generator,
) -> tuple[Dataset, tuple[str, ...]]:
    """As `random_split`, but whole clusters of similar proteins are dealt out: no protein has a relative elsewhere.

    clustering: of `dataset.proteins.sequences`, in their order.

    Raises:
        UserError: as `random_split`; with few large clusters, a higher identity or coverage makes them smaller.
    """
    assert len(clustering.cluster_P) == len(dataset.proteins), "the clustering is of other proteins"
    done, notes = _split_by_group(
        dataset, clustering.cluster_P, "cluster of similar proteins", SPLIT_OF_PROTEINS,
        fractions_S=_checked_fractions(val_fraction, test_fraction), generator=generator,
    )  # fmt: skip
    return done, (clustering.describe(), *notes)


def split_dataset(
    dataset: Dataset,
    clustering: Clustering | None,
    *,
    val_fraction: float,
    test_fraction: float,
    generator: np.random.Generator,
) -> tuple[Dataset, tuple[str, ...]]:
    """`cluster_split`, or `random_split` where there is no clustering."""
    if clustering is None:
        return random_split(dataset, val_fraction=val_fraction, test_fraction=test_fraction, generator=generator)
    return cluster_split(
        dataset, clustering, val_fraction=val_fraction, test_fraction=test_fraction, generator=generator
    )


def classify_test_pairs(dataset: Dataset, group_P: np.ndarray | None = None) -> np.ndarray:
    """How much of each test pair training has seen: "C1" both proteins, "C2" one, "C3" none; "" for other examples.

    A protein is seen when it, or another of its group (P,) such as its cluster, is in a training pair (Park and
    Marcotte 2012). Pairs marked "unused" count as test pairs here: after a protein-disjoint split they are the C2 set.
    """
    assert dataset.split_N is not None, "the dataset has no split yet"
    groups_N2 = dataset.members_NK if group_P is None else group_P[dataset.members_NK]
    seen_N2 = np.isin(groups_N2, groups_N2[dataset.split_N == "train"])
    label_N = np.array(["C3", "C2", "C1"])[seen_N2.sum(axis=1)]
    return np.where(np.isin(dataset.split_N, ("test", UNUSED)), label_N, "")


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
    dataset: Dataset, group_P: np.ndarray, noun: str, mend: str, *, fractions_S: np.ndarray,
    generator: np.random.Generator,
) -> tuple[Dataset, tuple[str, ...]]:  # fmt: skip
    """Deal the groups of proteins out to the splits; `noun` names them in the notes, `mend` what else could be done."""
    if not len(dataset):
        raise UserError("cannot split: the table has no examples")
    members_NK = group_P[dataset.members_NK]
    _, members_flat = np.unique(members_NK, return_inverse=True)
    groups_NK = members_flat.reshape(members_NK.shape)
    strata_NC = strata(dataset, least_fraction=fractions_S[fractions_S > 0].min())
    strata_NC = strata_NC[:, strata_NC.any(axis=0)]
    wanted = fractions_S > 0  # a split of fraction 0 is not made
    names = [name for name, is_wanted in zip(SPLITS, wanted, strict=True) if is_wanted]
    if groups_NK.shape[1] == 1:
        part_G = _deal(groups_NK[:, 0], strata_NC, fractions_S[wanted], generator)
        share_S = np.bincount(part_G[groups_NK[:, 0]], minlength=len(names)) / len(dataset)
        is_bent = (np.abs(share_S / fractions_S[wanted] - 1) > MOST_BENT).any()
        if is_bent and dataset.kind == "multilabel":
            common_NC = _common(strata_NC, least_examples=1 / fractions_S[wanted].min())
            part_G = _deal(groups_NK[:, 0], common_NC, fractions_S[wanted], generator)
    else:
        part_G = partition_graph(groups_NK, strata_NC, fractions_S=fractions_S[wanted], generator=generator)
    part_NK = part_G[groups_NK]
    kept_N = (part_NK == part_NK[:, :1]).all(axis=1)
    done = replace(dataset, split_N=np.where(kept_N, np.array(names)[part_NK[:, 0]], UNUSED))
    _check_classes(done, names, noun, mend)
    return done, tuple(_notes(done, noun))


def _deal(
    groups_N: np.ndarray, strata_NC: np.ndarray, fractions_S: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Part of each group (G,), by the strata of its examples."""
    count_GC = np.zeros((groups_N.max() + 1, strata_NC.shape[1]))
    np.add.at(count_GC, groups_N, strata_NC)
    return deal_groups(count_GC, fractions_S=fractions_S, generator=generator)


def _common(strata_NC: np.ndarray, *, least_examples: float) -> np.ndarray:
    """The strata with so many examples, and one more for the examples that are in none of them.

    Hundreds of labels with a few examples each, spread as evenly as can be, would make all parts of one size.
    """
    common_NC = strata_NC[:, strata_NC.sum(axis=0) >= least_examples]
    rest_N = ~common_NC.any(axis=1)
    return np.column_stack([common_NC, rest_N]) if rest_N.any() else common_NC


def strata(dataset: Dataset, *, least_fraction: float) -> np.ndarray:
    """Membership (N, C) as 0/1 of each example in the strata to balance: classes, or quantile bins of a number.

    least_fraction: of the examples, in a part; there are no more bins than it has examples, for each part gets one.
    """
    if dataset.targets is None:
        return np.ones((len(dataset), 1))
    if dataset.kind == "multilabel":
        none_N = dataset.targets.sum(axis=1) == 0
        return np.column_stack([dataset.targets, none_N]).astype(np.float64)
    if dataset.kind == "regression":
        num_bins = max(1, min(NUM_TARGET_BINS, int(len(dataset) * least_fraction)))
        edges = np.unique(np.quantile(dataset.targets, np.linspace(0, 1, num_bins + 1)[1:-1]))
        bin_N = np.searchsorted(edges, dataset.targets, side="right")
        return np.eye(len(edges) + 1)[bin_N]
    return np.eye(len(dataset.classes))[dataset.targets.astype(np.int64)]


def _check_classes(dataset: Dataset, names: Sequence[str], noun: str, mend: str) -> None:
    """Refuse a split that lacks examples, or a class of a binary or multiclass label."""
    assert dataset.split_N is not None
    problems = [
        f"split {name!r} got no example: give larger fractions, more data, or a split column of your own{mend}"
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
                    f"give larger fractions, or a split column of your own{mend}"
                )
    raise_problems(f"cannot split by {noun}", problems)


def _notes(dataset: Dataset, noun: str) -> list[str]:
    """What came of the split: sizes, lost pairs, classes that are missing somewhere."""
    assert dataset.split_N is not None
    total, num_unused = len(dataset), int((dataset.split_N == UNUSED).sum())
    size_of = {name: int((dataset.split_N == name).sum()) for name in SPLITS}
    sizes = ", ".join(f"{size:,} {name} ({size / (total - num_unused):.1%})" for name, size in size_of.items())
    notes = [f"split by {noun}: {sizes}"]
    if num_unused:
        notes.append(
            f"{num_unused:,} of {total:,} pairs ({num_unused / total:.1%}) are unused: "
            "their two proteins are in different splits"
        )
    if dataset.kind == "multilabel" and dataset.targets is not None:
        present_NC = dataset.targets > 0
        for name in (name for name in SPLITS if size_of[name]):
            is_absent_C = present_NC.any(axis=0) & ~present_NC[dataset.split_N == name].any(axis=0)
            absent = [title for title, is_absent in zip(dataset.classes, is_absent_C, strict=True) if is_absent]
            more = f" and {len(absent) - MOST_NAMED:,} more" if len(absent) > MOST_NAMED else ""
            notes += [f"split {name} has no example of {', '.join(absent[:MOST_NAMED])}{more}"] if absent else []
    return notes
