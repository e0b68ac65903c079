"""One training run from settings to bundle."""

import hashlib
import time
from dataclasses import asdict, dataclass
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
from peftide.evaluation.metrics import main_metric, measure
from peftide.inference.embed import embed_proteins
from peftide.inference.encoder import Encoder
from peftide.inference.predict import prediction_columns, score_examples
from peftide.models.adapters import parse_layers
from peftide.models.backbones import load_backbone
from peftide.models.bundle import save_bundle
from peftide.models.machine import Machine, choose_machine, describe, peak_memory_bytes
from peftide.models.property_model import PropertyModel
from peftide.records import SPLITS, Dataset
from peftide.training.build import build_model, hold_on_device, open_store, standardize
from peftide.training.loop import Fit, Schedule, Trainer
from peftide.training.memory import choose_token_budget
from peftide.training.optimizer import DEFAULT_LEARNING_RATES
from peftide.training.progress import TrainingProgress


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
    frozen_dtype = torch.float32 if settings.method == "full" else machine.dtype
    backbone = load_backbone(settings.backbone, dtype=frozen_dtype)
    model = build_model(settings, dataset, backbone)
    encoder = Encoder(
        backbone,
        model.model,
        machine,
        pooling=model.pooling,
        checkpoint_layers=settings.checkpoint_layers,
        compile_layers=settings.compile,
    )
    model.head.to(machine.device)
    schedule = _schedule(settings, dataset)
    console.print(_plan_line(settings, model, machine, schedule), highlight=False)
    started = time.perf_counter()
    fit, vectors_PD = _train(settings, dataset, model, encoder, schedule, console)
    seconds = time.perf_counter() - started
    metrics, predictions = _evaluate_parts(model, dataset, vectors_PD)
    peak = peak_memory_bytes(machine.device)
    document = _document(settings, dataset, machine, fit, metrics, seconds=seconds, peak=peak)
    folder = Path(settings.out)
    save_bundle(folder, model, document)
    if predictions:
        write_table(str(folder / "predictions.tsv"), predictions)
    console.print(f"bundle written to {folder}", highlight=False)
    return Run(folder, metrics, model.num_trained, seconds, peak)


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
    counts = {split: len(dataset.part(split)) for split in SPLITS}
    if not counts["train"] or not counts["val"]:
        raise UserError(
            f"{settings.data}: {counts['train']} training and {counts['val']} validation examples; both are needed "
            "(mark rows with train and val in the split column, or leave it out for a seeded split)"
        )
    return dataset


def _schedule(settings: TrainSettings, dataset: Dataset) -> Schedule:
    return Schedule(
        epochs=settings.epochs,
        batch_examples=settings.batch_examples,
        learning_rate=settings.learning_rate or DEFAULT_LEARNING_RATES[settings.method],
        weight_decay=settings.weight_decay,
        warmup_fraction=settings.warmup_fraction,
        clip_norm=settings.clip_norm,
        patience=settings.patience,
        metric=main_metric(dataset.kind) if settings.metric == "auto" else settings.metric,
        seed=settings.seed,
    )


def _plan_line(settings: TrainSettings, model: PropertyModel, machine: Machine, schedule: Schedule) -> str:
    """What was chosen, the "auto" values included."""
    what = f"{settings.method} on {model.backbone.name}"
    if settings.method == "lora":
        layers = parse_layers(settings.lora_layers, model.backbone.num_layers)
        what += (
            f" (r = {settings.lora_rank}, alpha = {settings.lora_alpha:g}, {' + '.join(settings.lora_matrices)}, "
            f"layers {layers[0] + 1}-{layers[-1] + 1} of {model.backbone.num_layers})"
        )
    return (
        f"{what}: {model.num_trained:,} trained parameters, {machine.device} in {machine.precision}, "
        f"learning rate {schedule.learning_rate:g}, selected by validation {schedule.metric}"
    )


def _train(
    settings: TrainSettings,
    dataset: Dataset,
    model: PropertyModel,
    encoder: Encoder,
    schedule: Schedule,
    console: Console,
) -> tuple[Fit, np.ndarray]:
    """Train, and return the fit with the vectors of all proteins under the trained model."""
    pieces = model.pieces(dataset.proteins)
    config = model.backbone.model.config
    trained_layers = model.backbone.num_layers - encoder.num_frozen_layers
    token_budget = settings.token_budget or choose_token_budget(
        encoder.machine, width=config.hidden_size, inner_width=config.intermediate_size, num_layers=trained_layers
    )
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
            vectors_PD = embed_proteins(encoder, pieces, token_budget=token_budget, store=store)
            model.head.standardize(torch.from_numpy(vectors_PD[np.unique(dataset.part("train").members_NK)]))
        else:
            encoder.states = store
            encoder.device_states = hold_on_device(encoder, pieces)
            standardize(model, encoder, dataset, pieces, settings.seed)
        trainer = Trainer(model, encoder, dataset, pieces, schedule, token_budget=token_budget, vectors_PD=vectors_PD)
        with TrainingProgress(
            console, num_steps=trainer.num_steps, metric=schedule.metric, device=encoder.machine.device
        ) as show:
            fit = trainer.fit(show)
        console.print(f"stopped: {fit.ended}; best epoch {fit.best_epoch}", highlight=False)
        if vectors_PD is None:
            vectors_PD = embed_proteins(encoder, pieces, token_budget=trainer.token_budget)
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
