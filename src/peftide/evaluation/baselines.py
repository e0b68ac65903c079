"""What simple predictors reach on the same split: a model is worth its cost only where it beats them.

Shapes: N examples, P proteins, C classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from peftide.evaluation.classifiers import choose_model
from peftide.evaluation.features import (
    dipeptide_composition,
    example_features,
    principal_components,
    residue_composition,
    standardise,
)
from peftide.evaluation.homology import (
    Matches,
    nearest_training_proteins,
    transfer_to_pairs,
    transfer_to_proteins,
)
from peftide.records import Dataset, SplitName

EVALUATED: tuple[SplitName, ...] = ("val", "test")
KMER_COMPONENTS = 64
MOST_NEIGHBOURS = 25


@dataclass(frozen=True)
class BaselineScores:
    """Scores of a baseline for the validation and the test part, in the order of `dataset.part(...)`.

    scores: as `metrics.measure` takes them. note: one sentence on what the predictor is, for the report. seconds: that
    it took, where it was computed before.
    """

    scores: dict[SplitName, np.ndarray]
    note: str
    seconds: float | None = None


Baseline = Callable[[Dataset, np.random.Generator], BaselineScores]


def held_out(dataset: Dataset) -> tuple[SplitName, ...]:
    """Those of validation and test that have examples."""
    assert dataset.split_N is not None, "the dataset has no split yet"
    return tuple(split for split in EVALUATED if (dataset.split_N == split).any())


def majority(dataset: Dataset, generator: np.random.Generator) -> BaselineScores:
    """The same answer for all: the training set's fraction of each class, or its mean."""
    train_targets_NC = _target_columns(dataset.part("train"))
    answer_C = train_targets_NC.mean(axis=0)
    scores = {
        split: _as_scores(dataset, np.tile(answer_C, (len(dataset.part(split)), 1))) for split in held_out(dataset)
    }
    return BaselineScores(scores, "the same answer for all: how often each label occurs in training")


def label_rate(dataset: Dataset, generator: np.random.Generator) -> BaselineScores:
    """Pairs: what is known from each protein's share of positives in its training pairs, without any sequence.

    Each protein's rate r is smoothed by one pair at the overall rate g (an unseen protein has r = g); the pair's
    log-odds are logit(r_a) + logit(r_b) - logit(g), as if both proteins spoke independently.
    """
    assert dataset.members_NK.shape[1] == 2, "label rates are those of a pair's two proteins"
    train = dataset.part("train")
    truths_N = _target_columns(train)[:, 0]
    overall = (truths_N.sum() + 0.5) / (len(truths_N) + 1)
    num_proteins = len(dataset.proteins)
    degrees_P = np.bincount(train.members_NK.ravel(), minlength=num_proteins)
    positives_P = np.bincount(train.members_NK.ravel(), weights=np.repeat(truths_N, 2), minlength=num_proteins)
    logits_P = _logit((positives_P + overall) / (degrees_P + 1))
    scores = {}
    for split in held_out(dataset):
        logits_N = logits_P[dataset.part(split).members_NK].sum(axis=1) - _logit(overall)
        scores[split] = 1 / (1 + np.exp(-logits_N))
    return BaselineScores(scores, "each protein's share of positives among its training pairs, no sequence")


def composition(dataset: Dataset, generator: np.random.Generator) -> BaselineScores:
    """Fractions of the 20 residues and the length, in a linear model or gradient boosting."""
    return _chosen_on(residue_composition(dataset.proteins.sequences), dataset, generator, "amino-acid composition")


def kmers(dataset: Dataset, generator: np.random.Generator) -> BaselineScores:
    """The 400 pairs of neighbouring residues in 64 principal components, in a linear model or gradient boosting."""
    table_PF = dipeptide_composition(dataset.proteins.sequences)
    seen_in_training = np.unique(dataset.part("train").members_NK)
    table_PF = principal_components(table_PF, fitted_on=seen_in_training, num_components=KMER_COMPONENTS)
    return _chosen_on(table_PF, dataset, generator, "neighbouring residues")


def homology_transfer(matches: Matches) -> Baseline:
    """The baseline that transfers labels from similar training proteins (the 25 nearest of each protein).

    matches: between the rows of `dataset.proteins`, from any aligner; those that touch no training protein are ignored.
    """
    return partial(_homology_transfer, matches=matches)


def _homology_transfer(dataset: Dataset, generator: np.random.Generator, *, matches: Matches) -> BaselineScores:
    train = dataset.part("train")
    neighbours = nearest_training_proteins(
        matches,
        num_proteins=len(dataset.proteins),
        train_proteins=np.unique(train.members_NK),
        num_nearest=MOST_NEIGHBOURS,
    )
    targets_NC = _target_columns(train)
    scores: dict[SplitName, np.ndarray] = {}
    for split in held_out(dataset):
        asked = dataset.part(split).members_NK
        if asked.shape[1] == 2:
            scores[split] = transfer_to_pairs(neighbours, train.members_NK, targets_NC[:, 0], asked_M2=asked)
        else:
            found = transfer_to_proteins(neighbours, train.members_NK[:, 0], targets_NC, asked_M=asked[:, 0])
            scores[split] = _as_scores(dataset, found)
    return BaselineScores(scores, "the label of the most similar training proteins")


def _chosen_on(table_PF: np.ndarray, dataset: Dataset, generator: np.random.Generator, what: str) -> BaselineScores:
    """Fit on the training part, choose on validation, score validation and test."""
    table_PF = standardise(table_PF, fitted_on=np.unique(dataset.part("train").members_NK))
    features = {
        split: example_features(table_PF, dataset.part(split).members_NK) for split in ("train", *held_out(dataset))
    }
    train_targets, val_targets = dataset.part("train").targets, dataset.part("val").targets
    assert train_targets is not None, "baselines need labels"
    assert val_targets is not None, "baselines need labels"
    chosen = choose_model(
        dataset.kind,
        (features["train"], train_targets),
        (features["val"], val_targets),
        classes=dataset.classes,
        generator=generator,
    )
    scores: dict[SplitName, np.ndarray] = {split: chosen.scorer(features[split]) for split in held_out(dataset)}
    return BaselineScores(scores, f"{what}, {chosen.name} (chosen on validation)")


def _target_columns(dataset: Dataset) -> np.ndarray:
    """Targets as columns, (N, C) float64: one per class, or a single one (binary, regression)."""
    assert dataset.targets is not None, "baselines need labels"
    if dataset.kind == "multiclass":
        return np.eye(len(dataset.classes))[dataset.targets]
    return dataset.targets.reshape(len(dataset), -1).astype(np.float64)


def _as_scores(dataset: Dataset, columns_NC: np.ndarray) -> np.ndarray:
    return columns_NC if dataset.kind in ("multiclass", "multilabel") else columns_NC[:, 0]


def _logit(probability: np.ndarray) -> np.ndarray:
    return np.log(probability / (1 - probability))


BASELINES: dict[str, Baseline] = {"majority": majority, "composition": composition, "kmers": kmers}
PAIR_BASELINES: dict[str, Baseline] = {"label-rate": label_rate, **BASELINES}
