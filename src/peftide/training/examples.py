"""The examples of a run: read, split where the table has no split, and audited."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
from rich.console import Console

from peftide.config import TrainSettings, settings_of
from peftide.data.audit import Audit, audit
from peftide.data.clusters import Clustering, cluster_sequences
from peftide.data.datasets import read_dataset
from peftide.data.files import data_digests
from peftide.data.splits import split_dataset
from peftide.errors import UserError
from peftide.evaluation.baselines import BaselineScores
from peftide.records import SPLITS, Dataset
from peftide.training.ranks import Ranks

# Validation and test proteins for which the search for relatives takes about a minute on one core (7 ms each)
MOST_SEARCHED = 8_000
MANY_CLUSTERED = 5_000  # proteins whose clustering takes about a minute on one core (10 ms each)
SPLIT_SETTINGS = ("val_fraction", "test_fraction", "split_seed", "split_by", "split_identity")


@dataclass(frozen=True)
class Examples:
    """The examples with a split.

    audit: of that split; baseline_scores: what baselines scored on these examples, filled by the first run that is
    compared with them.
    """

    dataset: Dataset
    audit: Audit | None
    baseline_scores: dict[str, BaselineScores] = field(default_factory=dict)


def read_examples(settings: TrainSettings, console: Console) -> Examples:
    """Read, split where the table has no split, audit; all that was cleaned, assumed or found is said aloud.

    Raises UserError for what is wrong with the files, for a part without examples, and, with `strict`, where the audit
    flags the split.
    """
    dataset = read_dataset(settings)
    _say(dataset.notes, console)
    if dataset.split_N is None:
        dataset = _split(dataset, settings, console)
    else:
        ignored = [name for name in SPLIT_SETTINGS if _is_given(settings, name)]
        if ignored and settings.column_split is None:  # said on checking the settings where the column is named
            _say([f"{settings.data} has a split column, so {', '.join(ignored)} is ignored"], console)
    counts = {split: len(dataset.part(split)) for split in SPLITS}
    if not counts["train"] or not counts["val"]:
        raise UserError(
            f"{settings.data}: {counts['train']} training and {counts['val']} validation examples; both are needed "
            "(mark rows with train and val in the split column, or leave it out for a seeded split)"
        )
    if settings.sampling == "clusters" and dataset.cluster_P is None:
        clustering = _cluster(dataset, settings, console, why="the sampling")
        _say([clustering.describe()], console)
        dataset = replace(dataset, cluster_P=clustering.cluster_P)
    return Examples(dataset, _audit(dataset, settings, console))


def share_split(settings: TrainSettings, dataset: Dataset | None, ranks: Ranks) -> Dataset:
    """The examples with split and clusters of the first rank, which hands in its own; the others read the files too.

    Raises UserError where a rank does not read the same files.
    """
    if ranks.count == 1:
        assert dataset is not None
        return dataset
    own = None
    if dataset is not None and dataset.split_N is not None:
        clusters = None if dataset.cluster_P is None else dataset.cluster_P.tolist()
        digests = list(data_digests(settings).values())
        own = {"split": dataset.split_N.tolist(), "clusters": clusters, "sha256": digests}
    of_first = ranks.document_from_first(own)
    if dataset is not None:
        return dataset
    digests = data_digests(settings)
    if list(digests.values()) != of_first["sha256"]:
        raise UserError(
            f"process {ranks.rank} of {ranks.count} (counted from 0) reads another content of {' or '.join(digests)} "
            "than the first: give every node the same files"
        )
    cluster_P = None if of_first["clusters"] is None else np.array(of_first["clusters"])
    return replace(read_dataset(settings), split_N=np.array(of_first["split"]), cluster_P=cluster_P)


def _split(dataset: Dataset, settings: TrainSettings, console: Console) -> Dataset:
    """The dataset with a seeded split, its notes said and kept, and the cluster of each protein if there are any."""
    clustering = None
    if settings.split_by == "cluster" and dataset.cluster_P is not None:
        clustering = Clustering(dataset.cluster_P)
    elif settings.split_by == "cluster":
        clustering = _cluster(dataset, settings, console, why="the split")
    seed = settings.seed if settings.split_seed is None else settings.split_seed
    dataset, notes = split_dataset(
        dataset, clustering, val_fraction=settings.val_fraction, test_fraction=settings.test_fraction,
        generator=np.random.default_rng(seed),
    )  # fmt: skip
    _say(notes, console)
    cluster_P = dataset.cluster_P if clustering is None else clustering.cluster_P
    return replace(dataset, notes=(*dataset.notes, *notes), cluster_P=cluster_P)


def _cluster(dataset: Dataset, settings: TrainSettings, console: Console, *, why: str) -> Clustering:
    """Similar proteins, looked for in every run anew."""
    num_proteins = len(dataset.proteins)
    if num_proteins > MANY_CLUSTERED:
        what = f"grouping {num_proteins:,} proteins by similarity for {why} takes minutes, in every run"
        _say([f"{what}; peftide split writes splits and clusters down once for all"], console)
    with console.status("grouping similar proteins"):
        return cluster_sequences(dataset.proteins.sequences, identity=settings.split_identity, threads=settings.threads)


def _audit(dataset: Dataset, settings: TrainSettings, console: Console) -> Audit | None:
    """The audit that the settings ask for, its verdict said; refuse a flagged split where they are strict."""
    if settings.audit == "none":
        return None
    num_searched = len(np.union1d(dataset.part("val").members_NK, dataset.part("test").members_NK))
    is_fast = settings.audit == "fast" or (settings.audit == "auto" and num_searched > MOST_SEARCHED)
    if is_fast and settings.audit == "auto":
        what = f"the audit leaves out the search for relatives of {num_searched:,} validation and test proteins"
        _say([f"{what}, which takes minutes; --audit full includes it"], console)
    with console.status("auditing the split"):
        found = audit(
            dataset, tool=None if is_fast else "auto", max_residues=settings.max_residues, threads=settings.threads
        )
    if found.flags and settings.strict:
        raise UserError(
            f"{settings.data}: {found.verdict}; peftide audit tells more, peftide split makes a better split, and "
            "without --strict this one is trained on"
        )
    console.print(f"audit: {found.verdict}", style="yellow" if found.flags else None, highlight=False, markup=False)
    return found


def _is_given(settings: TrainSettings, name: str) -> bool:
    value = getattr(settings, name)
    if name == "split_seed" and value == settings.seed:  # what sweeps write down
        return False
    return value != settings_of(TrainSettings)[name].default


def _say(notes: Iterable[str], console: Console) -> None:
    for note in notes:
        console.print(f"note: {note}", highlight=False)
