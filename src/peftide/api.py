"""The table of contents of the product: what every command does, in a few lines each."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

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
from peftide.data.files import data_digests
from peftide.data.lenient import read_leniently
from peftide.data.split_report import SplitReport, render_split
from peftide.data.split_table import split_table
from peftide.data.writers import (
    check_not_input,
    check_place,
    check_table_path,
    write_json,
    write_table,
)
from peftide.evaluation.compared import MethodComparison
from peftide.evaluation.robustness import SweepResult
from peftide.inference.embed_file import embed_file
from peftide.inference.evaluate import Evaluation, run_evaluation
from peftide.inference.predict_together import predict_by_bundles
from peftide.inference.screen import Screen, run_screen
from peftide.report.run_report import write_report
from peftide.training.compare import run_compare
from peftide.training.demo import run_demo
from peftide.training.doctor import Check, run_doctor
from peftide.training.plan import Plan, run_plan
from peftide.training.ranks import joined
from peftide.training.run import Run, assist_training, run_training
from peftide.training.sweep import run_sweep


def split(settings: SplitSettings) -> SplitReport:
    """Write the table with a split in which similar proteins stay together, and a report of it beside the table.

    Raises UserError for whatever the user can mend: data, settings, classes too small to be in every part.
    """
    console, out = _console(), Path(settings.out)
    beside = (out.with_suffix("") if out.suffix == ".gz" else out).with_suffix(".report.json")
    check_table_path(out)
    check_place(beside)
    for path in (out, beside):
        check_not_input(path, settings.data, settings.sequences)
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
        check_not_input(settings.json, settings.data, settings.sequences)
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
    """Score labelled examples with a bundle, or with all bundles of a folder together; print the metrics and, with
    `out`, write them and the predictions.
    """
    return run_evaluation(settings, _console())


def predict(settings: PredictSettings) -> dict[str, list]:
    """Score examples with a bundle, or with all bundles of a folder together; write and return the table's columns, in
    the order of the input.

    Killed at any moment, the same call goes on. What is returned takes memory; `write_predictions` returns nothing.
    """
    columns: dict[str, list] = {}

    def gather(chunk: dict[str, list]) -> None:
        for name, values in chunk.items():
            columns.setdefault(name, []).extend(values)

    predict_by_bundles(settings, _console(), each=gather)
    return columns


def write_predictions(settings: PredictSettings) -> None:
    """As `predict`, for a file of any size: memory grows with the different proteins of pairs, not with the pairs."""
    predict_by_bundles(settings, _console())


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
