"""The table of contents of the product: what every command does, in a few lines each."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from peftide.config import (
    AuditSettings,
    CompareSettings,
    DemoSettings,
    DoctorSettings,
    EmbedSettings,
    EvaluateSettings,
    PlanSettings,
    PredictSettings,
    ReportSettings,
    ScreenSettings,
    SplitSettings,
    SweepSettings,
    TrainSettings,
)
from peftide.data.audit import Audit
from peftide.data.audit import audit as audit_dataset
from peftide.data.audit_text import render
from peftide.data.datasets import read_dataset
from peftide.data.lenient import read_leniently
from peftide.data.split_report import SplitReport, render_split
from peftide.data.split_table import split_table
from peftide.data.writers import (
    check_folder_place,
    check_place,
    check_table_path,
    make_folder,
    write_json,
    write_table,
)
from peftide.errors import UserError
from peftide.evaluation.assessment import measure_clusters, num_replicates
from peftide.evaluation.compared import MethodComparison
from peftide.evaluation.intervals import Interval, bootstrap_intervals
from peftide.evaluation.metrics import measure, measure_classes, statistic
from peftide.evaluation.robustness import SweepResult
from peftide.inference.embed_file import embed_file
from peftide.inference.predict import prediction_columns
from peftide.inference.predict_file import predict_file
from peftide.inference.score import data_settings, load_for_inference, score_dataset
from peftide.inference.screen import Screen, run_screen
from peftide.models.bundle import was_trained_on
from peftide.models.property_model import PropertyModel
from peftide.records import Dataset
from peftide.report.run_report import write_report
from peftide.training.compare import run_compare
from peftide.training.demo import run_demo
from peftide.training.doctor import Check, run_doctor
from peftide.training.examples import data_digests
from peftide.training.plan import Plan, run_plan
from peftide.training.ranks import joined
from peftide.training.run import Run, assist_training, run_training
from peftide.training.sweep import run_sweep


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


def split(settings: SplitSettings) -> SplitReport:
    """Write the table with a split in which similar proteins stay together, and a report of it beside the table.

    Raises UserError for whatever the user can mend: data, settings, classes too small to be in every part.
    """
    console, out = _console(), Path(settings.out)
    beside = (out.with_suffix("") if out.suffix == ".gz" else out).with_suffix(".report.json")
    check_table_path(out)
    check_place(beside)
    if out.exists() and os.path.exists(settings.data) and out.samefile(settings.data):
        raise UserError(f"--out {out}: is the table to be split; name another file")
    with console.status("reading, looking for similar proteins, splitting"):
        done = split_table(settings)
    for note in done.report.notes:
        console.print(f"note: {note}", highlight=False)
    write_table(out, done.columns)
    origin = {"settings": asdict(settings), "data": {"sha256": data_digests(settings)}}
    write_json(beside, asdict(done.report) | origin)
    console.print(render_split(done.report), highlight=False)
    console.print(f"table written to {out}, report to {beside}", highlight=False)
    return done.report


def audit(settings: AuditSettings) -> Audit:
    """Tell whether a score on the table's splits could be believed; print what was found and write it where asked.

    Raises UserError for what hinders even that: files that cannot be read, a table without splits.
    """
    console = _console()
    if settings.json is not None:
        check_place(settings.json)
    dataset, refused = read_leniently(settings)
    for note in dataset.notes:
        console.print(f"note: {note}", highlight=False)
    with console.status("looking for what the splits share"):
        found = audit_dataset(
            dataset, tool=None if settings.search == "none" else settings.search, max_residues=settings.max_residues,
            threads=settings.threads, refused=refused,
        )  # fmt: skip
    console.print(render(found), highlight=False, markup=False)
    if settings.json is not None:
        write_json(settings.json, asdict(found))
    return found


def train(settings: TrainSettings) -> Run:
    """Adapt a backbone to labelled examples and write the bundle.

    Started in several processes, as by torchrun, they train together; this returns in the first and ends the others.
    Raises UserError for whatever the user can mend: data, settings, a backbone out of reach, memory.
    """
    with joined(settings.device, shards=settings.shard) as ranks:
        if ranks.is_first:
            return run_training(settings, _console(), ranks=ranks)
        assist_training(settings, ranks)
    raise SystemExit(0)


def plan(settings: PlanSettings) -> Plan:
    """Predict memory, time and cache of training, for each backbone and method, from a short probe on this machine."""
    return run_plan(settings, _console())


def compare(settings: CompareSettings) -> MethodComparison:
    """Train every method with several seeds on one split, and compare them on its test part; go on where it stopped."""
    return run_compare(settings, _console())


def sweep(settings: SweepSettings) -> SweepResult:
    """Train with many settings, measured on validation alone; go on where it stopped, and write the best settings."""
    return run_sweep(settings, _console())


def evaluate(settings: EvaluateSettings) -> Evaluation:
    """Score labelled examples with a bundle; print the metrics and, with `out`, write them and the predictions."""
    console = _console()
    if settings.out is not None:
        check_folder_place(settings.out)
    model, encoder, token_budget = load_for_inference(settings.bundle, settings)
    dataset = _read_labelled(model, settings, console)
    if settings.split != "all" and dataset.split_N is not None:
        dataset = dataset.part(settings.split)
    elif was_trained_on(Path(settings.bundle), Path(settings.data)):
        console.print(
            f"warning: {settings.data} is the table that this bundle was trained on, and every row of it is scored; "
            f"{Path(settings.bundle) / 'split.tsv'} says which rows are the test part",
            style="yellow",
        )
    scores = score_dataset(model, encoder, dataset, token_budget=token_budget, settings=settings, console=console)
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
    result = Evaluation(metrics, intervals, classes, per_cluster, prediction_columns(dataset, scores, model.target))
    for name, value in metrics.items():
        known = intervals.get(name)
        within = f"  ({known.confidence:.0%} interval {known.low:.4f} to {known.high:.4f})" if known else ""
        console.print(f"{name:26s} {value:.4f}{within}" if known else f"{name:26s} {value}", highlight=False)
    if per_cluster:
        told = ", ".join(f"{name} {per_cluster[name]:.4f}" for name in metrics if name in intervals)
        console.print(f"each cluster of similar proteins counted once: {told}", highlight=False)
    if settings.out is not None:
        folder = make_folder(settings.out)
        write_table(str(folder / "predictions.tsv"), result.predictions)
        document = {"metrics": metrics, "intervals": {name: asdict(found) for name, found in intervals.items()}}
        document |= {"classes": classes, "per_cluster": per_cluster, "settings": asdict(settings)}
        write_json(folder / "metrics.json", document)
    return result


def predict(settings: PredictSettings) -> dict[str, list]:
    """Score examples with a bundle, in the order of the input; write and return the table's columns.

    Killed at any moment, the same call goes on. What is returned takes memory; `write_predictions` returns nothing.
    """
    columns: dict[str, list] = {}

    def gather(chunk: dict[str, list]) -> None:
        for name, values in chunk.items():
            columns.setdefault(name, []).extend(values)

    predict_file(settings, _console(), each=gather)
    return columns


def write_predictions(settings: PredictSettings) -> None:
    """As `predict`, for a file of any size: memory grows with the different proteins of pairs, not with the pairs."""
    predict_file(settings, _console())


def screen(settings: ScreenSettings) -> Screen:
    """Score all pairs of a proteome, or of two sets of proteins, and write the likeliest; go on where it stopped."""
    return run_screen(settings, _console())


def embed(settings: EmbedSettings) -> Path:
    """Write the vectors of proteins, or of their residues, under a backbone or a trained bundle.

    Memory does not grow with the file; killed at any moment, the same call goes on.
    """
    return embed_file(settings, _console())


def report(settings: ReportSettings) -> Path:
    """Write the page of a finished run again, from its run.json and predictions.tsv; its path."""
    path = write_report(Path(settings.bundle), out=None if settings.out is None else Path(settings.out))
    _console().print(f"report written to {path}", highlight=False)
    return path


def doctor(settings: DoctorSettings) -> tuple[Check, ...]:
    """Check this machine, and a model on it: a new one, or that of a bundle; a line for each check."""
    return run_doctor(settings, _console())


def demo(settings: DemoSettings) -> dict[str, Any]:
    """Run the two flagship tasks on the shipped data; return (and write) the summary."""
    return run_demo(settings.out, _console())


def _console() -> Console:
    return Console(soft_wrap=True, markup=False, emoji=False)  # what is printed comes from files and names


def _read_labelled(model: PropertyModel, settings: EvaluateSettings, console: Console) -> Dataset:
    """Read examples as the model was trained to see them."""
    wanted = data_settings(model, settings)
    dataset = read_dataset(wanted, labelled=True, classes=model.target.classes, kind=model.target.kind)
    for note in dataset.notes:
        console.print(f"note: {note}", highlight=False)
    return dataset
