"""How sure a metric is: bootstrap over proteins or clusters, paired differences of two models, spread over seeds.

Pairs that share a protein are not independent, so proteins are drawn, not pairs: a replicate draws as many groups
(proteins, or clusters of similar ones) as there are, with replacement, and a pair counts as often as the product of
its two groups' draws; an example within one group counts as often as that group (the "pigeonhole" bootstrap, Owen
2007, on the nodes of a graph). Draws enter as weights, so scores are sorted only once.

Shapes: N examples, K members of an example (1 or 2), G groups, R replicates.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from peftide.evaluation.metrics import COUNTS, Statistic, higher_is_better

WITHOUT_INTERVAL = {*COUNTS, "ece"}


@dataclass(frozen=True)
class Interval:
    """A metric with its percentile interval; num_replicates counts those in which it was defined."""

    estimate: float
    low: float
    high: float
    confidence: float
    num_replicates: int


@dataclass(frozen=True)
class Difference:
    """Metric of model A minus that of B on the same examples, and how likely A is the better one.

    probability_a_is_better: share of the replicates in which A is better (a tie counts one half).
    """

    estimate: float
    low: float
    high: float
    confidence: float
    num_replicates: int
    probability_a_is_better: float


@dataclass(frozen=True)
class Spread:
    """A metric over several seeds; standard_deviation is the sample's (n - 1), None for a single seed."""

    mean: float
    standard_deviation: float | None
    lowest: float
    highest: float
    num_seeds: int


def bootstrap_intervals(
    statistic: Statistic,
    groups_NK: np.ndarray,
    *,
    generator: np.random.Generator,
    num_replicates: int = 1000,
    confidence: float = 0.95,
) -> dict[str, Interval]:
    """Percentile interval of every metric of `metrics.statistic(...)`.

    groups_NK: integer group of each member, e.g. `dataset.members_NK`, or `cluster_of_protein[dataset.members_NK]`.
    Metrics that the examples leave undefined are absent; all are where the examples are of one group alone, and from
    fewer than ten the interval is far too narrow.

    Coverage of nominal 95 % intervals of AUROC and AUPR in 200 simulated test sets (200 proteins, 2,000 pairs): 96 to
    98 % where proteins differ strongly in how well they are predicted (drawing pairs covers 64 to 80 % there), 99 to
    100 % where pairs are independent in truth: the interval is then 1.6 times as wide as needed, as a pair's draw
    varies three times as much. So it errs towards caution. The calibration error has no interval: noise can only
    raise it, so the replicates lie above the estimate.
    """
    estimates = _defined(statistic(None)) if can_draw(groups_NK) else {}
    drawn = [statistic(weights_N) for weights_N in replicate_weights(groups_NK, generator, num_replicates)]
    intervals = {}
    for name, estimate in estimates.items():
        values = _finite(np.array([replicate[name] for replicate in drawn]))
        if len(values):
            low, high = _percentiles(values, confidence)
            intervals[name] = Interval(estimate, low, high, confidence, len(values))
    return intervals


def paired_difference(
    statistic_a: Statistic,
    statistic_b: Statistic,
    groups_NK: np.ndarray,
    *,
    generator: np.random.Generator,
    num_replicates: int = 1000,
    confidence: float = 0.95,
) -> dict[str, Difference]:
    """Difference A - B of every metric, both models measured on the same examples (in the same order) and draws.

    A predictor that says the same of all has the prevalence for AUPR, and the AUPR of a random order is above that in
    finite samples: against such a B the difference comes out too high.
    """
    of_a, of_b = (_defined(found(None)) if can_draw(groups_NK) else {} for found in (statistic_a, statistic_b))
    drawn = [
        (statistic_a(weights_N), statistic_b(weights_N))
        for weights_N in replicate_weights(groups_NK, generator, num_replicates)
    ]
    differences = {}
    for name in (name for name in of_a if name in of_b):
        values = _finite(np.array([a[name] - b[name] for a, b in drawn]))
        if len(values):
            low, high = _percentiles(values, confidence)
            gains = values if higher_is_better(name) else -values
            better = float(np.mean((gains > 0) + 0.5 * (gains == 0)))
            estimate = of_a[name] - of_b[name]
            differences[name] = Difference(estimate, low, high, confidence, len(values), better)
    return differences


def spread_over_seeds(runs: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    """Mean and spread of each metric that every run has."""
    shared = [name for name in runs[0] if all(name in run for run in runs)]
    return {name: _spread([run[name] for run in runs]) for name in shared}


def replicate_weights(
    groups_NK: np.ndarray, generator: np.random.Generator, num_replicates: int
) -> Iterator[np.ndarray]:
    """How often each example counts in each replicate, (N,) float64; a replicate without any example is drawn again."""
    unique, members = np.unique(groups_NK, return_inverse=True)
    members_NK = members.reshape(groups_NK.shape)
    first_N, last_N = members_NK[:, 0], members_NK[:, -1]
    within_one_group = np.flatnonzero(first_N == last_N)
    num_groups = len(unique)
    for _ in range(num_replicates):
        weights_N = np.zeros(len(members_NK))
        while not weights_N.any():
            draws_G = np.bincount(generator.integers(num_groups, size=num_groups), minlength=num_groups).astype(float)
            weights_N = draws_G[first_N] * draws_G[last_N]
            weights_N[within_one_group] = draws_G[first_N[within_one_group]]
        yield weights_N


def can_draw(groups_NK: np.ndarray) -> bool:
    """Whether a draw can be another than the examples themselves."""
    return len(groups_NK) > 0 and bool((groups_NK != groups_NK.flat[0]).any())


def num_independent(groups_NK: np.ndarray) -> int:
    """How many groups there are to draw from; where those of the two sides of pairs are never the same, the fewer.

    A hundred partners of three antigens say of three antigens.
    """
    sides = [set(np.unique(column).tolist()) for column in groups_NK.T]
    if len(sides) == 2 and not sides[0] & sides[1]:
        return min(map(len, sides))
    return len(set().union(*sides))


def one_vote_per_group(groups_NK: np.ndarray) -> np.ndarray:
    """Weights by which every group (for pairs: every pair of groups, in either order) counts once, (N,) float64.

    With them, `metrics.measure` gives averages per cluster, which large families of near copies cannot dominate.
    """
    place_N, size = np.unique(np.sort(groups_NK, axis=1), axis=0, return_inverse=True, return_counts=True)[1:]
    return 1.0 / size[place_N.ravel()]


def _spread(values: list[float]) -> Spread:
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(float(np.mean(values)), deviation, min(values), max(values), len(values))


def _defined(values: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if value == value and name not in WITHOUT_INTERVAL}


def _finite(values_R: np.ndarray) -> np.ndarray:
    return values_R[np.isfinite(values_R)]


def _percentiles(values_R: np.ndarray, confidence: float) -> tuple[float, float]:
    low, high = np.quantile(values_R, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
