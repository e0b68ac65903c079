"""What came of a split: sizes, balance, clusters, lost pairs; as a record for JSON and as text."""

from dataclasses import dataclass

import numpy as np

from peftide.data.audit import class_counts
from peftide.data.clusters import Clustering, sequence_groups
from peftide.data.splits import classify_test_pairs
from peftide.records import SPLITS, UNUSED, Dataset

PAIR_CLASSES = {  # of Park and Marcotte (2012)
    "C1": "both proteins, or a relative of each, are in training",
    "C2": "one of the two proteins, or a relative of it, is in training",
    "C3": "neither protein, nor a relative of one, is in training",
}


@dataclass(frozen=True)
class PartSummary:
    """Sizes of one part of a split; the asked and the made fraction are of the examples that are not unused."""

    name: str
    num_examples: int
    fraction: float | None
    asked_fraction: float | None
    num_proteins: int
    num_clusters: int
    class_counts: dict[str, int]


@dataclass(frozen=True)
class SplitReport:
    """How a table was split and what came of it, ready for JSON by `dataclasses.asdict`.

    clusters: how similar proteins were grouped, in words; None: only identical sequences were. num_negatives: sampled
    ones among the examples. pair_classes: of the test and the unused pairs, how many are C1, C2 and C3. notes: what was
    cleaned and counted on reading, splitting and sampling.
    """

    by: str
    num_examples: int
    num_negatives: int
    num_proteins: int
    num_clusters: int
    clusters: str | None
    parts: tuple[PartSummary, ...]
    pair_classes: dict[str, dict[str, int]]
    notes: tuple[str, ...]


def make_report(
    dataset: Dataset, clustering: Clustering | None, *, val_fraction: float, test_fraction: float,
    num_negatives: int, notes: tuple[str, ...],
) -> SplitReport:  # fmt: skip
    """Count what is in each part of a split dataset; clustering None: the split was made by protein."""
    assert dataset.split_N is not None, "the dataset has no split yet"
    group_P = sequence_groups(dataset.proteins.sequences)[1] if clustering is None else clustering.cluster_P
    num_used = int((dataset.split_N != UNUSED).sum())
    asked = {"train": 1 - val_fraction - test_fraction, "val": val_fraction, "test": test_fraction}
    pair_classes = {}
    if dataset.members_NK.shape[1] == 2:
        class_N = classify_test_pairs(dataset, group_P)
        pair_classes = {
            part: {name: int(((dataset.split_N == part) & (class_N == name)).sum()) for name in PAIR_CLASSES}
            for part in ("test", UNUSED)
        }
    return SplitReport(
        by="protein" if clustering is None else "cluster",
        num_examples=len(dataset),
        num_negatives=num_negatives,
        num_proteins=len(dataset.proteins),
        num_clusters=len(np.unique(group_P)),
        clusters=None if clustering is None else clustering.describe(),
        parts=tuple(
            _part(dataset, group_P, name, asked_fraction=asked.get(name), num_used=num_used)
            for name in (*SPLITS, UNUSED)
            if (dataset.split_N == name).any()
        ),
        pair_classes=pair_classes,
        notes=notes,
    )


def _part(
    dataset: Dataset, group_P: np.ndarray, name: str, *, asked_fraction: float | None, num_used: int
) -> PartSummary:
    part = dataset.subset(np.flatnonzero(dataset.split_N == name))
    rows = np.unique(part.members_NK)
    return PartSummary(
        name=name,
        num_examples=len(part),
        fraction=None if name == UNUSED else len(part) / num_used,
        asked_fraction=asked_fraction,
        num_proteins=len(rows),
        num_clusters=len(np.unique(group_P[rows])),
        class_counts=class_counts(part),
    )


def render_split(report: SplitReport) -> str:
    """The parts in lines of plain text, for the terminal; what else there is to say stands in the notes."""
    lines = []
    for part in report.parts:
        share = "" if part.fraction is None else f" ({part.fraction:.1%}; asked for {part.asked_fraction:.1%})"
        clusters = f" of {part.num_clusters:,} clusters" if report.clusters else ""
        lines.append(
            f"{part.name:6} {part.num_examples:,} examples{share}, {part.num_proteins:,} proteins{clusters}"
            f"{_balance(part)}"
        )
    for part, counts in report.pair_classes.items():
        lines += [
            f"{part} pairs of class {name}: {count:,} ({PAIR_CLASSES[name]})" for name, count in counts.items() if count
        ]
    return "\n".join(lines)


def _balance(part: PartSummary) -> str:
    shown = [
        f"{name}: {count:,} = {count / part.num_examples:.1%}" for name, count in part.class_counts.items() if count
    ]
    return f"; {', '.join(shown)}" if shown else ""
