"""Metrics of an order: examples sorted once by score, then counted with any weights.

Shapes: N examples, G groups of tied scores (from the highest score to the lowest).
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ranking:
    """Examples of a yes/no question by falling score; tied scores form one group, so their order cannot matter.

    order_N: rows from the highest to the lowest score. positive_N: 1.0 or 0.0, in that order.
    end_G: position in that order of the last example of each group. threshold_G: the score of each group.
    """

    order_N: np.ndarray
    positive_N: np.ndarray
    end_G: np.ndarray
    threshold_G: np.ndarray


@dataclass(frozen=True)
class RankCounts:
    """Weighted positives and negatives among the examples that score at least as high as each group."""

    true_positives_G: np.ndarray
    false_positives_G: np.ndarray

    @property
    def is_two_sided(self) -> bool:
        """Whether there is a positive and a negative at all; without both, no order can be right or wrong."""
        return bool(self.true_positives_G[-1] > 0 and self.false_positives_G[-1] > 0)


def rank(positive_N: np.ndarray, scores_N: np.ndarray) -> Ranking:
    """Sort examples by falling score. `positive_N` is boolean or 0/1."""
    order_N = np.argsort(-scores_N, kind="stable")
    sorted_N = scores_N[order_N]
    end_G = np.append(np.flatnonzero(np.diff(sorted_N)), len(sorted_N) - 1)
    return Ranking(order_N, positive_N[order_N].astype(np.float64), end_G, sorted_N[end_G])


def count(ranking: Ranking, weights_N: np.ndarray | None = None) -> RankCounts:
    """Count down the ranking; every example counts once without weights."""
    if weights_N is None:
        positives_N = np.cumsum(ranking.positive_N)
        all_N = np.arange(1.0, len(positives_N) + 1.0)
    else:
        sorted_N = weights_N[ranking.order_N].astype(np.float64)
        positives_N = np.cumsum(sorted_N * ranking.positive_N)
        all_N = np.cumsum(sorted_N)
    true_positives_G = positives_N[ranking.end_G]
    return RankCounts(true_positives_G, np.maximum(all_N[ranking.end_G] - true_positives_G, 0.0))


def precisions(counts: RankCounts) -> np.ndarray:
    """Precision of the examples down to each group, (G,); 0 where they weigh nothing."""
    chosen_G = counts.true_positives_G + counts.false_positives_G
    return np.divide(counts.true_positives_G, chosen_G, out=np.zeros_like(chosen_G), where=chosen_G > 0)


def average_precision(counts: RankCounts) -> float:
    """Area under the precision-recall steps, sum of (R_k - R_(k-1)) P_k; NaN unless both kinds are present."""
    if not counts.is_two_sided:
        return float("nan")
    gained_G = np.diff(counts.true_positives_G, prepend=0.0)
    return float(gained_G @ precisions(counts) / counts.true_positives_G[-1])


def area_under_roc(counts: RankCounts) -> float:
    """Chance that a positive outranks a negative, a tie counting one half; NaN unless both kinds are present."""
    if not counts.is_two_sided:
        return float("nan")
    true_G, false_G = counts.true_positives_G, counts.false_positives_G
    before_G = np.concatenate(([0.0], true_G[:-1]))
    area = np.diff(false_G, prepend=0.0) @ (before_G + true_G) / 2
    return float(area / (true_G[-1] * false_G[-1]))


def precision_at_recall(counts: RankCounts, recall: float) -> float:
    """Precision of the shortest list from the top that holds at least `recall` of the positives.

    The list is chosen by its recall alone: taking the best precision beyond it would flatter the model.
    """
    if not counts.is_two_sided:
        return float("nan")
    needed = recall * counts.true_positives_G[-1]
    group = int(np.searchsorted(counts.true_positives_G, needed - 1e-9 * needed))
    return float(precisions(counts)[group])
