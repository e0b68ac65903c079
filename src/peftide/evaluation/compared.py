"""Several methods on the same test examples: each with several seeds, and all against the best.

A method's seeds are told as mean and spread. For what the test set allows to say, the scores of its seeds are averaged,
example by example, and this one set of scores is bootstrapped, alone and paired with that of the best method: then the
interval is about the test proteins and the spread about the seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from peftide.errors import UserError
from peftide.evaluation.assessment import FEWEST_GROUPS, num_replicates
from peftide.evaluation.intervals import (
    Difference,
    Interval,
    Spread,
    bootstrap_intervals,
    can_draw,
    paired_difference,
    spread_over_seeds,
)
from peftide.evaluation.metrics import Statistic, higher_is_better, measure, statistic
from peftide.records import Dataset


@dataclass(frozen=True)
class Variant:
    """What is compared: a method on a backbone."""

    backbone: str
    method: str

    def __str__(self) -> str:
        return f"{self.method} on {self.backbone}"


@dataclass(frozen=True)
class Cost:
    """What one run took.

    weights_bytes: of the trained weights on disk, which is what tells methods apart; bundle_bytes: of the whole folder,
    predictions and report included.
    """

    trained_parameters: int
    peak_memory_bytes: float
    seconds: float
    weights_bytes: int
    bundle_bytes: int


@dataclass(frozen=True)
class SeedRun:
    """One training run. reason: why it came to nothing; then it has neither metrics (by split) nor cost."""

    variant: Variant
    seed: int
    folder: str
    reason: str | None = None
    metrics: dict[str, dict[str, float]] | None = None
    cost: Cost | None = None


@dataclass(frozen=True)
class MethodSummary:
    """All finished seeds of a variant.

    spreads: by split and metric. averaged: the compared metric of the scores averaged over the seeds, on the test part.
    cost: the largest of the runs; the first one fills the cache and takes longer. difference: this one's averaged
    scores minus those of the best, with an interval for as many comparisons as there are (Bonferroni): the best is
    chosen by the same examples, and one of several equal methods would often seem to be behind it.
    """

    variant: Variant
    seeds: tuple[int, ...]
    spreads: dict[str, dict[str, Spread]]
    averaged: Interval
    cost: Cost
    difference: Difference | None


@dataclass(frozen=True)
class MethodComparison:
    """Everything that a comparison found.

    baselines: the compared metric of predictors that know no language model, on the same test examples, by name.
    verdict: what follows, in sentences.
    """

    metric: str
    runs: tuple[SeedRun, ...]
    methods: tuple[MethodSummary, ...]
    baselines: dict[str, float]
    verdict: tuple[str, ...]


def check_measurable(test: Dataset, metric: str) -> None:
    """Raise UserError where the test part cannot tell methods apart by this metric."""
    if len(test) == 0:
        raise UserError("there are no test examples, on which methods are compared; mark some rows with test")
    assert test.targets is not None
    shape = (len(test), len(test.classes)) if test.kind in ("multiclass", "multilabel") else (len(test),)
    if not can_draw(test.member_groups()):
        raise UserError(
            "all test examples are of one protein, or of one cluster of similar ones, so nothing can be drawn to tell "
            "methods apart; mark examples of other proteins with test"
        )
    known = measure(test.kind, test.targets, np.full(shape, 0.5), classes=test.classes)
    if metric not in known:
        raise UserError(
            f"metric {metric} is not defined on the {len(test)} test examples; give more, or another --metric"
        )


def summarise(
    test: Dataset,
    runs: Sequence[SeedRun],
    scores: Mapping[tuple[Variant, int], np.ndarray],
    *,
    metric: str,
    groups_NK: np.ndarray,
    seed: int,
) -> tuple[MethodSummary, ...]:
    """A summary of each variant with a finished run, in the order of the runs.

    scores: of the test examples, by variant and seed. groups_NK: see `bootstrap_intervals`. seed: of the bootstraps,
    which all draw the same proteins.
    """
    done: dict[Variant, list[SeedRun]] = {}
    for run in runs:
        if run.reason is None:
            done.setdefault(run.variant, []).append(run)
    averages = {
        variant: np.mean([scores[variant, run.seed] for run in found], axis=0) for variant, found in done.items()
    }
    statistics = {variant: _statistic(test, average) for variant, average in averages.items()}
    reached = {variant: measured(None)[metric] for variant, measured in statistics.items()}
    best = max(reached, key=lambda variant: reached[variant] if higher_is_better(metric) else -reached[variant])
    replicates = num_replicates(len(test))

    def against_best(variant: Variant) -> Difference | None:
        if variant == best:
            return None
        return paired_difference(
            statistics[variant],
            statistics[best],
            groups_NK,
            generator=np.random.default_rng(seed),
            num_replicates=replicates,
            confidence=1 - 0.05 / (len(done) - 1),
        )[metric]

    return tuple(
        MethodSummary(
            variant=variant,
            seeds=tuple(run.seed for run in found),
            spreads=_spreads(found),
            averaged=bootstrap_intervals(
                statistics[variant], groups_NK, generator=np.random.default_rng(seed), num_replicates=replicates
            )[metric],
            cost=_largest_cost(found),
            difference=against_best(variant),
        )
        for variant, found in done.items()
    )


def best_of(methods: Sequence[MethodSummary]) -> MethodSummary:
    """The one that the others are compared with: its averaged scores are the best on the test part."""
    return next(method for method in methods if method.difference is None)


def chosen_of(methods: Sequence[MethodSummary], metric: str) -> MethodSummary:
    """The one to choose without a look at the test part: the best mean on validation."""
    sign = 1 if higher_is_better(metric) else -1
    return max(methods, key=lambda method: sign * method.spreads["val"][metric].mean)


def tell(methods: Sequence[MethodSummary], baselines: Mapping[str, float], metric: str) -> tuple[str, ...]:
    """What the summaries say, in sentences."""
    best, chosen = best_of(methods), chosen_of(methods, metric)
    interval = best.averaged
    said = [
        f"Best on the test part: {best.variant}, {metric} {interval.estimate:.3f} ({interval.confidence:.0%} interval "
        f"{interval.low:.3f} to {interval.high:.3f}), the scores of {_seeds(best)}."
    ]
    for method in methods:
        if (difference := method.difference) is not None:
            span = f"{difference.estimate:+.3f} ({difference.confidence:.1%} interval {difference.low:+.3f} to "
            span += f"{difference.high:+.3f})"
            is_behind = difference.low > 0 or difference.high < 0
            what = "behind it" if is_behind else "not to be told apart from it on this test part"
            said.append(f"{method.variant}: {span}, {what}.")
    said.append(
        "Validation alone would choose the same."
        if chosen == best
        else f"Validation alone would choose {chosen.variant}; the best on the test part was found by looking at it."
    )
    if baselines:
        sign = 1 if higher_is_better(metric) else -1
        name = max(baselines, key=lambda name: sign * baselines[name])
        said.append(f"The best predictor without a language model, {name}, reaches {metric} {baselines[name]:.3f}.")
    return tuple(said)


def remark_on_groups(num_groups: int) -> tuple[str, ...]:
    """What there is to say where the test part has few proteins or clusters to draw from."""
    if num_groups >= FEWEST_GROUPS:
        return ()
    said = f"The test part has only {num_groups} proteins or clusters: its intervals are far too narrow to rely on."
    return (said,)


def _seeds(method: MethodSummary) -> str:
    return f"its {len(method.seeds)} seeds averaged" if len(method.seeds) > 1 else "its single seed"


def _statistic(test: Dataset, scores: np.ndarray) -> Statistic:
    assert test.targets is not None
    return statistic(test.kind, test.targets, scores, classes=test.classes)


def _spreads(runs: Sequence[SeedRun]) -> dict[str, dict[str, Spread]]:
    tables = [run.metrics for run in runs if run.metrics is not None]
    return {split: spread_over_seeds([table[split] for table in tables]) for split in tables[0]}


def _largest_cost(runs: Sequence[SeedRun]) -> Cost:
    costs = [run.cost for run in runs if run.cost is not None]
    return Cost(
        trained_parameters=max(cost.trained_parameters for cost in costs),
        peak_memory_bytes=max(cost.peak_memory_bytes for cost in costs),
        seconds=max(cost.seconds for cost in costs),
        weights_bytes=max(cost.weights_bytes for cost in costs),
        bundle_bytes=max(cost.bundle_bytes for cost in costs),
    )
