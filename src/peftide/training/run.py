"""One training run from settings to bundle."""

import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from peftide.config import TrainSettings, parse_layers
from peftide.data.files import data_digests
from peftide.data.findings import listed
from peftide.data.writers import check_names_free, write_table
from peftide.errors import UserError, unwritable
from peftide.evaluation.assessment import Assessment
from peftide.inference.caching import cached
from peftide.inference.predict import example_columns
from peftide.models.backbones import Backbone
from peftide.models.bundle import OWN_NAMES, add_to_run, save_bundle
from peftide.models.machine import Machine, choose_machine, describe, peak_memory_bytes
from peftide.records import SPLITS, Dataset
from peftide.report.run_report import write_report
from peftide.training.advice import what_would_fit
from peftide.training.build import hold_on_device, know_lower_vectors, standardize
from peftide.training.checkpoint import FOLDER as CHECKPOINTS
from peftide.training.checkpoint import Checkpoints, unfinished_run
from peftide.training.examples import Examples, read_examples, share_split
from peftide.training.loop import AfterEpoch
from peftide.training.memory import Execution, encoding_budget, memory_limit
from peftide.training.outcome import Outcome, headline, judge, score_held_out
from peftide.training.progress import TrainingProgress
from peftide.training.ranks import ALONE, Ranks, device_of, threads_of
from peftide.training.resident import cap_device, free_at_once, held_bytes, start_peak
from peftide.training.resume import backbone_difference, differences
from peftide.training.shares import embed_together
from peftide.training.state import Fit
from peftide.training.subject import Subject, check_backbone, count, gather_weights, make_subject


@dataclass(frozen=True)
class Run:
    """A finished training run.

    metrics: by split ("val", "test"), then by name; seconds: of training, embedding included; assessment: intervals,
    baselines, calibration and verdict; is_interrupted: whether Ctrl-C ended it, after an epoch or more.
    """

    folder: Path
    metrics: dict[str, dict[str, float]]
    trained_parameters: int
    seconds: float
    peak_memory_bytes: int
    assessment: Assessment
    is_interrupted: bool


def run_training(
    settings: TrainSettings, console: Console, examples: Examples | None = None, ranks: Ranks = ALONE
) -> Run:
    """Read, split (where no examples are handed in), build, train, evaluate on the held-out parts, write the bundle.

    Where several ranks train together this is the first one's part; for the others' see `assist_training`.
    """
    if settings.shard and not ranks.shards:
        raise UserError("--shard: one process has nobody to share with; start several, as torchrun does")
    _check_out(settings, console)
    if examples is None:
        check_backbone(settings)
        examples = read_examples(settings, console)
    dataset = share_split(settings, examples.dataset, ranks)
    machine = machine_of(settings, ranks)
    start_peak(machine.device)
    subject, folder = prepare(settings, dataset, machine, ranks=ranks), make_run_folder(settings.out, settings.backbone)
    digests, trained_from = data_digests(settings), subject.model.backbone.fingerprint

    def differences_from(kept: dict[str, Any]) -> list[str]:
        found = differences(kept["settings"], kept["sha256"], settings, digests)
        if "backbone" not in found:
            found |= backbone_difference(settings.backbone, kept["trained_from"], trained_from)
        return list(found.values())

    with unfinished_run(
        folder,
        {"settings": asdict(settings), "sha256": digests, "trained_from": trained_from},
        interval_seconds=60 * settings.checkpoint_minutes,
        restart=settings.restart,
        differences=differences_from,
    ) as checkpoints:
        console.print(_plan_line(subject, ranks), highlight=False)
        started = time.perf_counter()
        fit, vectors_PD = fit_subject(subject, console, checkpoints=checkpoints, ranks=ranks)
        assert vectors_PD is not None
        subject = gather_weights(subject, ranks)
        ranks.leave()
        seconds = time.perf_counter() - started
        peak = peak_memory_bytes(machine.device)
        outcome = score_held_out(subject.model, dataset, vectors_PD, seed=settings.seed)
        console.print(headline(outcome.metrics, subject.schedule.metric), highlight=False)
        document = _document(
            examples, machine, fit, outcome, settings=settings, digests=digests, seconds=seconds, peak=peak
        )
        document["trained_from"] = trained_from
        document["machine"] |= {"processes": ranks.count} if ranks.count > 1 else {}
        save_bundle(folder, outcome.model, document)  # before the baselines, which take their time
        write_table(folder / "split.tsv", example_columns(dataset) | {"split": _split_names(dataset)})
        if outcome.predictions:
            write_table(folder / "predictions.tsv", outcome.predictions)
        assessment = judge(subject, outcome, examples, console, is_interrupted=fit.is_interrupted)
        add_to_run(folder, {"assessment": assessment.to_json()})
        write_report(folder)
    console.print(f"bundle written to {folder}; report.html in it tells of it", highlight=False)
    return Run(folder, outcome.metrics, subject.model.num_trained, seconds, peak, assessment, fit.is_interrupted)


def assist_training(settings: TrainSettings, ranks: Ranks) -> None:
    """The part of a rank that is not the first in `run_training`: it reads and trains, says nothing, writes nothing."""
    dataset = share_split(settings, None, ranks)
    subject = prepare(settings, dataset, machine_of(settings, ranks), ranks=ranks)
    fit_subject(subject, Console(quiet=True), ranks=ranks)
    gather_weights(subject, ranks)
    ranks.leave()


def machine_of(settings: TrainSettings, ranks: Ranks) -> Machine:
    """The machine of the settings, of which each rank on it has a device, or a share of the cores, of its own."""
    return choose_machine(device_of(ranks, settings.device), settings.precision, threads_of(ranks, settings.threads))


def prepare(
    settings: TrainSettings,
    dataset: Dataset,
    machine: Machine,
    backbone: Backbone | None = None,
    ranks: Ranks = ALONE,
) -> Subject:
    """Choose how to run within the memory there is, or that the user allows, and make everything ready.

    backbone: ready to use, where it has been read already; it may be on the machine's device.
    """
    held = held_bytes(machine.device)
    if backbone is not None:  # its weights are counted among what training needs
        held = max(0, held - _bytes_on(machine.device, backbone))
    limit_bytes = memory_limit(settings.memory, machine.device, held_bytes=held, num_sharing=ranks.local_count)
    if settings.memory is not None:
        cap_device(machine.device, limit_bytes)
    num_shares = ranks.count if ranks.shards else 1
    execution = count(
        settings, dataset, machine, held_bytes=held, limit_bytes=limit_bytes, num_shares=num_shares
    ).execution
    if execution is None and ranks.shards:
        raise UserError(
            f"--memory {settings.memory} is too little even for a share of the weights: start more processes, or lower "
            "--max-residues"
        )
    if execution is None:
        raise UserError(what_would_fit(settings, dataset, machine, held_bytes=held, limit_bytes=limit_bytes))
    if execution.is_frugal:
        free_at_once(machine.device)
    if ranks.shards:  # all ranks have to make the same calls
        execution = Execution(**ranks.document_from_first(asdict(execution)))
    return make_subject(settings, dataset, machine, execution, backbone, num_shares=num_shares)


def _bytes_on(device: torch.device, backbone: Backbone) -> int:
    weights = [weight for weight in backbone.model.parameters() if weight.device.type == device.type]
    return sum(weight.numel() * weight.element_size() for weight in weights)


def make_run_folder(out: str, backbone_name: str) -> Path:
    """The folder to write into: made, or refused, before the hours of training."""
    folder, backbone = Path(out), Path(backbone_name)
    if backbone.is_dir() and backbone.resolve().is_relative_to(folder.resolve()):
        raise UserError(
            f"--out {folder}: backbone {backbone} lies in this folder and could be overwritten; choose another folder"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(f"--out {folder}", error) from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"--out {folder}: cannot write into this folder; choose another")
    return folder


def _check_out(settings: TrainSettings, console: Console) -> None:
    """Refuse a folder where the bundle would overwrite what is not a bundle; say so where it will replace one."""
    folder = Path(settings.out)
    check_names_free(folder, OWN_NAMES, settings.data, settings.sequences)
    if not folder.is_dir() or (folder / CHECKPOINTS).is_dir():
        return
    if (folder / "run.json").is_file():
        console.print(f"note: the bundle in {folder} will be replaced when this run is done", highlight=False)
    elif others := [name for name in OWN_NAMES if (folder / name).exists()]:
        raise UserError(
            f"--out {folder}: {listed(others)} in it would be overwritten, and without a run.json it is no bundle of "
            "peftide; choose another folder, or move that away"
        )


def _plan_line(subject: Subject, ranks: Ranks) -> str:
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
    if len(model.state_layers) > 1 or model.state_layers[0] != model.backbone.num_layers:
        what += f", states of layers {subject.encoder.layers_text}"
    how = f"{subject.execution.token_budget:,} tokens at once"
    if ranks.count > 1:
        how = f"the first of {ranks.count} processes, each with {how}"
    if ranks.shards:
        how += " and a share of the weights"
    if subject.execution.checkpoint_layers:
        how += ", layers checkpointed"
    return (
        f"{what}: {model.num_trained:,} trained parameters, {machine.device} in {machine.precision}, {how}, "
        f"learning rate {schedule.learning_rate:g}, selected by validation {schedule.metric}"
    )


def fit_subject(
    subject: Subject,
    console: Console,
    *,
    after_epoch: AfterEpoch = lambda epoch, value: None,
    embeds: bool = True,
    checkpoints: Checkpoints | None = None,
    ranks: Ranks = ALONE,
) -> tuple[Fit, np.ndarray | None]:
    """Train, and return the fit; with `embeds`, also the vectors of all proteins under the trained model."""
    settings, dataset, model, encoder = subject.settings, subject.dataset, subject.model, subject.encoder
    pieces, execution, schedule = subject.pieces, subject.execution, subject.schedule
    budget = encoding_budget(execution.token_budget, encoder.machine.device)
    is_frozen = settings.method == "head"
    if not is_frozen and encoder.lower_layers:
        know_lower_vectors(encoder, pieces, settings, console, token_budget=budget, ranks=ranks)
    vectors_PD = None
    with cached(encoder, pieces, settings, console, kind=model.pooling if is_frozen else "states") as store:
        if is_frozen:
            vectors_PD = embed_together(encoder, pieces, ranks, token_budget=budget, store=store, console=console)
            model.head.standardize(torch.from_numpy(vectors_PD[np.unique(dataset.part("train").members_NK)]))
        else:
            encoder.states = store
            encoder.device_states = hold_on_device(encoder, pieces) if execution.holds_states else None
            standardize(
                model, encoder, dataset, pieces,
                token_budget=budget, seed=settings.seed, ranks=ranks, console=console,
            )  # fmt: skip
        trainer = subject.trainer(dataset, vectors_PD, ranks)
        with TrainingProgress(
            console, num_steps=trainer.num_steps, metric=schedule.metric, device=encoder.machine.device
        ) as show:
            fit = trainer.fit(show, after_epoch, checkpoints)
        console.print(f"stopped: {fit.ended}; best epoch {fit.best_epoch}", highlight=False)
        if embeds and vectors_PD is None:
            budget = min(budget, trainer.token_budget)
            vectors_PD = embed_together(encoder, pieces, ranks, token_budget=budget, console=console)
    return fit, vectors_PD


def _split_names(dataset: Dataset) -> list[str]:
    assert dataset.split_N is not None
    return [str(name) for name in dataset.split_N]


def _document(
    examples: Examples,
    machine: Machine,
    fit: Fit,
    outcome: Outcome,
    *,
    settings: TrainSettings,
    digests: dict[str, str],
    seconds: float,
    peak: int,
) -> dict[str, Any]:
    dataset = examples.dataset
    return {
        "settings": asdict(settings),
        "data": {
            "sha256": digests,
            "examples": {split: len(dataset.part(split)) for split in SPLITS},
            "proteins": len(dataset.proteins),
            "notes": list(dataset.notes),
        },
        "audit": None if examples.audit is None else asdict(examples.audit),
        "training": asdict(fit) | {"seconds": seconds, "peak_memory_bytes": peak},
        "metrics": outcome.metrics,
        "machine": describe(machine),
    }
