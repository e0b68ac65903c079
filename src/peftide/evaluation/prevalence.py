"""What a binary predictor is worth where positives are rare: precision at real prevalences, thresholds for it.

A test set of one negative per positive says little of a screen with a thousand. The share of positives that pass a
threshold (recall) and the share of negatives that pass it stay the same when only the prevalence changes; precision
follows from both (Bayes).
"""

from dataclasses import dataclass

import numpy as np

from peftide.evaluation.ranking import count, rank

NEGATIVES_PER_POSITIVE = (10, 100, 1000)


@dataclass(frozen=True)
class RarePositives:
    """What a threshold gives among `negatives_per_positive` negatives per positive."""

    negatives_per_positive: int
    threshold: float
    precision: float
    recall: float


def precision_at_prevalence(
    targets_N: np.ndarray, scores_N: np.ndarray, *, threshold: float, prevalence: float
) -> float | None:
    """Precision of scores at or above `threshold` where a fraction `prevalence` (0 to 1) is positive.

    The share of negatives that pass is taken as (passed + 1) / (negatives + 1): that none of twenty passed does not
    show that none of a thousand will. None when no example passes; NaN never. Raises AssertionError unless both answers
    occur.
    """
    said_N, truths_N = scores_N >= threshold, targets_N > 0.5
    assert truths_N.any(), "precision needs a positive example"
    assert not truths_N.all(), "precision needs a negative example"
    found = said_N[truths_N].mean() * prevalence
    false = (said_N[~truths_N].sum() + 1) / ((~truths_N).sum() + 1) * (1 - prevalence)
    return float(found / (found + false)) if said_N.any() else None


def threshold_for_precision(
    targets_N: np.ndarray, scores_N: np.ndarray, *, precision: float, prevalence: float
) -> float | None:
    """The lowest threshold whose precision at `prevalence` is at least the one wanted; None when none reaches it.

    Choose it on validation. The share of negatives that pass is taken as in `precision_at_prevalence`.
    """
    ranking = rank(targets_N > 0.5, scores_N)
    counts = count(ranking)
    assert counts.is_two_sided, "a threshold needs positive and negative examples"
    true_G, false_G = counts.true_positives_G, counts.false_positives_G
    found_G = true_G / true_G[-1] * prevalence
    wrong_G = (false_G + 1) / (false_G[-1] + 1) * (1 - prevalence)
    reached = np.flatnonzero(found_G >= precision * (found_G + wrong_G))
    return float(ranking.threshold_G[reached[-1]]) if len(reached) else None


def rare_positives_table(targets_N: np.ndarray, scores_N: np.ndarray, *, threshold: float) -> tuple[RarePositives, ...]:
    """Precision and recall of one threshold at 1:10, 1:100 and 1:1000; empty when nothing passes it."""
    recall = float((scores_N[targets_N > 0.5] >= threshold).mean())
    rows = []
    for negatives in NEGATIVES_PER_POSITIVE:
        precision = precision_at_prevalence(targets_N, scores_N, threshold=threshold, prevalence=1 / (1 + negatives))
        if precision is not None:
            rows.append(RarePositives(negatives, threshold, precision, recall))
    return tuple(rows)
