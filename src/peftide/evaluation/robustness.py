"""What many trials with different settings tell: how far the result is spread, and which settings spread it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from peftide.evaluation.metrics import higher_is_better

Scale = Literal["listed", "linear", "logarithmic"]


@dataclass(frozen=True)
class Trial:
    """One combination of settings, trained on the training part and measured on validation.

    values: of the varied settings, lists as text. value: the metric of the best epoch (so far, where it was ended
    early); None where the trial failed, and reason says why. history: see `training.loop.Fit`.
    """

    values: Mapping[str, object]
    state: Literal["finished", "pruned", "failed"]
    value: float | None = None
    reason: str | None = None
    best_epoch: int = 0
    history: tuple[dict[str, float], ...] = field(default=(), repr=False)
    trained_parameters: int | None = None
    peak_memory_bytes: int | None = None
    seconds: float | None = None

    def __str__(self) -> str:
        return ", ".join(f"{name}={value_text(value)}" for name, value in self.values.items())


@dataclass(frozen=True)
class Level:
    """One value of a setting (or a span of values), and the median metric of its finished trials."""

    label: str
    num_trials: int
    median: float


@dataclass(frozen=True)
class Effect:
    """How much one setting matters.

    scale: listed, or varied between two ends on this scale; then the levels are quarters of the trials in its order.
    range_share: distance of the highest from the lowest median of its levels, as a share of the distance of the best
    from the worst trial. variance_share: variance between its levels as a share of the variance of all trials (eta
    squared); over a full grid the shares of all settings and of their interplay add up to 1.
    """

    name: str
    scale: Scale
    levels: tuple[Level, ...]
    range_share: float
    variance_share: float


@dataclass(frozen=True)
class SweepResult:
    """Everything that a sweep found; best: number of the best finished trial among `trials`."""

    metric: str
    trials: tuple[Trial, ...]
    best: int
    effects: tuple[Effect, ...]
    verdict: tuple[str, ...]


def conclude(trials: Sequence[Trial], varied: Mapping[str, Scale], metric: str) -> SweepResult:
    """The best trial, the effect of each varied setting, and what follows in words; at least one trial has finished.

    varied: the names of the settings, and how each was varied.
    """
    sign = 1 if higher_is_better(metric) else -1
    finished = [number for number, trial in enumerate(trials) if trial.state == "finished"]
    best = _best(trials, finished, sign)
    effects = effects_of([trials[number] for number in finished], varied)
    return SweepResult(metric, tuple(trials), best, effects, _tell(trials, trials[best], effects, metric))


def _best(trials: Sequence[Trial], finished: Sequence[int], sign: int) -> int:
    """The number of the best trial; where seeds are varied, the first of the settings with the best mean over them.

    The best single trial of several seeds is the luckiest. Settings that lack a seed do not count.
    """
    alike: dict[str, list[int]] = {}
    for number in finished:
        alike.setdefault(_but_seed(trials[number]), []).append(number)
    most = max(map(len, alike.values()))
    whole = [numbers for numbers in alike.values() if len(numbers) == most]
    return max(whole, key=lambda numbers: sign * float(np.mean([_value(trials[number]) for number in numbers])))[0]


def without_seed(trial: Trial) -> Trial:
    """The trial without its seed, where that is varied."""
    return replace(trial, values={name: value for name, value in trial.values.items() if name != "seed"})


def effects_of(finished: Sequence[Trial], varied: Mapping[str, Scale]) -> tuple[Effect, ...]:
    """The effect of each setting on the metric of the finished trials."""
    values_N = np.array([_value(trial) for trial in finished])
    return tuple(
        _effect(name, scale, [trial.values[name] for trial in finished], values_N) for name, scale in varied.items()
    )


def _effect(name: str, scale: Scale, settings: Sequence[Any], values_N: np.ndarray) -> Effect:
    labels, level_N = _levels(settings) if scale == "listed" else quarters(settings)
    groups = [values_N[level_N == number] for number in range(len(labels))]
    medians = [float(np.median(group)) for group in groups]
    spread, variance = np.ptp(values_N), values_N.var()
    between = sum(len(group) * (group.mean() - values_N.mean()) ** 2 for group in groups) / len(values_N)
    return Effect(
        name,
        scale,
        tuple(Level(label, len(group), median) for label, group, median in zip(labels, groups, medians, strict=True)),
        range_share=float((max(medians) - min(medians)) / spread) if spread > 0 else 0.0,
        variance_share=float(between / variance) if variance > 0 else 0.0,
    )


def _levels(settings: Sequence[Any]) -> tuple[list[str], np.ndarray]:
    """The values of a setting, numbers in their order, and which of them (N,) each trial has."""
    are_numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in settings)
    different = sorted(set(settings)) if are_numbers else list(dict.fromkeys(settings))
    return [value_text(value) for value in different], np.array([different.index(value) for value in settings])


def quarters(settings: Sequence[Any]) -> tuple[list[str], np.ndarray]:
    """Quarters of the trials by a number, and in which of them (N,) each trial is; equal numbers are in one."""
    numbers_N = np.array(settings, dtype=np.float64)
    edges = np.quantile(numbers_N, [0.25, 0.5, 0.75])
    quarter_N = np.unique(np.searchsorted(edges, numbers_N, side="right"), return_inverse=True)[1]
    spans = [numbers_N[quarter_N == quarter] for quarter in range(quarter_N.max() + 1)]
    ends = [(f"{span.min():.3g}", f"{span.max():.3g}") for span in spans]
    return [low if low == high else f"{low} to {high}" for low, high in ends], quarter_N


def value_text(value: object) -> str:
    """A value of a setting as it is told."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _tell(trials: Sequence[Trial], best: Trial, effects: Sequence[Effect], metric: str) -> tuple[str, ...]:
    values = [_value(trial) for trial in trials if trial.state == "finished"]
    quarter, half, three_quarters = np.quantile(values, [0.25, 0.5, 0.75])
    alike = [trial for trial in trials if trial.state == "finished" and _but_seed(trial) == _but_seed(best)]
    reached = f"Best validation {metric}: {_value(best):.4f}, with {best}."
    if len(alike) > 1:
        mean = float(np.mean([_value(trial) for trial in alike]))
        reached = f"Best validation {metric}: {mean:.4f}, the mean of {len(alike)} seeds, with {without_seed(best)}."
    said = [
        reached,
        f"{len(values)} trials from {min(values):.4f} to {max(values):.4f}, median {half:.4f}; half of them between "
        f"{quarter:.4f} and {three_quarters:.4f}.",
    ]
    telling = [effect for effect in effects if any(level.num_trials > 1 for level in effect.levels)]
    for effect in sorted(telling, key=lambda effect: -effect.range_share):
        ordered = sorted(effect.levels, key=lambda level: level.median)
        low, high = ordered[0], ordered[-1]
        said.append(
            f"{effect.name} explains {effect.range_share:.0%} of that range: the median is {low.median:.4f} at "
            f"{low.label} and {high.median:.4f} at {high.label} ({effect.variance_share:.0%} of the variance)."
        )
    for state, words in (("pruned", "were ended early, as they fell behind"), ("failed", "failed")):
        if number := sum(trial.state == state for trial in trials):
            said.append(f"{number} of {len(trials)} trials {words}.")
    return tuple(said)


def _but_seed(trial: Trial) -> str:
    """The settings of a trial but the seed, to the last digit, which `str(trial)` does not tell."""
    return repr(sorted(without_seed(trial).values.items()))


def _value(trial: Trial) -> float:
    assert trial.value is not None, "a trial that failed has no value"
    return trial.value
