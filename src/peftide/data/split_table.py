"""From a table of examples to the same table with a split, and a report of what was done."""

from dataclasses import dataclass

import numpy as np

from peftide.config import SplitSettings
from peftide.data.clusters import Clustering, cluster_sequences
from peftide.data.columns import PAIR_CLUSTERS
from peftide.data.negatives import sample_negatives
from peftide.data.split_report import SplitReport, make_report
from peftide.data.splits import classify_test_pairs, split_dataset
from peftide.data.written import Written, read_written
from peftide.records import Dataset


@dataclass(frozen=True)
class SplitTable:
    """The columns of a table that every reader of examples accepts, and what is to be said of them."""

    columns: dict[str, list[str]]
    report: SplitReport


def split_table(settings: SplitSettings) -> SplitTable:
    """Read, cluster, split, and sample negatives where they are asked for.

    Raises UserError for whatever the user can mend: files, settings, classes too small to be in every part.
    """
    written = read_written(settings, positives_only=settings.negatives is not None)
    clustering = None
    if settings.by == "cluster" and written.dataset.cluster_P is not None:
        clustering = Clustering(written.dataset.cluster_P)
    elif settings.by == "cluster":
        clustering = cluster_sequences(
            written.dataset.proteins.sequences, identity=settings.identity, coverage=settings.coverage,
            tool=settings.search, threads=settings.threads,
        )  # fmt: skip
    generator = np.random.default_rng(settings.seed)
    dataset, notes = split_dataset(
        written.dataset, clustering, val_fraction=settings.val_fraction, test_fraction=settings.test_fraction,
        generator=generator,
    )  # fmt: skip
    if settings.negatives is not None:
        dataset, sampled = sample_negatives(dataset, ratio=settings.negatives, generator=generator)
        notes += sampled
    report = make_report(
        dataset, clustering, val_fraction=settings.val_fraction, test_fraction=settings.test_fraction,
        num_negatives=len(dataset) - len(written.dataset), notes=(*written.dataset.notes, *notes),
    )  # fmt: skip
    group_P = written.dataset.cluster_P if clustering is None else clustering.cluster_P
    return SplitTable(_columns(dataset, written, group_P), report)


def _columns(dataset: Dataset, written: Written, group_P: np.ndarray | None) -> dict[str, list[str]]:
    """Ids, sequences where the table had them, labels, splits, for pairs the class of a test pair, and clusters."""
    assert dataset.split_N is not None
    members_KN, ends = dataset.members_NK.T.tolist(), ("_a", "_b")
    is_pair = len(members_KN) == 2
    columns: dict[str, list[str]] = {}
    for rows, end in zip(members_KN, ends, strict=False):
        columns[f"protein{end}" if is_pair else "id"] = [dataset.proteins.ids[row] for row in rows]
    for rows, end in zip(members_KN if written.has_sequences else (), ends, strict=False):
        columns[f"sequence{end}" if is_pair else "sequence"] = [dataset.proteins.sequences[row] for row in rows]
    num_negatives = len(dataset) - len(written.labels)
    columns["label"] = [*written.labels, *dataset.classes[:1] * num_negatives]
    columns["split"] = dataset.split_N.tolist()
    if is_pair:
        columns["pair_class"] = classify_test_pairs(dataset, group_P).tolist()
    if group_P is not None:
        for name, rows in zip(PAIR_CLUSTERS if is_pair else ("cluster",), members_KN, strict=True):
            columns[name] = [str(number) for number in group_P[rows]]
    return columns
