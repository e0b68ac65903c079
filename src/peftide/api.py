"""The table of contents of the product: what every command does, in a few lines each."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from peftide.config import (
    DataSettings,
    DemoSettings,
    EmbedSettings,
    EvaluateSettings,
    PlanSettings,
    PredictSettings,
    TrainSettings,
)
from peftide.data.datasets import read_dataset
from peftide.data.proteins import read_proteins
from peftide.data.writers import write_table
from peftide.evaluation.metrics import measure, measure_classes
from peftide.inference.embed import embed_proteins, embed_residues
from peftide.inference.encoder import Encoder
from peftide.inference.encoding_progress import encoding_progress
from peftide.inference.predict import prediction_columns
from peftide.inference.score import inference_budget, load_for_inference, score_dataset
from peftide.inference.write_embeddings import check_embedding_path, write_embeddings
from peftide.models.backbones import load_backbone
from peftide.models.bundle import was_trained_on
from peftide.models.machine import choose_machine
from peftide.models.property_model import PropertyModel
from peftide.models.tokens import cut_proteins
from peftide.records import Dataset
from peftide.training.demo import run_demo
from peftide.training.plan import Plan, run_plan
from peftide.training.run import Run, run_training


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a model on labelled examples, and the table of its predictions."""

    metrics: dict[str, float]
    classes: dict[str, dict[str, float]]
    predictions: dict[str, list]


def train(settings: TrainSettings) -> Run:
    """Adapt a backbone to labelled examples and write the bundle.

    Raises UserError for whatever the user can mend: data, settings, a backbone out of reach, memory.
    """
    return run_training(settings, _console())


def plan(settings: PlanSettings) -> Plan:
    """Predict memory, time and cache of training, for each backbone and method, from a short probe on this machine."""
    return run_plan(settings, _console())


def evaluate(settings: EvaluateSettings) -> Evaluation:
    """Score labelled examples with a bundle; print the metrics and, with `out`, write them and the predictions."""
    console = _console()
    model, encoder, token_budget = load_for_inference(settings.bundle, settings)
    dataset = _read_for(model, settings, console, labelled=True)
    if settings.split != "all" and dataset.split_N is not None:
        dataset = dataset.part(settings.split)
    elif was_trained_on(Path(settings.bundle), Path(settings.data)):
        console.print(
            f"warning: {settings.data} is the table that this bundle was trained on, and every row of it is scored; "
            f"{Path(settings.bundle) / 'split.tsv'} says which rows are the test part",
            style="yellow",
        )
    scores = score_dataset(model, encoder, dataset, token_budget=token_budget, console=console)
    assert dataset.targets is not None
    metrics = measure(dataset.kind, dataset.targets, scores, classes=dataset.classes)
    classes = {}
    if dataset.kind in ("multiclass", "multilabel"):
        classes = measure_classes(dataset.kind, dataset.targets, scores, classes=dataset.classes)
    result = Evaluation(metrics, classes, prediction_columns(dataset, scores, model.target))
    for name, value in metrics.items():
        console.print(f"{name:26s} {value:.4f}" if isinstance(value, float) else f"{name:26s} {value}", highlight=False)
    if settings.out is not None:
        folder = Path(settings.out)
        folder.mkdir(parents=True, exist_ok=True)
        write_table(str(folder / "predictions.tsv"), result.predictions)
        _write_json(folder / "metrics.json", {"metrics": metrics, "classes": classes, "settings": asdict(settings)})
    return result


def predict(settings: PredictSettings) -> dict[str, list]:
    """Score examples with a bundle, in the order of the input; write and return the table's columns."""
    console = _console()
    model, encoder, token_budget = load_for_inference(settings.bundle, settings)
    dataset = _read_for(model, settings, console, labelled=False)
    scores = score_dataset(model, encoder, dataset, token_budget=token_budget, console=console)
    columns = prediction_columns(dataset, scores, model.target)
    write_table(settings.out, columns)
    console.print(f"{len(dataset):,} predictions written to {settings.out}", highlight=False)
    return columns


def embed(settings: EmbedSettings) -> Path:
    """Write the vectors of proteins, or of their residues, under a backbone or a trained bundle."""
    console = _console()
    proteins, notes = read_proteins(
        settings.data, column_id=settings.column_id, column_sequence=settings.column_sequence
    )
    for note in notes:
        console.print(f"note: {note}", highlight=False)
    check_embedding_path(settings.out, proteins.ids)
    machine = choose_machine(settings.device, settings.precision, settings.threads)
    if settings.bundle is not None:
        model, encoder, token_budget = load_for_inference(settings.bundle, settings)
        pieces = model.pieces(proteins)
    else:
        backbone = load_backbone(settings.backbone, dtype=machine.dtype)
        encoder = Encoder(backbone, backbone.model, machine, pooling=settings.pooling, compile_layers=settings.compile)
        token_budget = inference_budget(settings, machine)
        pieces = cut_proteins(
            proteins, backbone.vocabulary, max_residues=settings.max_residues, long_proteins=settings.long_proteins
        )
    attributes = {"backbone": encoder.backbone.name, "bundle": settings.bundle or "", "pooling": encoder.pooling}
    with encoding_progress(console, sum(protein.num_residues for protein in pieces)) as advance:

        def residues() -> Iterator[tuple[str, np.ndarray]]:
            for name, protein in zip(proteins.ids, pieces, strict=True):
                yield name, embed_residues(encoder, protein)
                advance(protein.num_residues)

        if settings.per_residue:
            write_embeddings(settings.out, residues(), attributes)
        else:
            vectors_PD = embed_proteins(encoder, pieces, token_budget=token_budget, advance=advance)
            write_embeddings(settings.out, zip(proteins.ids, vectors_PD, strict=True), attributes)
    console.print(f"{len(proteins):,} embeddings written to {settings.out}", highlight=False)
    return Path(settings.out)


def demo(settings: DemoSettings) -> dict[str, Any]:
    """Run the two flagship tasks on the shipped data; return (and write) the summary."""
    return run_demo(settings.out, _console())


def _console() -> Console:
    return Console(soft_wrap=True)


def _read_for(
    model: PropertyModel, settings: EvaluateSettings | PredictSettings, console: Console, *, labelled: bool
) -> Dataset:
    """Read examples as the model was trained to see them."""
    names = set(DataSettings.__dataclass_fields__)
    wanted = DataSettings(**{name: value for name, value in asdict(settings).items() if name in names})
    wanted = replace(
        wanted,
        task=model.task,
        target=model.target.kind,
        max_residues=model.max_residues,
        long_proteins=model.long_proteins,
    )
    dataset = read_dataset(wanted, labelled=labelled, classes=model.target.classes, kind=model.target.kind)
    for note in dataset.notes:
        console.print(f"note: {note}", highlight=False)
    return dataset


def _write_json(path: Path, document: dict[str, Any]) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    fresh.write_text(json.dumps(document, indent=2), "utf-8")
    os.replace(fresh, path)
