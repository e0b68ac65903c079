"""Every metric once, for binary, multiclass, multilabel and numeric targets, with or without weights.

What cannot be said of a set is left out of its result, never guessed: an order needs a positive and a negative, recall
and F1 a positive, specificity a negative, correlations and R2 two different targets. Macro averages are over the
classes with both a positive and a negative in the set, and `num_classes_scored` counts them. Tied scores count as
tied; equal scores for all give the chance value (AUROC 0.5, AUPR the prevalence, correlation 0).

Shapes: N examples, C classes.
"""

from collections.abc import Callable

import numpy as np

from peftide.errors import UserError, raise_problems
from peftide.evaluation.agreement import error_metrics, pearson, spearman, tie_groups
from peftide.evaluation.decisions import confusion_matrix, multiclass_metrics, yes_no_metrics
from peftide.evaluation.ranking import area_under_roc, average_precision, count, precision_at_recall, rank
from peftide.evaluation.reliability import binary_log_losses, calibration_error, multiclass_log_losses
from peftide.records import TargetKind

Statistic = Callable[[np.ndarray | None], dict[str, float]]  # metrics of a fixed set under weights (N,) or none

RECALLS = (0.10, 0.25, 0.50, 0.75, 0.90)
MAIN_METRICS: dict[TargetKind, str] = {
    "binary": "aupr",
    "multiclass": "macro_aupr",
    "multilabel": "macro_aupr",
    "regression": "spearman",
}
LOWER_IS_BETTER = frozenset({"brier", "log_loss", "ece", "rmse", "mae"})
COUNTS = ("num_examples", "num_classes_scored")  # measured beside the metrics, but no metrics themselves
PER_CLASS = ("aupr", "auroc", "f1", "precision", "recall")
METRIC_NAMES: dict[TargetKind, tuple[str, ...]] = {
    "binary": (
        *("aupr", "auroc", "accuracy", "balanced_accuracy", "precision", "recall", "specificity", "f1", "mcc"),
        *(f"precision_at_recall_{100 * recall:.0f}" for recall in RECALLS),
        *("brier", "log_loss", "ece"),
    ),
    "multiclass": (
        *("macro_aupr", "macro_auroc", "macro_f1", "macro_precision", "macro_recall"),
        *("accuracy", "balanced_accuracy", "mcc", "log_loss", "ece"),
    ),
    "multilabel": (
        *("macro_aupr", "macro_auroc", "macro_f1", "macro_precision", "macro_recall"),
        *("macro_mcc", "accuracy", "subset_accuracy", "balanced_accuracy", "log_loss"),
    ),
    "regression": ("spearman", "pearson", "rmse", "mae", "r2"),
}


def main_metric(kind: TargetKind) -> str:
    """The metric that models of this kind of target are chosen by."""
    return MAIN_METRICS[kind]


def higher_is_better(name: str) -> bool:
    """Whether a larger value of this metric is the better one."""
    return name not in LOWER_IS_BETTER


def measure(
    kind: TargetKind,
    targets: np.ndarray,
    scores: np.ndarray,
    *,
    classes: tuple[str, ...],
    threshold: float = 0.5,
    weights_N: np.ndarray | None = None,
) -> dict[str, float]:
    """All metrics of one set (METRIC_NAMES, then counts), ready for JSON; what the set leaves undefined is absent.

    targets: as in `records.Dataset`. scores: binary (N,) probability of the positive; multiclass and multilabel (N, C)
    probabilities; regression (N,) numbers. threshold: a probability at least as high is a yes (binary, multilabel).
    weights_N: how much each example counts, e.g. 1 / (size of its cluster).
    Raises UserError for scores that are not finite or not probabilities, and for an empty set.
    """
    values = statistic(kind, targets, scores, classes=classes, threshold=threshold)(weights_N)
    return {name: value for name, value in values.items() if value == value}


def measure_classes(
    kind: TargetKind, targets: np.ndarray, scores: np.ndarray, *, classes: tuple[str, ...], threshold: float = 0.5
) -> dict[str, dict[str, float]]:
    """For each class its AUPR, AUROC, F1, precision and recall (where defined), support and prevalence.

    For multiclass and multilabel targets; the classes in order, the arguments as in `measure`.
    """
    assert kind in ("multiclass", "multilabel"), f"{kind} targets have no table of classes"
    _check(kind, targets, scores, classes)
    truths_NC = _one_hot(targets, len(classes)) if kind == "multiclass" else targets > 0.5
    said_NC = _one_hot(scores.argmax(axis=1), len(classes)) if kind == "multiclass" else scores >= threshold
    table = {}
    for column, name in enumerate(classes):
        values = _one_class(truths_NC[:, column], scores[:, column], said_NC[:, column])(None)
        counts = {"support": int(truths_NC[:, column].sum()), "prevalence": float(truths_NC[:, column].mean())}
        table[name] = {key: values[key] for key in PER_CLASS if values[key] == values[key]} | counts
    return table


def statistic(
    kind: TargetKind, targets: np.ndarray, scores: np.ndarray, *, classes: tuple[str, ...], threshold: float = 0.5
) -> Statistic:
    """The metrics of `measure` as a function of the weights, sorted and checked once; undefined ones are NaN in it."""
    _check(kind, targets, scores, classes)
    if kind == "binary":
        return _binary(targets > 0.5, scores.astype(np.float64), threshold)
    if kind == "multiclass":
        return _multiclass(targets, scores.astype(np.float64), len(classes))
    if kind == "multilabel":
        return _multilabel(targets > 0.5, scores.astype(np.float64), threshold)
    return _regression(targets.astype(np.float64), scores.astype(np.float64))


def _binary(truths_N: np.ndarray, scores_N: np.ndarray, threshold: float) -> Statistic:
    ranking = rank(truths_N, scores_N)
    said_N = scores_N >= threshold
    squares_N, losses_N = (scores_N - truths_N) ** 2, binary_log_losses(truths_N, scores_N)

    def values(weights_N: np.ndarray | None) -> dict[str, float]:
        counts = count(ranking, weights_N)
        at_recalls = [precision_at_recall(counts, recall) for recall in RECALLS]
        return {
            "aupr": average_precision(counts),
            "auroc": area_under_roc(counts),
            **yes_no_metrics(truths_N, said_N, weights_N),
            **{f"precision_at_recall_{100 * recall:.0f}": at for recall, at in zip(RECALLS, at_recalls, strict=True)},
            "brier": float(np.average(squares_N, weights=weights_N)),
            "log_loss": float(np.average(losses_N, weights=weights_N)),
            "ece": calibration_error(truths_N, scores_N, weights_N=weights_N),
            "prevalence": float(np.average(truths_N, weights=weights_N)),
            "num_examples": len(truths_N),
        }

    return values


def _multiclass(targets_N: np.ndarray, scores_NC: np.ndarray, num_classes: int) -> Statistic:
    said_N = scores_NC.argmax(axis=1)
    truths_NC, said_NC = _one_hot(targets_N, num_classes), _one_hot(said_N, num_classes)
    per_class = [_one_class(truths_NC[:, c], scores_NC[:, c], said_NC[:, c]) for c in range(num_classes)]
    losses_N = multiclass_log_losses(targets_N, scores_NC)
    confidence_N, right_N = np.minimum(scores_NC.max(axis=1), 1.0), said_N == targets_N

    def values(weights_N: np.ndarray | None) -> dict[str, float]:
        confusion_CC = confusion_matrix(targets_N, said_N, num_classes=num_classes, weights_N=weights_N)
        return {
            **_macro([one(weights_N) for one in per_class]),
            **multiclass_metrics(confusion_CC),
            "log_loss": float(np.average(losses_N, weights=weights_N)),
            "ece": calibration_error(right_N, confidence_N, weights_N=weights_N),
            "num_examples": len(targets_N),
        }

    return values


def _multilabel(truths_NC: np.ndarray, scores_NC: np.ndarray, threshold: float) -> Statistic:
    said_NC = scores_NC >= threshold
    per_class = [_one_class(*columns) for columns in zip(truths_NC.T, scores_NC.T, said_NC.T, strict=True)]
    all_right_N = (said_NC == truths_NC).all(axis=1)
    fraction_right_N = (said_NC == truths_NC).mean(axis=1)
    losses_N = binary_log_losses(truths_NC, scores_NC).mean(axis=1)

    def values(weights_N: np.ndarray | None) -> dict[str, float]:
        tables = [one(weights_N) for one in per_class]
        return {
            **_macro(tables),
            "macro_mcc": _mean([table["mcc"] for table in tables if _is_scored(table)]),
            "accuracy": float(np.average(fraction_right_N, weights=weights_N)),
            "subset_accuracy": float(np.average(all_right_N, weights=weights_N)),
            "balanced_accuracy": _mean([table["balanced_accuracy"] for table in tables if _is_scored(table)]),
            "log_loss": float(np.average(losses_N, weights=weights_N)),
            "num_examples": len(truths_NC),
        }

    return values


def _regression(targets_N: np.ndarray, scores_N: np.ndarray) -> Statistic:
    target_group_N, score_group_N = tie_groups(targets_N), tie_groups(scores_N)

    def values(weights_N: np.ndarray | None) -> dict[str, float]:
        known_N = np.ones(len(targets_N)) if weights_N is None else weights_N
        return {
            "spearman": spearman(target_group_N, score_group_N, known_N),
            "pearson": pearson(targets_N, scores_N, known_N),
            **error_metrics(targets_N, scores_N, known_N),
            "num_examples": len(targets_N),
        }

    return values


def _one_class(truths_N: np.ndarray, scores_N: np.ndarray, said_N: np.ndarray) -> Statistic:
    ranking = rank(truths_N, scores_N)

    def values(weights_N: np.ndarray | None) -> dict[str, float]:
        counts = count(ranking, weights_N)
        ranked = {"aupr": average_precision(counts), "auroc": area_under_roc(counts)}
        return ranked | yes_no_metrics(truths_N, said_N, weights_N)

    return values


def _macro(tables: list[dict[str, float]]) -> dict[str, float]:
    scored = [table for table in tables if _is_scored(table)]
    averages = {f"macro_{name}": _mean([table[name] for table in scored]) for name in PER_CLASS}
    return averages | {"num_classes_scored": len(scored)}


def _is_scored(table: dict[str, float]) -> bool:
    return table["auroc"] == table["auroc"]  # NaN unless the class has a positive and a negative


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def _one_hot(classes_N: np.ndarray, num_classes: int) -> np.ndarray:
    return classes_N[:, None] == np.arange(num_classes)


def _check(kind: TargetKind, targets: np.ndarray, scores: np.ndarray, classes: tuple[str, ...]) -> None:
    """Raise UserError for scores that cannot be measured, listing all that is wrong with them."""
    if len(scores) == 0:
        raise UserError("there is nothing to measure: the set has no examples; choose another split or add examples")
    expected = (len(targets), len(classes)) if kind in ("multiclass", "multilabel") else (len(targets),)
    assert scores.shape == expected, f"{kind} scores of shape {scores.shape}, expected {expected}"
    rows_N = scores.reshape(len(scores), -1)
    problems = []
    lost_N = ~np.isfinite(rows_N).all(axis=1)
    if lost_N.any():
        problems.append(
            f"{int(lost_N.sum())} of {len(rows_N)} scores are not finite numbers, the first in row "
            f"{int(lost_N.argmax())}; a model that diverged in training does this: lower the learning rate"
        )
    if kind != "regression":
        outside_N = ((rows_N < 0) | (rows_N > 1.0 + 1e-6)).any(axis=1)
        if outside_N.any():
            problems.append(
                f"{int(outside_N.sum())} of {len(rows_N)} scores lie outside 0 to 1, the first in row "
                f"{int(outside_N.argmax())}; give probabilities, e.g. 1 / (1 + exp(-score))"
            )
    raise_problems("the scores cannot be measured", problems)
