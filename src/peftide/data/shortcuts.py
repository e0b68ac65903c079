"""What the mere occurrence of a protein tells about the label of a pair, without any look at its sequence."""

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from peftide.data.clusters import sequence_groups
from peftide.records import UNUSED, Dataset

MIN_PAIRS = 5  # of a protein, before it is remarkable that all have the same label
SMOOTHING = 1.0  # pairs at the overall rate added to each protein's
MOST_NAMES = 200


@dataclass(frozen=True)
class Shortcut:
    """Scores on the test of a predictor that knows only how a protein occurs in training.

    predictor: "label rate" (fraction of positives among its training pairs) or "degree" (number of its training
    pairs). seen_fraction: of test pairs with a protein that training has. positive_fraction: AUPR of chance.
    auroc_error: standard error (Hanley and McNeil 1982).
    """

    predictor: str
    auroc: float
    auroc_error: float
    aupr: float
    positive_fraction: float
    seen_fraction: float


@dataclass(frozen=True)
class OneSided:
    """Proteins all of whose pairs have one label.

    num_often: those in at least `min_pairs` pairs; num_by_chance: as many of them would chance give. names: the ones
    in most pairs.
    """

    label: str
    num_proteins: int
    min_pairs: int
    num_often: int
    num_by_chance: float
    names: tuple[str, ...]


def find_shortcuts(dataset: Dataset) -> tuple[Shortcut, ...]:
    """Both predictors on the test split; none unless binary pairs with both labels in train and test."""
    if dataset.members_NK.shape[1] != 2 or dataset.kind != "binary" or dataset.targets is None:
        return ()
    is_train_N, is_test_N = (dataset.split_N == split for split in ("train", "test"))
    train_targets, test_targets = dataset.targets[is_train_N], dataset.targets[is_test_N]
    if len(np.unique(train_targets)) < 2 or len(np.unique(test_targets)) < 2:
        return ()
    number_of = sequence_groups(dataset.proteins.sequences)[1]
    train_M2, test_M2 = (number_of[dataset.members_NK[is_part_N]] for is_part_N in (is_train_N, is_test_N))
    size = len(number_of)
    degree_P = np.bincount(train_M2.ravel(), minlength=size)
    positive_P = np.bincount(train_M2[train_targets == 1].ravel(), minlength=size)
    overall = float(train_targets.mean())
    rate_P = (positive_P + SMOOTHING * overall) / (degree_P + SMOOTHING)
    feature_of = {"label rate": np.log(rate_P / (1 - rate_P)), "degree": np.log1p(degree_P)}
    seen_fraction = float((degree_P[test_M2] > 0).any(axis=1).mean())
    shortcuts = []
    for name, feature_P in feature_of.items():
        sign = 1 if _auroc(train_targets, feature_P[train_M2].sum(axis=1)) >= 0.5 else -1
        score_M = sign * feature_P[test_M2].sum(axis=1)
        auroc = _auroc(test_targets, score_M)
        num_positive = int(test_targets.sum())
        shortcuts.append(
            Shortcut(
                predictor=name,
                auroc=auroc,
                auroc_error=_auroc_error(auroc, num_positive, len(test_targets) - num_positive),
                aupr=float(average_precision_score(test_targets.tolist(), score_M.tolist())),
                positive_fraction=num_positive / len(test_targets),
                seen_fraction=seen_fraction,
            )
        )
    return tuple(shortcuts)


def find_one_sided(dataset: Dataset) -> tuple[OneSided, ...]:
    """Proteins that occur with one label only, for each label of binary pairs; the ones in most pairs come first."""
    if dataset.members_NK.shape[1] != 2 or dataset.kind != "binary" or dataset.targets is None:
        return ()
    used_N = np.ones(len(dataset), dtype=bool) if dataset.split_N is None else dataset.split_N != UNUSED
    members_M2, targets_M = dataset.members_NK[used_N], dataset.targets[used_N]
    pairs_P = np.bincount(members_M2.ravel(), minlength=len(dataset.proteins))
    positive_P = np.bincount(members_M2[targets_M == 1].ravel(), minlength=len(dataset.proteins))
    often_P = pairs_P >= MIN_PAIRS
    positive_fraction = float(targets_M.mean()) if len(targets_M) else 0.0
    found = []
    for number, label in enumerate(dataset.classes):
        other_P = positive_P if number == 0 else pairs_P - positive_P
        rows = np.flatnonzero((pairs_P > 0) & (other_P == 0))
        rows = rows[np.argsort(-pairs_P[rows], kind="stable")]
        fraction = positive_fraction if number == 1 else 1 - positive_fraction
        found.append(
            OneSided(
                label=label,
                num_proteins=len(rows),
                min_pairs=MIN_PAIRS,
                num_often=int(often_P[rows].sum()),
                num_by_chance=float((fraction ** pairs_P[often_P]).sum()),
                names=tuple(dataset.proteins.ids[row] for row in rows[:MOST_NAMES]),
            )
        )
    return tuple(found)


def _auroc(targets: np.ndarray, scores: np.ndarray) -> float:
    return float(roc_auc_score(targets.tolist(), scores.tolist()))


def _auroc_error(auroc: float, num_positive: int, num_negative: int) -> float:
    both_positive = auroc / (2 - auroc) - auroc**2
    both_negative = 2 * auroc**2 / (1 + auroc) - auroc**2
    variance = auroc * (1 - auroc) + (num_positive - 1) * both_positive + (num_negative - 1) * both_negative
    return float(np.sqrt(variance / (num_positive * num_negative)))
