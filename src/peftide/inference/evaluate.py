"""Labelled examples scored by one bundle, or by all bundles of a folder together, and measured.

Shapes: N examples, C outputs.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from peftide.config import EvaluateSettings
from peftide.data.datasets import read_dataset
from peftide.data.writers import check_folder_place, check_names_free, make_folder, write_json, write_table
from peftide.errors import UserError
from peftide.evaluation.assessment import measure_clusters, num_replicates
from peftide.evaluation.intervals import Interval, bootstrap_intervals
from peftide.evaluation.metrics import measure, measure_classes, statistic
from peftide.inference.predict import example_columns, prediction_columns
from peftide.inference.score import data_settings, load_for_inference, score_dataset
from peftide.models.bundle import bundles_together, trained_examples, was_trained_on
from peftide.models.bundle_facts import BundleFacts
from peftide.records import Dataset

WRITTEN = ("predictions.tsv", "metrics.json")  # into the folder


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a model on labelled examples, their intervals (bootstrap over proteins or clusters), its predictions.

    per_cluster: the metrics with one vote for each cluster of similar proteins, where the table has clusters.
    """

    metrics: dict[str, float]
    intervals: dict[str, Interval]
    classes: dict[str, dict[str, float]]
    per_cluster: dict[str, float]
    predictions: dict[str, list]


def run_evaluation(settings: EvaluateSettings, console: Console) -> Evaluation:
    """Score, measure, print; write where a folder is given.

    Raises UserError for whatever the user can mend: data, settings, bundles.
    """
    if settings.out is not None:
        check_folder_place(settings.out)
        check_names_free(settings.out, WRITTEN, settings.data, settings.sequences)
        if (Path(settings.out) / "run.json").exists():
            raise UserError(
                f"--out {settings.out}: is a bundle, whose predictions.tsv would be lost; choose another folder"
            )
    bundles, facts = bundles_together(Path(settings.bundle))
    dataset = _read_labelled(facts, bundles, settings, console)
    scores = np.mean([_score(bundle, dataset, settings, console, len(bundles)) for bundle in bundles], axis=0)
    result = _measured(dataset, scores, prediction_columns(dataset, scores, facts.target))
    _tell(result, console)
    if settings.out is not None:
        _write(result, settings, settings.out)
    return result


def _read_labelled(
    facts: BundleFacts, bundles: Sequence[Path], settings: EvaluateSettings, console: Console
) -> Dataset:
    """The examples of the wanted part, read as the first model was trained to see them."""
    wanted = data_settings(facts, settings)
    dataset = read_dataset(wanted, labelled=True, classes=facts.target.classes, kind=facts.target.kind)
    for note in dataset.notes:
        console.print(f"note: {note}", highlight=False)
    if settings.split != "all" and dataset.split_N is not None:
        return dataset.part(settings.split)
    if settings.split != "all":
        console.print(f"note: {settings.data} has no column split, so every row is scored", highlight=False)
    for bundle in bundles:
        if not was_trained_on(bundle, Path(settings.data)):
            _warn_of_trained(bundle, dataset, console)
        else:
            console.print(
                f"warning: {settings.data} is the table that {bundle} was trained on, and every row of it is scored; "
                f"{bundle / 'split.tsv'} says which rows are the test part",
                style="yellow",
            )
    return dataset


def _warn_of_trained(bundle: Path, dataset: Dataset, console: Console) -> None:
    """Say how many examples, by their ids and whatever their order, are among those that trained the bundle."""
    trained = trained_examples(bundle)
    columns = example_columns(dataset).values()
    num_trained = sum(frozenset(ids) in trained for ids in zip(*columns, strict=True))
    if num_trained:
        console.print(
            f"warning: {num_trained:,} of {len(dataset):,} examples have the ids of examples that {bundle} was trained "
            f"on ({bundle / 'split.tsv'}), and are scored with the others",
            style="yellow",
        )


def _score(
    bundle: Path, dataset: Dataset, settings: EvaluateSettings, console: Console, num_bundles: int
) -> np.ndarray:
    """Scores (N,) or (N, C) by one bundle, which is in memory meanwhile."""
    if num_bundles > 1:
        console.print(f"{bundle}:", highlight=False)
    model, encoder, token_budget = load_for_inference(str(bundle), settings)
    return score_dataset(model, encoder, dataset, token_budget=token_budget, settings=settings, console=console)


def _measured(dataset: Dataset, scores: np.ndarray, predictions: dict[str, list]) -> Evaluation:
    assert dataset.targets is not None
    metrics = measure(dataset.kind, dataset.targets, scores, classes=dataset.classes)
    classes = {}
    if dataset.kind in ("multiclass", "multilabel"):
        classes = measure_classes(dataset.kind, dataset.targets, scores, classes=dataset.classes)
    intervals = bootstrap_intervals(
        statistic(dataset.kind, dataset.targets, scores, classes=dataset.classes),
        dataset.member_groups(),
        generator=np.random.default_rng(0),
        num_replicates=num_replicates(len(dataset)),
    )
    per_cluster = {} if dataset.cluster_P is None else measure_clusters(dataset, scores)
    return Evaluation(metrics, intervals, classes, per_cluster, predictions)


def _tell(found: Evaluation, console: Console) -> None:
    for name, value in found.metrics.items():
        known = found.intervals.get(name)
        within = f"  ({known.confidence:.0%} interval {known.low:.4f} to {known.high:.4f})" if known else ""
        console.print(f"{name:26s} {value:.4f}{within}" if known else f"{name:26s} {value}", highlight=False)
    if found.per_cluster:
        shown = [name for name in found.intervals if name in found.per_cluster]
        told = ", ".join(f"{name} {found.per_cluster[name]:.4f}" for name in shown)
        console.print(f"each cluster of similar proteins counted once: {told}", highlight=False)


def _write(found: Evaluation, settings: EvaluateSettings, out: str) -> None:
    folder = make_folder(out)
    write_table(str(folder / "predictions.tsv"), found.predictions)
    document = {
        "metrics": found.metrics,
        "intervals": {name: asdict(interval) for name, interval in found.intervals.items()},
        "classes": found.classes,
        "per_cluster": found.per_cluster,
        "settings": asdict(settings),
    }
    write_json(folder / "metrics.json", document)
