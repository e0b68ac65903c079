"""The baselines of a run: those that know no model, homology transfer, and the same head on a random backbone."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from rich.console import Console
from transformers import EsmConfig, EsmModel

from peftide.config import TrainSettings
from peftide.data.homology import find_hits
from peftide.evaluation.baselines import (
    BASELINES,
    PAIR_BASELINES,
    Baseline,
    BaselineScores,
    held_out,
    homology_transfer,
)
from peftide.evaluation.homology import Matches
from peftide.inference.embed import embed_proteins
from peftide.inference.encoder import encoder_of
from peftide.inference.live_bars import encoding_progress
from peftide.inference.predict import score_examples
from peftide.models.backbones import Backbone
from peftide.records import Dataset
from peftide.training.build import build_model
from peftide.training.loop import Trainer
from peftide.training.memory import encoding_budget
from peftide.training.progress import TrainingProgress
from peftide.training.subject import Subject, schedule_of

Wanted = Literal["all", "quick", "none"]

HEAD_EPOCHS, HEAD_PATIENCE = 20, 5
RANDOM_BACKBONE = "random-backbone"
SLOW_BASELINES = ("homology", RANDOM_BACKBONE)
LEAST_IDENTITY, LEAST_COVERAGE = 0.2, 0.3  # of a relative whose label is transferred


def baselines_of(
    subject: Subject, wanted: Wanted, scored: dict[str, BaselineScores], console: Console
) -> Mapping[str, Baseline]:
    """The baselines to compare a run with, by name.

    "quick" leaves out the search for relatives and the random backbone, which encodes every protein once more.
    scored: what earlier runs on these examples know already; what is computed is added.
    """
    if wanted == "none" or not held_out(subject.dataset):
        return {}
    found = _all_baselines(subject, console)
    names = [name for name in found if wanted == "all" or name not in SLOW_BASELINES]
    return {name: _once(full_name(name, subject.settings.backbone), found[name], scored) for name in names}


def _once(key: str, baseline: Baseline, scored: dict[str, BaselineScores]) -> Baseline:
    """A baseline that is not computed where its scores are known."""

    def score(dataset: Dataset, generator: np.random.Generator) -> BaselineScores:
        if key not in scored:
            started = time.perf_counter()
            found = baseline(dataset, generator)
            scored[key] = replace(found, seconds=time.perf_counter() - started)
        return scored[key]

    return score


def full_name(name: str, backbone: str) -> str:
    """The baseline, with what its scores depend on beside the examples."""
    return f"{name} of {backbone}" if name == RANDOM_BACKBONE else name


def _all_baselines(subject: Subject, console: Console) -> dict[str, Baseline]:
    is_pair, is_binary = subject.dataset.members_NK.shape[1] == 2, subject.dataset.kind == "binary"
    found = dict(PAIR_BASELINES if is_pair and is_binary else BASELINES)
    if is_binary or not is_pair:  # how labels other than yes and no would go from pair to pair, nobody has said
        found["homology"] = lambda dataset, generator: homology_transfer(
            _relatives(dataset, subject.settings, console)
        )(dataset, generator)
    found[RANDOM_BACKBONE] = lambda dataset, generator: _random_backbone(subject, dataset, console)
    return found


def _relatives(dataset: Dataset, settings: TrainSettings, console: Console) -> Matches:
    """Similar proteins among those held out and those of training, by the search that the split uses too."""
    train = np.unique(dataset.part("train").members_NK)
    asked = np.unique(np.concatenate([dataset.part(split).members_NK.ravel() for split in held_out(dataset)]))
    sequences = dataset.proteins.sequences
    with console.status("looking for relatives among the training proteins"):
        hits = find_hits(
            [sequences[row] for row in asked],
            [sequences[row] for row in train],
            identity=LEAST_IDENTITY,
            coverage=LEAST_COVERAGE,
            threads=settings.threads,
        )
    return Matches(asked[hits.query_H], train[hits.target_H], hits.identity_H)


def _random_backbone(subject: Subject, dataset: Dataset, console: Console) -> BaselineScores:
    """What the head learns from a backbone of the same shape whose weights never saw a protein."""
    settings = replace(subject.settings, method="head", learning_rate=None, epochs=HEAD_EPOCHS, patience=HEAD_PATIENCE)
    machine = subject.encoder.machine
    backbone = _with_random_weights(subject.model.backbone, settings.seed)
    model = build_model(settings, dataset, backbone)
    model.head.to(machine.device)
    encoder = encoder_of(model, machine)
    budget = encoding_budget(subject.execution.token_budget, machine.device)
    with encoding_progress(console, sum(protein.num_residues for protein in subject.pieces)) as advance:
        vectors_PD = embed_proteins(encoder, subject.pieces, token_budget=budget, advance=advance)
    model.head.standardize(torch.from_numpy(vectors_PD[np.unique(dataset.part("train").members_NK)]))
    schedule = schedule_of(settings, dataset)
    trainer = Trainer(model, encoder, dataset, subject.pieces, schedule, token_budget=budget, vectors_PD=vectors_PD)
    with TrainingProgress(
        Console(quiet=True), num_steps=trainer.num_steps, metric=schedule.metric, device=machine.device
    ) as show:
        fit = trainer.fit(show)
    if fit.is_interrupted:
        raise KeyboardInterrupt
    scores = {split: score_examples(model, vectors_PD, dataset.part(split).members_NK) for split in held_out(dataset)}
    return BaselineScores(scores, "the same head on a backbone of the same shape with random weights")


def _with_random_weights(backbone: Backbone, seed: int) -> Backbone:
    config = EsmConfig.from_dict(backbone.model.config.to_dict())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = EsmModel(config, add_pooling_layer=False).eval().requires_grad_(False)
    return replace(
        backbone,
        name=f"{backbone.name} with random weights",
        model=model,
        fingerprint="random",
        exact_fingerprint="random",
    )
