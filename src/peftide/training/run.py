"""One training run from settings to bundle."""

import hashlib
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from peftide.config import TrainSettings
from peftide.data.datasets import read_dataset
from peftide.data.splits import random_split
from peftide.data.writers import write_table
from peftide.errors import UserError
from peftide.evaluation.metrics import measure
from peftide.inference.embed import embed_proteins
from peftide.inference.predict import example_columns, prediction_columns, score_examples
from peftide.models.adapters import parse_layers
from peftide.models.bundle import save_bundle
from peftide.models.machine import Machine, choose_machine, describe, peak_memory_bytes
from peftide.models.property_model import PropertyModel
from peftide.records import SPLITS, Dataset
from peftide.training.advice import what_would_fit
from peftide.training.build import hold_on_device, open_store, standardize
from peftide.training.loop import Fit
from peftide.training.memory import encoding_budget, memory_limit
from peftide.training.progress import TrainingProgress
from peftide.training.resident import cap_device, free_at_once, held_bytes
from peftide.training.subject import Subject, count, make_subject


@dataclass(frozen=True)
class Run:
    """A finished training run.

    metrics: by split ("val", "test"), then by name; seconds: of training, embedding included.
    """

    folder: Path
    metrics: dict[str, dict[str, float]]
    trained_parameters: int
    seconds: float
    peak_memory_bytes: int


def run_training(settings: TrainSettings, console: Console) -> Run:
    """Read, split, build, train, evaluate on the held-out parts, write the bundle."""
    dataset = read_split_dataset(settings, console)
    machine = choose_machine(settings.device, settings.precision, settings.threads)
    if machine.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(machine.device)
    subject, folder = _prepare(settings, dataset, machine), _make_folder(settings)
    model = subject.model
    console.print(_plan_line(subject), highlight=False)
    started = time.perf_counter()
    fit, vectors_PD = _train(subject, console)
    seconds = time.perf_counter() - started
    metrics, predictions = _evaluate_parts(model, dataset, vectors_PD)
    peak = peak_memory_bytes(machine.device)
    document = _document(settings, dataset, machine, fit, metrics, seconds=seconds, peak=peak)
    save_bundle(folder, model, document)
    write_table(folder / "split.tsv", example_columns(dataset) | {"split": _split_names(dataset)})
    if predictions:
        write_table(folder / "predictions.tsv", predictions)
    console.print(_metrics_line(metrics, subject.schedule.metric), highlight=False)
    console.print(f"bundle written to {folder}", highlight=False)
    return Run(folder, metrics, model.num_trained, seconds, peak)


def _prepare(settings: TrainSettings, dataset: Dataset, machine: Machine) -> Subject:
    """Choose how to run within the memory there is, or that the user allows, and make everything ready."""
    held = held_bytes(machine.device)
    limit_bytes = memory_limit(settings.memory, machine.device, held_bytes=held)
    if settings.memory is not None:
        cap_device(machine.device, limit_bytes)
    execution = count(settings, dataset, machine, held_bytes=held, limit_bytes=limit_bytes).execution
    if execution is None:
        raise UserError(what_would_fit(settings, dataset, machine, held_bytes=held, limit_bytes=limit_bytes))
    if execution.is_frugal:
        free_at_once(machine.device)
    return make_subject(settings, dataset, machine, execution)


def _make_folder(settings: TrainSettings) -> Path:
    """The folder of the bundle: made, or refused, before the hours of training."""
    folder, backbone = Path(settings.out), Path(settings.backbone)
    if backbone.is_dir() and backbone.resolve().is_relative_to(folder.resolve()):
        raise UserError(
            f"--out {folder}: backbone {backbone} lies in this folder and could be overwritten; choose another folder"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {folder}: cannot make this folder ({error.strerror}); choose another") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"--out {folder}: cannot write into this folder; choose another")
    return folder


def read_split_dataset(settings: TrainSettings, console: Console) -> Dataset:
    """The examples with a split, everything that was cleaned or assumed said aloud."""
    dataset = read_dataset(settings)
    for note in dataset.notes:
        console.print(f"note: {note}", highlight=False)
    if dataset.split_N is None:
        generator = np.random.default_rng(settings.seed)
        dataset, notes = random_split(
            dataset, val_fraction=settings.val_fraction, test_fraction=settings.test_fraction, generator=generator
        )
        for note in notes:
            console.print(f"note: {note}", highlight=False)
        dataset = replace(dataset, notes=(*dataset.notes, *notes))
    counts = {split: len(dataset.part(split)) for split in SPLITS}
    if not counts["train"] or not counts["val"]:
        raise UserError(
            f"{settings.data}: {counts['train']} training and {counts['val']} validation examples; both are needed "
            "(mark rows with train and val in the split column, or leave it out for a seeded split)"
        )
    return dataset


def _plan_line(subject: Subject) -> str:
    """What was chosen, the "auto" values included."""
    settings, model, schedule = subject.settings, subject.model, subject.schedule
    machine = subject.encoder.machine
    what = f"{settings.method} on {model.backbone.name}"
    if settings.method == "lora":
        layers = parse_layers(settings.lora_layers, model.backbone.num_layers)
        what += (
            f" (r = {settings.lora_rank}, alpha = {settings.lora_alpha:g}, {' + '.join(settings.lora_matrices)}, "
            f"layers {layers[0] + 1}-{layers[-1] + 1} of {model.backbone.num_layers})"
        )
    how = f"{subject.execution.token_budget:,} tokens at once"
    if subject.execution.checkpoint_layers:
        how += ", layers checkpointed"
    return (
        f"{what}: {model.num_trained:,} trained parameters, {machine.device} in {machine.precision}, {how}, "
        f"learning rate {schedule.learning_rate:g}, selected by validation {schedule.metric}"
    )


def _train(subject: Subject, console: Console) -> tuple[Fit, np.ndarray]:
    """Train, and return the fit with the vectors of all proteins under the trained model."""
    settings, dataset, model, encoder = subject.settings, subject.dataset, subject.model, subject.encoder
    pieces, execution, schedule = subject.pieces, subject.execution, subject.schedule
    budget = encoding_budget(execution.token_budget, encoder.machine.device)
    is_frozen = settings.method == "head"
    store, note = open_store(
        encoder,
        pieces,
        kind=model.pooling if is_frozen else "states",
        cache_dir=settings.cache_dir,
        limit_bytes=int(settings.cache_limit_gb * 1e9),
    )
    console.print(note, highlight=False)
    vectors_PD = None
    try:
        if is_frozen:
            vectors_PD = embed_proteins(encoder, pieces, token_budget=budget, store=store)
            model.head.standardize(torch.from_numpy(vectors_PD[np.unique(dataset.part("train").members_NK)]))
        else:
            encoder.states = store
            encoder.device_states = hold_on_device(encoder, pieces) if execution.holds_states else None
            standardize(model, encoder, dataset, pieces, token_budget=budget, seed=settings.seed)
        trainer = subject.trainer(dataset, vectors_PD)
        with TrainingProgress(
            console, num_steps=trainer.num_steps, metric=schedule.metric, device=encoder.machine.device
        ) as show:
            fit = trainer.fit(show)
        console.print(f"stopped: {fit.ended}; best epoch {fit.best_epoch}", highlight=False)
        if vectors_PD is None:
            vectors_PD = embed_proteins(encoder, pieces, token_budget=min(budget, trainer.token_budget))
    finally:
        if store is not None:
            store.close()
    return fit, vectors_PD


def _evaluate_parts(
    model: PropertyModel, dataset: Dataset, vectors_PD: np.ndarray
) -> tuple[dict[str, dict[str, float]], dict[str, Any]]:
    """Metrics of validation and test, and the predictions of both as columns."""
    metrics, columns = {}, {}
    for split in ("val", "test"):
        part = dataset.part(split)
        if len(part) == 0:
            continue
        scores = score_examples(model, vectors_PD, part.members_NK)
        assert part.targets is not None
        metrics[split] = measure(part.kind, part.targets, scores, classes=part.classes)
        fresh = {"split": [split] * len(part)} | prediction_columns(part, scores, model.target)
        columns = {name: [*columns.get(name, []), *values] for name, values in fresh.items()}
    return metrics, columns


def _split_names(dataset: Dataset) -> list[str]:
    assert dataset.split_N is not None
    return [str(name) for name in dataset.split_N]


def _metrics_line(metrics: dict[str, dict[str, float]], chosen: str) -> str:
    """The main metrics of each held-out part, the one that the model was chosen by first."""
    shown = (chosen, "auroc", "macro_auroc", "accuracy", "macro_f1", "mcc", "pearson", "rmse")
    lines = []
    for split, values in metrics.items():
        found = [f"{name} {values[name]:.4f}" for name in dict.fromkeys(shown) if name in values]
        lines.append(f"{'validation' if split == 'val' else split}: {', '.join(found)}")
    return "\n".join(lines)


def _document(
    settings: TrainSettings,
    dataset: Dataset,
    machine: Machine,
    fit: Fit,
    metrics: dict[str, dict[str, float]],
    *,
    seconds: float,
    peak: int,
) -> dict[str, Any]:
    files = [settings.data] + ([settings.sequences] if settings.sequences else [])
    return {
        "settings": asdict(settings),
        "data": {
            "sha256": {name: hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in files},
            "examples": {split: len(dataset.part(split)) for split in SPLITS},
            "proteins": len(dataset.proteins),
            "notes": list(dataset.notes),
        },
        "training": asdict(fit) | {"seconds": seconds, "peak_memory_bytes": peak},
        "metrics": metrics,
        "machine": describe(machine),
    }
