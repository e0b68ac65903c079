"""From settings and data to a model ready to train, and to the caches that spare it work."""

from dataclasses import replace

import numpy as np
import torch
from rich.console import Console

from peftide.config import TrainSettings, numbered_layers, parse_layers
from peftide.data.symmetry import GROUP_COLUMNS
from peftide.errors import UserError
from peftide.inference.caching import cached
from peftide.inference.device_states import DeviceStates
from peftide.inference.embed import embedding_key
from peftide.inference.encoder import Encoder
from peftide.models.adapters import add_lora
from peftide.models.backbones import Backbone
from peftide.models.property_model import HeadShape, PropertyModel, make_head, train_all_weights
from peftide.models.target import make_target
from peftide.models.tokens import Pieces
from peftide.records import Dataset
from peftide.training.ranks import ALONE, Ranks
from peftide.training.shares import embed_together

STANDARDIZING_SAMPLE = 1024  # proteins whose vectors set the head's centre and scale, where the backbone is trained


def build_model(settings: TrainSettings, dataset: Dataset, backbone: Backbone) -> PropertyModel:
    """A model with fresh adapters and head; the same seed gives the same weights."""
    torch.manual_seed(settings.seed)
    network: torch.nn.Module = backbone.model
    if settings.method == "lora":
        network = add_lora(
            backbone,
            rank=settings.lora_rank,
            alpha=settings.lora_alpha,
            dropout=settings.lora_dropout,
            matrices=settings.lora_matrices,
            layers=parse_layers(settings.lora_layers, backbone.num_layers),
        )
    if settings.method == "full":
        train_all_weights(network)
    train = dataset.part("train")
    assert train.targets is not None
    target = make_target(dataset.kind, dataset.classes, train.targets, balanced=settings.class_weights == "balanced")
    if dataset.task == "symmetry":
        unions = tuple(columns for columns in GROUP_COLUMNS.values() if len(columns) > 1)
        target = replace(target, groups=unions, group_weight=settings.group_weight)
    state_layers = choose_state_layers(settings, backbone.num_layers)
    shape = HeadShape(
        kind=settings.head,
        width=len(state_layers) * backbone.width,
        arity=dataset.members_NK.shape[1],
        num_outputs=target.num_outputs,
        hidden_width=settings.head_width,
        dropout=settings.head_dropout,
    )
    return PropertyModel(
        task=dataset.task,
        method=settings.method,
        backbone=backbone,
        model=network,
        head=make_head(shape),
        head_shape=shape,
        target=target,
        pooling=settings.pooling,
        state_layers=state_layers,
        max_residues=settings.max_residues,
        long_proteins=settings.long_proteins,
    )


def choose_state_layers(settings: TrainSettings, num_layers: int) -> tuple[int, ...]:
    """The layers, counted from 1, whose states make the vectors.

    Raises UserError where one of them is missing, or where a layer above all of them would be trained: nothing would
    come of it.
    """
    state_layers = numbered_layers(settings.state_layers, num_layers)
    trained = {"head": "", "lora": settings.lora_layers, "full": "all"}[settings.method]
    if trained and (highest := parse_layers(trained, num_layers)[-1] + 1) > state_layers[-1]:
        raise UserError(
            f"state_layers = {settings.state_layers}: method {settings.method} trains up to layer {highest}, and what "
            f"comes after layer {state_layers[-1]} would change nothing; add layer {highest} to state_layers"
            + (", or adapt lower layers" if settings.method == "lora" else "")
        )
    return state_layers


def hold_on_device(encoder: Encoder, pieces: list[Pieces]) -> DeviceStates | None:
    """Room on the GPU for the frozen states of all proteins, where they fit beside the training."""
    num_tokens = sum({key: len(t) for p in pieces for key, t in zip(p.keys, p.tokens, strict=True)}.values())
    width, dtype, device = encoder.backbone.width, encoder.machine.dtype, encoder.machine.device
    if not DeviceStates.fits(num_tokens, width, dtype=dtype, device=device):
        return None
    return DeviceStates(num_tokens, width, dtype=dtype, device=device)


def lower_encoder(encoder: Encoder) -> Encoder:
    """An encoder of the same weights that stops after the lower layers, whose vectors training does not change."""
    return Encoder(
        encoder.backbone, encoder.model, encoder.machine, pooling=encoder.pooling, state_layers=encoder.lower_layers
    )


def know_lower_vectors(
    encoder: Encoder,
    pieces: list[Pieces],
    settings: TrainSettings,
    console: Console,
    *,
    token_budget: int,
    ranks: Ranks = ALONE,
) -> None:
    """Let the encoder look up what the vectors of these proteins have of its lower layers, computed once or cached."""
    below = lower_encoder(encoder)
    with cached(below, pieces, settings, console, kind=encoder.pooling) as store:
        vectors_PD = embed_together(below, pieces, ranks, token_budget=token_budget, store=store, console=console)
    table_PD = torch.from_numpy(vectors_PD).to(encoder.machine.device)
    rows = {embedding_key(protein): row for row, protein in enumerate(pieces)}
    encoder.lower_vectors = lambda proteins: table_PD[[rows[embedding_key(protein)] for protein in proteins]]


def assume_lower_vectors(encoder: Encoder) -> None:
    """Let the encoder have zeros there, which takes as long to look up: for measuring before anything is computed."""
    if encoder.lower_layers:
        width, device = len(encoder.lower_layers) * encoder.backbone.width, encoder.machine.device
        encoder.lower_vectors = lambda proteins: torch.zeros(len(proteins), width, device=device)


def standardize(
    model: PropertyModel,
    encoder: Encoder,
    dataset: Dataset,
    pieces: list[Pieces],
    *,
    token_budget: int,
    seed: int,
    ranks: Ranks = ALONE,
    console: Console | None = None,
) -> None:
    """Set the head's centre and scale from the vectors of (a sample of) the training proteins.

    console: where a live bar is shown; none when absent.
    """
    rows = np.unique(dataset.part("train").members_NK)
    if len(rows) > STANDARDIZING_SAMPLE:
        rows = np.random.default_rng(seed).choice(rows, STANDARDIZING_SAMPLE, replace=False)
    sample = [pieces[row] for row in rows]
    vectors_PD = embed_together(encoder, sample, ranks, token_budget=token_budget, console=console)
    model.head.standardize(torch.from_numpy(vectors_PD))
