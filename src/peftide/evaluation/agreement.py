"""Agreement of predicted and measured numbers, in order and in size.

Shapes: N examples, G groups of equal values.
"""

import numpy as np

NOT_DEFINED = float("nan")


def tie_groups(values_N: np.ndarray) -> np.ndarray:
    """Number of each value among the sorted distinct values, (N,) int64; equal values share it."""
    return np.unique(values_N, return_inverse=True)[1]


def weighted_ranks(group_N: np.ndarray, weights_N: np.ndarray) -> np.ndarray:
    """Mean rank of each value in the sample where example n occurs weights_N[n] times, up to a constant."""
    weights_G = np.bincount(group_N, weights=weights_N)
    return (np.cumsum(weights_G) - weights_G / 2)[group_N]


def spearman(target_group_N: np.ndarray, score_group_N: np.ndarray, weights_N: np.ndarray) -> float:
    """Weighted rank correlation of values given by their `tie_groups`; the rules of `pearson` hold."""
    return pearson(weighted_ranks(target_group_N, weights_N), weighted_ranks(score_group_N, weights_N), weights_N)


def pearson(targets_N: np.ndarray, scores_N: np.ndarray, weights_N: np.ndarray) -> float:
    """Weighted linear correlation: 0 for equal scores (they carry no order), NaN for equal targets."""
    if not is_varied(targets_N, weights_N):
        return NOT_DEFINED
    if not is_varied(scores_N, weights_N):
        return 0.0
    x_N = targets_N - np.average(targets_N, weights=weights_N)
    y_N = scores_N - np.average(scores_N, weights=weights_N)
    # scaled first, so that the squares of tiny or huge numbers neither vanish nor overflow
    x_N, y_N = x_N / np.abs(x_N).max(), y_N / np.abs(y_N).max()
    covariance = weights_N @ (x_N * y_N)
    return float(np.clip(covariance / np.sqrt((weights_N @ x_N**2) * (weights_N @ y_N**2)), -1.0, 1.0))


def error_metrics(targets_N: np.ndarray, scores_N: np.ndarray, weights_N: np.ndarray) -> dict[str, float]:
    """RMSE and MAE (in the target's unit) and R2, all weighted; equal targets have no R2 (NaN)."""
    errors_N = scores_N - targets_N
    mean_square = float(np.average(errors_N**2, weights=weights_N))
    centre = np.average(targets_N, weights=weights_N)
    variance = float(np.average((targets_N - centre) ** 2, weights=weights_N))
    return {
        "rmse": mean_square**0.5,
        "mae": float(np.average(np.abs(errors_N), weights=weights_N)),
        "r2": 1.0 - mean_square / variance if variance > 0 else NOT_DEFINED,
    }


def is_varied(values_N: np.ndarray, weights_N: np.ndarray) -> bool:
    """Whether at least two different values carry weight."""
    counted = values_N[weights_N > 0]
    return len(counted) > 0 and bool(counted.min() < counted.max())
