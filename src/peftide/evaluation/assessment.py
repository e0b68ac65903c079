"""What a run is worth: intervals, baselines on the same examples, calibration, and a verdict in words.

Shapes: N examples, C classes, P proteins.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from peftide.evaluation.baselines import Baseline, BaselineScores
from peftide.evaluation.calibration import Calibration
from peftide.evaluation.decisions import confusion_matrix
from peftide.evaluation.groups import Groups, measure_groups
from peftide.evaluation.intervals import (
    Difference,
    Interval,
    bootstrap_intervals,
    num_independent,
    one_vote_per_group,
    paired_difference,
)
from peftide.evaluation.metrics import higher_is_better, main_metric, measure, measure_classes, statistic
from peftide.evaluation.prevalence import RarePositives, rare_positives_table, threshold_for_precision
from peftide.evaluation.reliability import ReliabilityBin, calibration_error, reliability_curve
from peftide.records import Dataset, SplitName, TargetKind

WANTED_PRECISIONS = (0.5, 0.75, 0.9, 0.95, 0.99)
MOST_REPLICATES, FEWEST_REPLICATES = 1000, 200
FEWEST_ANSWERS = 10  # of the rarer answer: with fewer, chance alone makes intervals that leave zero out
ADDS = "The language model adds to what simple predictors know"  # first words of the verdicts
IS_WORSE = "The language model is worse than a simple predictor"
NOT_SHOWN = "The language model is not shown to add anything to a simple predictor"
TOO_FEW = "too few to say whether the language model adds anything"
FEWEST_GROUPS = 10  # of proteins or clusters: an interval from drawing fewer is far too narrow
SCORES_DRAWN = 5_000_000  # examples times replicates that a bootstrap aims at

Scores = Mapping[SplitName, np.ndarray]  # by held-out split, as `metrics.measure` takes them


@dataclass(frozen=True)
class Comparison:
    """A baseline on the same examples.

    per_cluster: as in `Assessment`; difference: the model's main metric minus the baseline's, on the judged part.
    """

    note: str
    metrics: dict[str, dict[str, float]]
    difference: Difference | None
    seconds: float
    per_cluster: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Threshold:
    """The lowest probability that promises this precision, chosen on validation; recall: what it finds there."""

    wanted_precision: float
    threshold: float
    recall: float


@dataclass(frozen=True)
class CalibrationCheck:
    """Expected calibration error and reliability curve of one part, before and after the correction."""

    ece: dict[str, float]
    reliability: dict[str, tuple[ReliabilityBin, ...]]


@dataclass(frozen=True)
class Assessment:
    """Everything that is said of a model's held-out scores; `to_json` makes it ready for JSON.

    judged: the part that intervals of differences and the verdict are from: test, else validation. per_cluster: by
    part, the metrics with every cluster of similar proteins counted once; empty where clusters are not known. groups:
    as classes, for coarse groups of these.
    """

    main_metric: str
    judged: SplitName | None
    intervals: dict[str, dict[str, Interval]]
    per_cluster: dict[str, dict[str, float]]
    classes: dict[str, dict[str, dict[str, float]]]
    groups: dict[str, dict[str, dict[str, float]]]
    baselines: dict[str, Comparison]
    verdict: str
    calibration: Calibration | None
    calibration_checks: dict[str, CalibrationCheck]
    rare_positives: tuple[RarePositives, ...]
    thresholds: tuple[Threshold, ...]
    confusion: dict[str, Any] | None

    def to_json(self) -> dict[str, Any]:
        """As JSON-ready values."""
        document = asdict(self)
        checks = document.pop("calibration_checks")
        document["calibration"] = None
        if self.calibration is not None:
            document["calibration"] = self.calibration.to_json() | {
                "ece": {split: check["ece"] for split, check in checks.items()},
                "reliability": {split: check["reliability"] for split, check in checks.items()},
            }
        return document


def assess(
    dataset: Dataset,
    raw: Scores,
    calibration: Calibration | None,
    *,
    groups: Groups,
    baselines: Mapping[str, Baseline],
    generator: np.random.Generator,
) -> Assessment:
    """Judge a model by its scores of the held-out parts.

    raw: scores as the model gives them; everything but "before" in the calibration is said of the corrected ones.
    groups: of the classes of a multilabel target. The bootstrap draws clusters of proteins where the dataset has them,
    else proteins.
    """
    metric = main_metric(dataset.kind)
    scores = {split: correct(values, calibration) for split, values in raw.items()}
    judged: SplitName | None = "test" if "test" in scores else "val" if "val" in scores else None
    compared = dict(_compare(dataset, scores, judged, baselines, generator=generator))
    parts = {split: dataset.part(split) for split in scores}
    return Assessment(
        main_metric=metric,
        judged=judged,
        intervals={
            split: bootstrap_intervals(
                _statistic(part, scores[split]),
                part.member_groups(),
                generator=generator,
                num_replicates=num_replicates(len(part)),
            )
            for split, part in parts.items()
        },
        per_cluster=_per_cluster(dataset, scores),
        groups={
            split: measure_groups(_targets(part), scores[split], groups) for split, part in parts.items() if groups
        },
        classes={
            split: measure_classes(part.kind, _targets(part), scores[split], classes=part.classes)
            for split, part in parts.items()
            if part.kind in ("multiclass", "multilabel")
        },
        baselines=compared,
        verdict=_verdict(compared, parts, scores, judged),
        calibration=calibration,
        calibration_checks={}
        if calibration is None
        else {split: _check(part, raw[split], scores[split]) for split, part in parts.items()},
        rare_positives=_rare_positives(parts, scores, judged),
        thresholds=_thresholds(parts, scores),
        confusion=None if judged is None else _confusion(parts[judged], scores[judged]),
    )


def correct(scores: np.ndarray, calibration: Calibration | None) -> np.ndarray:
    """Calibrated probabilities; the scores themselves where there is no calibration."""
    return scores if calibration is None else calibration.apply(scores)


def num_replicates(num_examples: int) -> int:
    """Replicates of a bootstrap: 1,000, fewer where examples are so many that these would take minutes."""
    return int(np.clip(SCORES_DRAWN // max(1, num_examples), FEWEST_REPLICATES, MOST_REPLICATES))


def verdict(
    compared: Mapping[str, Comparison],
    metric: str,
    judged: SplitName | None,
    *,
    value: float | None = None,
    num_groups: int = 0,
    num_rarer: int | None = None,
) -> str:
    """One sentence on whether the language model adds anything to the best baseline of the judged part.

    value: the model's metric there, None where it is not defined; num_groups: what the bootstrap draws from;
    num_rarer: examples of the rarer answer, of a binary target.
    """
    if not compared or judged is None:
        return "Not compared with any baseline, so it is not known whether the language model adds anything."
    part = "test" if judged == "test" else "validation"
    reached = {name: row.metrics[judged][metric] for name, row in compared.items() if metric in row.metrics[judged]}
    known = {name: row.difference for name, row in compared.items() if row.difference is not None and name in reached}
    if value is None or not known:
        why = f"leaves {metric} undefined, for the model or for every baseline"
        if num_groups == 1:
            why = "is of one protein, or of one cluster of similar ones"
        return f"The {part} part {why}, so it is not known whether the language model adds anything."
    sign = 1 if higher_is_better(metric) else -1
    best = max(known, key=lambda name: sign * reached[name])
    difference = known[best]
    numbers = (
        f"{part} {metric} {value:.3f} against {reached[best]:.3f} of the best baseline, {best} "
        f"(difference {difference.estimate:+.3f}, {difference.confidence:.0%} interval {difference.low:+.3f} to "
        f"{difference.high:+.3f})"
    )
    if num_groups < FEWEST_GROUPS:
        return f"The {part} part has only {num_groups} proteins or clusters of them, {TOO_FEW}: {numbers}."
    if num_rarer is not None and num_rarer < FEWEST_ANSWERS:
        return f"The {part} part has only {num_rarer} examples of one of the two answers, {TOO_FEW}: {numbers}."
    low, high = sorted((sign * difference.low, sign * difference.high))
    if low > 0:
        return f"{ADDS}: {numbers}."
    if high < 0:
        return f"{IS_WORSE}: {numbers}."
    return f"{NOT_SHOWN}: {numbers}."


def _compare(
    dataset: Dataset,
    scores: Scores,
    judged: SplitName | None,
    baselines: Mapping[str, Baseline],
    *,
    generator: np.random.Generator,
) -> Iterable[tuple[str, Comparison]]:
    for name, baseline in baselines.items():
        own, drawing = generator.spawn(2)  # so that a baseline whose scores are known already changes no other number
        started = time.perf_counter()
        found = baseline(dataset, own)
        seconds = time.perf_counter() - started if found.seconds is None else found.seconds
        yield (
            name,
            Comparison(
                note=found.note,
                metrics={split: _measure(dataset.part(split), found.scores[split]) for split in scores},
                difference=_difference(dataset, scores, found, judged, generator=drawing),
                seconds=seconds,
                per_cluster=_per_cluster(dataset, {split: found.scores[split] for split in scores}),
            ),
        )


def _verdict(
    compared: Mapping[str, Comparison], parts: Mapping[SplitName, Dataset], scores: Scores, judged: SplitName | None
) -> str:
    if judged is None:
        return verdict(compared, "", None)
    part, metric = parts[judged], main_metric(parts[judged].kind)
    value = _measure(part, scores[judged]).get(metric)
    num_rarer = None
    if part.kind == "binary":
        num_positives = int((_targets(part) > 0.5).sum())
        num_rarer = min(num_positives, len(part) - num_positives)
    num_groups = num_independent(part.member_groups())
    return verdict(compared, metric, judged, value=value, num_groups=num_groups, num_rarer=num_rarer)


def _difference(
    dataset: Dataset,
    scores: Scores,
    found: BaselineScores,
    judged: SplitName | None,
    *,
    generator: np.random.Generator,
) -> Difference | None:
    """The model's main metric minus the baseline's; None where a metric is not defined, or nothing can be drawn.

    AUPR takes tied scores as one step, and a baseline that answers the same for all has the prevalence. In finite
    samples, and more so in replicates, the AUPR of a random order is above that: so the ties of a baseline are broken
    at random, and the interval is moved to the estimate.
    """
    if judged is None:
        return None
    part, metric, theirs = dataset.part(judged), main_metric(dataset.kind), found.scores[judged]
    reached = _measure(part, theirs).get(metric)
    if reached is None:
        return None
    is_tied = metric in ("aupr", "macro_aupr")
    if is_tied:
        theirs = _without_ties(theirs, generator)
    difference = paired_difference(
        _statistic(part, scores[judged]),
        _statistic(part, theirs),
        part.member_groups(),
        generator=generator,
        num_replicates=num_replicates(len(part)),
    ).get(metric)
    if difference is None or not is_tied:
        return difference
    estimate = _measure(part, scores[judged])[metric] - reached
    shift = estimate - difference.estimate
    return replace(difference, estimate=estimate, low=difference.low + shift, high=difference.high + shift)


def _without_ties(scores: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Ranks between 0 and 1 in place of scores (of each class), equal ones in random order."""
    by_class = scores.reshape(len(scores), -1)
    ranks = np.empty(by_class.shape)
    for column, values_N in enumerate(by_class.T):
        order = np.lexsort((generator.random(len(values_N)), values_N))
        ranks[order, column] = (np.arange(len(values_N)) + 0.5) / len(values_N)
    return ranks.reshape(scores.shape)


def _targets(part: Dataset) -> np.ndarray:
    assert part.targets is not None, "only labelled examples can be assessed"
    return part.targets


def measure_clusters(part: Dataset, scores: np.ndarray) -> dict[str, float]:
    """Metrics with one vote for each cluster, so that a large family of near copies counts as one."""
    votes_N = one_vote_per_group(part.member_groups())
    return measure(part.kind, _targets(part), scores, classes=part.classes, weights_N=votes_N)


def _per_cluster(dataset: Dataset, scores: Scores) -> dict[str, dict[str, float]]:
    if dataset.cluster_P is None:
        return {}
    return {split: measure_clusters(dataset.part(split), found) for split, found in scores.items()}


def _measure(part: Dataset, scores: np.ndarray) -> dict[str, float]:
    return measure(part.kind, _targets(part), scores, classes=part.classes)


def _statistic(part: Dataset, scores: np.ndarray):
    return statistic(part.kind, _targets(part), scores, classes=part.classes)


def _check(part: Dataset, raw: np.ndarray, corrected: np.ndarray) -> CalibrationCheck:
    curves = {
        name: _outcomes(part.kind, _targets(part), values)
        for name, values in (("before", raw.astype(np.float64)), ("after", corrected))
    }
    return CalibrationCheck(
        ece={name: calibration_error(*curve) for name, curve in curves.items()},
        reliability={name: reliability_curve(*curve) for name, curve in curves.items()},
    )


def _outcomes(kind: TargetKind, targets: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """1.0 where what a probability is of has happened, and the probabilities: of one class among several, that of the
    class that is named.
    """
    if kind == "multiclass":
        return (scores.argmax(axis=1) == targets).astype(np.float64), scores.max(axis=1)
    return (targets > 0.5).astype(np.float64).ravel(), scores.ravel()


def _is_two_sided(part: Dataset | None) -> bool:
    return part is not None and part.kind == "binary" and len(np.unique(_targets(part) > 0.5)) == 2


def _rare_positives(
    parts: Mapping[SplitName, Dataset], scores: Scores, judged: SplitName | None
) -> tuple[RarePositives, ...]:
    if judged is None or not _is_two_sided(parts[judged]):
        return ()
    return rare_positives_table(_targets(parts[judged]), scores[judged], threshold=0.5)


def _thresholds(parts: Mapping[SplitName, Dataset], scores: Scores) -> tuple[Threshold, ...]:
    """Chosen on validation, at the share of positives there; precisions out of reach are left out."""
    if not _is_two_sided(parts.get("val")):
        return ()
    truths_N, scores_N = _targets(parts["val"]) > 0.5, scores["val"]
    found = []
    for wanted in WANTED_PRECISIONS:
        threshold = threshold_for_precision(truths_N, scores_N, precision=wanted, prevalence=float(truths_N.mean()))
        if threshold is not None:
            found.append(Threshold(wanted, threshold, float((scores_N[truths_N] >= threshold).mean())))
    return tuple(found)


def _confusion(part: Dataset, scores: np.ndarray) -> dict[str, Any] | None:
    if part.kind not in ("binary", "multiclass"):
        return None
    said_N = scores.argmax(axis=1) if part.kind == "multiclass" else (scores >= 0.5).astype(np.int64)
    counts = confusion_matrix(_targets(part).astype(np.int64), said_N, num_classes=len(part.classes))
    return {"classes": list(part.classes), "counts": counts.astype(np.int64).tolist()}
