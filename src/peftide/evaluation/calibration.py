"""Probabilities that mean what they say: temperature or isotonic regression, learnt and chosen on validation.

Shapes: N examples, C classes, K members of an example (1 or 2).
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from scipy.optimize import isotonic_regression, minimize_scalar
from scipy.special import expit, log_softmax, logit
from sklearn.model_selection import StratifiedGroupKFold

from peftide.evaluation.reliability import binary_log_losses, multiclass_log_losses
from peftide.records import TargetKind

CalibrationKind = Literal["none", "temperature", "isotonic"]

NUM_FOLDS = 5
TEMPERATURES = (0.05, 20.0)
TEMPERATURE_SPREAD = 0.5  # of its logarithm around 0, before any example is seen: a factor of 1.6 either way
SMALLEST_SCORE = 1e-30


@dataclass(frozen=True)
class Calibration:
    """How to correct the probabilities of one model; fit for JSON by `to_json` and back by `from_json`.

    temperature: logits are divided by it. scores, probabilities: knots of a rising line (isotonic, binary only).
    log_losses: cross-fitted log loss on validation, in nats, of each way that was tried.
    """

    kind: CalibrationKind
    target: TargetKind
    temperature: float | None = None
    scores: tuple[float, ...] = ()
    probabilities: tuple[float, ...] = ()
    log_losses: tuple[tuple[str, float], ...] = ()

    def apply(self, probabilities: np.ndarray) -> np.ndarray:
        """Corrected probabilities, float64 in the shape of the input: (N,) binary, (N, C) multiclass or multilabel."""
        if self.kind == "temperature":
            assert self.temperature is not None
            return _cool(self.target, probabilities, self.temperature)
        if self.kind == "isotonic":
            return np.interp(probabilities, self.scores, self.probabilities)
        return probabilities.astype(np.float64)

    def to_json(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return asdict(self) | {"log_losses": dict(self.log_losses)}

    @staticmethod
    def from_json(stored: dict[str, Any]) -> "Calibration":
        """The calibration that `to_json` wrote."""
        return Calibration(
            stored["kind"],
            stored["target"],
            temperature=stored["temperature"],
            scores=tuple(stored["scores"]),
            probabilities=tuple(stored["probabilities"]),
            log_losses=tuple(stored["log_losses"].items()),
        )


def fit_calibration(
    kind: TargetKind,
    targets: np.ndarray,
    probabilities: np.ndarray,
    *,
    groups_NK: np.ndarray | None = None,
    generator: np.random.Generator,
) -> Calibration:
    """Learn the correction from validation and choose it by its log loss in 5-fold cross-fitting.

    Each way is judged on examples that its own fit has not seen, nor near copies of them, so isotonic regression cannot
    win by memory. "none" is kept unless another is better by more than the standard error over the folds. Isotonic
    regression is for binary targets; multiclass and multilabel share one temperature. Fewer than 5 examples of either
    answer (binary) or in all: "none". Not for regression.

    groups_NK: the protein, or cluster of similar ones, of each member: examples of one group are held out together, of
        a pair by the member that has more examples.
    """
    assert kind != "regression", "numbers have no probabilities to calibrate"
    if not _is_enough(kind, targets):
        return Calibration("none", kind)
    candidates: list[CalibrationKind] = ["none", "temperature", *(["isotonic"] if kind == "binary" else [])]
    fold_N = _folds(kind, targets, groups_NK, generator)
    losses_F = {name: np.zeros(NUM_FOLDS) for name in candidates}
    for name in candidates:
        for fold in range(NUM_FOLDS):
            fitted = _fit(name, kind, targets[fold_N != fold], probabilities[fold_N != fold])
            held_out = fold_N == fold
            losses_F[name][fold] = _total_loss(kind, targets[held_out], fitted.apply(probabilities[held_out]))
    losses = {name: float(total_F.sum() / len(targets)) for name, total_F in losses_F.items()}
    best = min(candidates, key=lambda name: losses[name])
    gain_F = losses_F["none"] - losses_F[best]
    if gain_F.mean() <= gain_F.std(ddof=1) / np.sqrt(NUM_FOLDS):
        best = "none"
    chosen = _fit(best, kind, targets, probabilities)
    return Calibration(best, kind, chosen.temperature, chosen.scores, chosen.probabilities, tuple(losses.items()))


def _fit(name: CalibrationKind, kind: TargetKind, targets: np.ndarray, probabilities: np.ndarray) -> Calibration:
    if name == "temperature":
        return Calibration("temperature", kind, temperature=_best_temperature(kind, targets, probabilities))
    if name == "isotonic":
        scores, corrected = _isotonic_knots(targets, probabilities)
        return Calibration("isotonic", kind, scores=scores, probabilities=corrected)
    return Calibration("none", kind)


def _cool(kind: TargetKind, probabilities: np.ndarray, temperature: float) -> np.ndarray:
    # finite logits, without tying scores that their own precision tells apart
    highest = 1.0 - float(np.finfo(probabilities.dtype).eps) / 2
    inside = np.clip(probabilities.astype(np.float64), SMALLEST_SCORE, highest)
    if kind == "multiclass":
        return np.exp(log_softmax(np.log(inside) / temperature, axis=1))
    return expit(logit(inside) / temperature)


def _best_temperature(kind: TargetKind, targets: np.ndarray, probabilities: np.ndarray) -> float:
    """The temperature of lowest log loss (Guo et al. 2017), searched on a logarithmic scale between 1/20 and 20.

    A normal prior on the logarithm keeps it near 1 where examples are few: ten that are all right would make every
    answer certain. From a hundred on it changes little.
    """

    def loss(log_temperature: float) -> float:
        prior = 0.5 * (log_temperature / TEMPERATURE_SPREAD) ** 2
        return _total_loss(kind, targets, _cool(kind, probabilities, float(np.exp(log_temperature)))) + prior

    return float(np.exp(minimize_scalar(loss, bounds=tuple(np.log(TEMPERATURES)), method="bounded").x))


def _isotonic_knots(targets_N: np.ndarray, scores_N: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Centres of the steps of isotonic regression, to be joined by lines (Oron and Flournoy 2017).

    The line rises everywhere, so calibration ties no scores and changes no ranking. One made-up positive at the
    lowest score and one negative at the highest keep the steps off 0 and 1, as no finite sample shows that a score is
    never wrong; at scores 0 and 1 the line ends half way to certainty.
    """
    scores = np.concatenate([scores_N, [scores_N.min(), scores_N.max()]]).astype(np.float64)
    truths = np.concatenate([targets_N > 0.5, [True, False]]).astype(np.float64)
    unique, group = np.unique(scores, return_inverse=True)
    weights = np.bincount(group).astype(np.float64)
    fitted = isotonic_regression(np.bincount(group, weights=truths) / weights, weights=weights).x
    steps, step = np.unique(fitted, return_inverse=True)
    centres = np.bincount(step, weights=unique * weights) / np.bincount(step, weights=weights)
    inner = (centres > 0) & (centres < 1)
    knots = [(0.0, steps[0] / 2), *zip(centres[inner], steps[inner], strict=True), (1.0, (1 + steps[-1]) / 2)]
    return tuple(float(score) for score, _ in knots), tuple(float(step) for _, step in knots)


def _total_loss(kind: TargetKind, targets: np.ndarray, probabilities: np.ndarray) -> float:
    if kind == "multiclass":
        return float(multiclass_log_losses(targets, probabilities).sum())
    return float(binary_log_losses(targets, probabilities).reshape(len(targets), -1).mean(axis=1).sum())


def _is_enough(kind: TargetKind, targets: np.ndarray) -> bool:
    if kind == "binary":
        return bool(min((targets > 0.5).sum(), (targets <= 0.5).sum()) >= NUM_FOLDS)
    return len(targets) >= NUM_FOLDS


def _folds(
    kind: TargetKind, targets: np.ndarray, groups_NK: np.ndarray | None, generator: np.random.Generator
) -> np.ndarray:
    """Fold of each example, (N,), with both answers (binary) spread evenly over the folds.

    Groups stay whole, unless there are too few of them for every fold to learn both answers elsewhere.
    """
    answers = targets if kind == "binary" else np.zeros(len(targets))
    if groups_NK is not None and (grouped := _grouped_folds(answers > 0.5, groups_NK, generator)) is not None:
        return grouped
    order = generator.permutation(len(targets))
    order = order[np.argsort(answers[order], kind="stable")]
    fold_N = np.empty(len(targets), dtype=np.int64)
    fold_N[order] = np.arange(len(targets)) % NUM_FOLDS
    return fold_N


def _grouped_folds(
    is_positive_N: np.ndarray, groups_NK: np.ndarray, generator: np.random.Generator
) -> np.ndarray | None:
    """Folds (N,) of whole groups; None where each example is a group, or where a fold would lack something."""
    members, sizes = np.unique(groups_NK, return_inverse=True, return_counts=True)[1:]
    members_NK = members.reshape(groups_NK.shape)
    group_N = np.take_along_axis(members_NK, sizes[members_NK].argmax(axis=1)[:, None], axis=1)[:, 0]
    if len(np.unique(group_N)) == len(group_N) or len(np.unique(group_N)) < NUM_FOLDS:
        return None
    fold_N = np.empty(len(group_N), dtype=np.int64)
    splitter = StratifiedGroupKFold(NUM_FOLDS, shuffle=True, random_state=int(generator.integers(2**32)))
    for fold, (_, held_out) in enumerate(splitter.split(group_N, is_positive_N, group_N)):
        fold_N[held_out] = fold
    num_answers = len(np.unique(is_positive_N))
    is_whole = all(
        (fold_N == fold).any() and len(np.unique(is_positive_N[fold_N != fold])) == num_answers
        for fold in range(NUM_FOLDS)
    )
    return fold_N if is_whole else None
