"""The demonstration: both flagship tasks on shipped data, two methods beside a baseline that knows no model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from peftide.config import DataSettings, MachineSettings, Method, TrainSettings
from peftide.data.datasets import read_dataset
from peftide.data.writers import make_folder, write_json, write_table
from peftide.inference.embed import embed_proteins
from peftide.inference.predict import prediction_columns, score_examples
from peftide.inference.score import load_for_inference
from peftide.training.run import run_training

DEMO_DATA = Path(__file__).parent.parent / "data" / "demo"
METHODS: tuple[Method, ...] = ("head", "lora")


@dataclass(frozen=True)
class DemoTask:
    """One of the two tasks: its name, what is asked in words, where its data are, and how each method is trained."""

    name: str
    question: str
    data: DataSettings
    training: dict[Method, dict[str, Any]]


HEAD = {"epochs": 20, "patience": 5}
TASKS = (
    DemoTask(
        "ppi",
        "Do two yeast proteins belong to the same complex? No protein, complex or close homolog is in two splits.",
        DataSettings(
            data=str(DEMO_DATA / "ppi_pairs.tsv"), sequences=str(DEMO_DATA / "ppi_proteins.fasta.gz"), task="pair"
        ),
        {"head": HEAD, "lora": {"epochs": 1, "baselines": "quick"}},
    ),
    DemoTask(
        "oligomer",
        "Does a human protein assemble with copies of itself, or as a subunit of a complex of different proteins?",
        DataSettings(data=str(DEMO_DATA / "oligomer.tsv.gz"), task="protein", target="multiclass"),
        {"head": HEAD, "lora": {"epochs": 2, "batch_examples": 32, "baselines": "quick"}},
    ),
)


def run_demo(out: str, console: Console) -> dict[str, Any]:
    """Train, compare, predict; write the bundles, the predictions and summary.json under `out`; return the summary."""
    folder = make_folder(out)
    summary: dict[str, Any] = {"tasks": {}}
    for task in TASKS:
        console.rule(Text(task.name, style="bold"))
        console.print(task.question)
        summary["tasks"][task.name] = _run_task(task, folder / task.name, console)
    _predict_again(folder, console)
    console.print(_summary_table(summary))
    write_json(folder / "summary.json", summary)
    console.print(f"bundles, predictions and summary.json are in {folder}")
    return summary


def _run_task(task: DemoTask, folder: Path, console: Console) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for method in METHODS:
        console.print(f"\n{task.name} / {method}", style="bold")
        data = {name: getattr(task.data, name) for name in ("data", "sequences", "task", "target")}
        run = run_training(
            TrainSettings(**data, **task.training[method], method=method, out=str(folder / method)), console
        )
        if run.is_interrupted:
            raise KeyboardInterrupt
        results[method] = {
            "test": run.metrics["test"],
            "trained_parameters": run.trained_parameters,
            "seconds": run.seconds,
            "peak_memory_bytes": run.peak_memory_bytes,
        }
        known = run.assessment.baselines["composition"]
        results["composition"] = {"test": known.metrics["test"], "seconds": known.seconds}
    return dict(sorted(results.items()))


def _predict_again(folder: Path, console: Console) -> None:
    """Use a bundle as a user would: load it from its folder and score pairs of the test part."""
    model, encoder, token_budget = load_for_inference(str(folder / "ppi" / "lora"), MachineSettings())
    pairs = read_dataset(TASKS[0].data).part("test")
    rows, members_NK = np.unique(pairs.members_NK, return_inverse=True)
    pieces = model.pieces(pairs.proteins)
    vectors_PD = embed_proteins(encoder, [pieces[row] for row in rows], token_budget=token_budget)
    scores = score_examples(model, vectors_PD, members_NK.reshape(pairs.members_NK.shape))
    out = folder / "ppi" / "predictions_from_bundle.tsv"
    write_table(out, prediction_columns(pairs, scores, model.target))
    console.print(f"\n{len(pairs)} test pairs scored again from the bundle {folder / 'ppi' / 'lora'}: {out}")


def _summary_table(summary: dict[str, Any]) -> Table:
    table = Table(
        title="test set: no protein and no close homolog of it was in training",
        caption="of the oligomers the mean over the classes",
    )
    for heading in ("task", "method", "AUPR", "AUROC", "trained parameters", "seconds", "peak GiB"):
        table.add_column(
            heading, justify="left" if heading in ("task", "method") else "right", no_wrap=heading == "method"
        )
    for task, results in summary["tasks"].items():
        for method, result in results.items():
            test = result["test"]
            memory = f"{result['peak_memory_bytes'] / 2**30:.2f}" if "peak_memory_bytes" in result else ""
            parameters = f"{result['trained_parameters']:,}" if "trained_parameters" in result else ""
            table.add_row(
                *(task, method, f"{test.get('aupr', test.get('macro_aupr')):.3f}"),
                f"{test.get('auroc', test.get('macro_auroc')):.3f}",
                *(parameters, f"{result['seconds']:.1f}", memory),
            )
    return table
