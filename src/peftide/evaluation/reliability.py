"""Do probabilities mean what they say: reliability curve, calibration error, Brier score, log loss.

Shapes: N examples, C classes.
"""

from dataclasses import dataclass

import numpy as np

NUM_BINS = 15
SMALLEST_PROBABILITY = 1e-7  # float32 cannot tell 1 - 1e-8 from 1, and the log loss of a certain error is infinite


@dataclass(frozen=True)
class ReliabilityBin:
    """One step of a reliability curve: what was promised and what came true among `num_examples`."""

    mean_probability: float
    observed_fraction: float
    num_examples: int


def clip_probabilities(probabilities: np.ndarray) -> np.ndarray:
    """Probabilities in float64 kept 1e-7 away from 0 and 1."""
    return np.clip(probabilities.astype(np.float64), SMALLEST_PROBABILITY, 1.0 - SMALLEST_PROBABILITY)


def bins_of(probabilities_N: np.ndarray, num_bins: int = NUM_BINS) -> np.ndarray:
    """Number of the equal-width bin of each probability, (N,) int64."""
    return np.minimum((probabilities_N * num_bins).astype(np.int64), num_bins - 1)


def reliability_curve(
    outcomes_N: np.ndarray, probabilities_N: np.ndarray, *, num_bins: int = NUM_BINS
) -> tuple[ReliabilityBin, ...]:
    """Promised against observed fraction in equal-width bins of the probability; empty bins are left out."""
    bins_N = bins_of(probabilities_N, num_bins)
    counts = np.bincount(bins_N, minlength=num_bins)
    promised = np.bincount(bins_N, weights=probabilities_N, minlength=num_bins)
    observed = np.bincount(bins_N, weights=outcomes_N, minlength=num_bins)
    return tuple(
        ReliabilityBin(float(promised[b] / counts[b]), float(observed[b] / counts[b]), int(counts[b]))
        for b in np.flatnonzero(counts)
    )


def calibration_error(
    outcomes_N: np.ndarray, probabilities_N: np.ndarray, *, weights_N: np.ndarray | None = None
) -> float:
    """Expected calibration error: mean over examples of |promised - observed| of their bin (15 of equal width).

    Naeini et al. 2015, for the probability of the outcome itself (not of the likelier class).
    """
    gaps_N = (probabilities_N - outcomes_N) * (1.0 if weights_N is None else weights_N)
    total = len(outcomes_N) if weights_N is None else weights_N.sum()
    return float(np.abs(np.bincount(bins_of(probabilities_N), weights=gaps_N)).sum() / total)


def binary_log_losses(outcomes: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Log loss in nats of each yes/no answer, in the shape of the input."""
    clipped = clip_probabilities(probabilities)
    return -np.where(outcomes > 0.5, np.log(clipped), np.log1p(-clipped))


def multiclass_log_losses(classes_N: np.ndarray, probabilities_NC: np.ndarray) -> np.ndarray:
    """Log loss in nats of each example, (N,)."""
    chosen_N = np.take_along_axis(probabilities_NC, classes_N[:, None], axis=1)[:, 0]
    return -np.log(clip_probabilities(chosen_N))
