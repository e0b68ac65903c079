"""One backbone and method, counted before its weights are loaded, then ready to run."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from peftide.config import Method, TrainSettings
from peftide.errors import UserError
from peftide.evaluation.metrics import METRIC_NAMES, main_metric
from peftide.inference.encoder import Encoder, encoder_of
from peftide.models.adapters import base_model
from peftide.models.backbones import Backbone, load_backbone, load_skeleton
from peftide.models.machine import Machine
from peftide.models.property_model import PropertyModel, train_all_weights
from peftide.models.sharded import whole_backbone
from peftide.models.tokens import Pieces
from peftide.records import Dataset
from peftide.training.build import build_model, choose_state_layers
from peftide.training.loop import Trainer
from peftide.training.memory import Execution, Footprint, choose_execution, footprint, shared_out
from peftide.training.optimizer import DEFAULT_LEARNING_RATES
from peftide.training.ranks import ALONE, Ranks
from peftide.training.schedule import Schedule


@dataclass(frozen=True)
class Count:
    """What is known without the weights.

    need: of memory; tokens: of each protein; execution: how to run within the limit, None where nothing does.
    """

    need: Footprint
    tokens: tuple[int, ...]
    trained_parameters: int
    execution: Execution | None


@dataclass(frozen=True)
class Subject:
    """A model on its device, its data and how to run it."""

    settings: TrainSettings
    dataset: Dataset
    model: PropertyModel
    encoder: Encoder
    pieces: list[Pieces]
    schedule: Schedule
    execution: Execution

    def trainer(self, dataset: Dataset, vectors_PD: np.ndarray | None, ranks: Ranks = ALONE) -> Trainer:
        """A trainer of the model on these examples; for `vectors_PD` see there."""
        return Trainer(
            self.model,
            self.encoder,
            dataset,
            self.pieces,
            self.schedule,
            token_budget=self.execution.token_budget,
            vectors_PD=vectors_PD,
            ranks=ranks,
        )


def check_backbone(settings: TrainSettings) -> None:
    """Raise UserError for a backbone out of reach and for layers it does not have, before data are read for minutes."""
    choose_state_layers(settings, load_skeleton(settings.backbone).num_layers)


def backbone_problem(settings: TrainSettings) -> str | None:
    """What `check_backbone` says against the settings, None where it agrees."""
    try:
        check_backbone(settings)
    except UserError as error:
        return str(error)
    return None


def count(
    settings: TrainSettings,
    dataset: Dataset,
    machine: Machine,
    *,
    held_bytes: int,
    limit_bytes: int,
    num_shares: int = 1,
) -> Count:
    """Count what training takes and choose how to run it; held_bytes: what the process holds before it begins.

    num_shares: processes among which the weights are shared out.
    """
    model = build_model(settings, dataset, load_skeleton(settings.backbone))
    need = footprint(model, machine)
    if num_shares > 1:
        need = shared_out(need, num_shares, num_layers=model.backbone.num_layers)
    tokens = tuple(protein.num_tokens for protein in model.pieces(dataset.proteins))
    execution = choose_execution(
        need,
        machine,
        tokens,
        held_bytes=held_bytes,
        limit_bytes=limit_bytes,
        checkpoint_layers=settings.checkpoint_layers,
        token_budget=settings.token_budget,
        must_fit=settings.memory is not None,
    )
    return Count(need, tokens, model.num_trained, execution)


def make_subject(
    settings: TrainSettings,
    dataset: Dataset,
    machine: Machine,
    execution: Execution,
    backbone: Backbone | None = None,
    *,
    num_shares: int = 1,
) -> Subject:
    """Load the backbone (where none is handed in), put adapters and head on it, and place it on its device.

    num_shares: processes among which its weights are shared out.
    """
    schedule = schedule_of(settings, dataset)
    if backbone is None:
        backbone = load_backbone(settings.backbone, dtype=backbone_dtype(settings.method, machine))
    model = build_model(settings, dataset, backbone)
    encoder = encoder_of(
        model,
        machine,
        checkpoint_layers=execution.checkpoint_layers,
        compile_layers=settings.compile,
        num_shares=num_shares,
    )
    model.head.to(machine.device)
    return Subject(settings, dataset, model, encoder, model.pieces(dataset.proteins), schedule, execution)


def gather_weights(subject: Subject, ranks: Ranks) -> Subject:
    """The subject with all weights on the first rank, where they were shared out; on the others it stays as it is."""
    if not ranks.shards:
        return subject
    model = whole_backbone(base_model(subject.model.model), is_wanted=ranks.is_first)
    if model is None:
        return subject
    train_all_weights(model.requires_grad_(False))
    backbone = replace(subject.model.backbone, model=model)
    return replace(subject, model=replace(subject.model, backbone=backbone, model=model))


def backbone_dtype(method: Method, machine: Machine) -> torch.dtype:
    """The arithmetic that a backbone's weights are loaded in; weights that are trained are float32."""
    return torch.float32 if method == "full" else machine.dtype


def schedule_of(settings: TrainSettings, dataset: Dataset) -> Schedule:
    """The schedule that the settings ask for; UserError for a metric that the targets do not have."""
    metric = main_metric(dataset.kind) if settings.metric == "auto" else settings.metric
    if metric not in METRIC_NAMES[dataset.kind]:
        raise UserError(
            f"--metric {metric}: not a metric of {dataset.kind} targets; choose one of "
            f"{', '.join(METRIC_NAMES[dataset.kind])}"
        )
    return Schedule(
        epochs=settings.epochs,
        batch_examples=settings.batch_examples,
        learning_rate=settings.learning_rate or DEFAULT_LEARNING_RATES[settings.method],
        weight_decay=settings.weight_decay,
        warmup_fraction=settings.warmup_fraction,
        clip_norm=settings.clip_norm,
        patience=settings.patience,
        metric=metric,
        seed=settings.seed,
        sampling=settings.sampling,
        pair_steps=settings.pair_steps,
    )
