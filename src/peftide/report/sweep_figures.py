"""The charts of a sweep: every trial at its value of each varied setting, so that the spread is seen."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from peftide.evaluation.robustness import Effect, SweepResult, quarters, value_text
from peftide.report.charts import INK, MUTED, PAPER, SERIES, draw
from peftide.report.wording import metric_words

BLUE, ORANGE, GREY = SERIES
Group = tuple[np.ndarray, float, float]  # rows of trials, and from where to where the line of their median goes

PANELS_PER_ROW = 3
HALF_WIDTH = 0.3  # of a median's line, where the distance between two values is 1
DODGE = 0.18  # to either side, so that equal dots do not hide each other


def setting_charts(result: SweepResult) -> tuple[str, ...]:
    """A panel per varied setting, three beside each other: all trials, the median of each value, the best."""
    effects = result.effects
    rows = [effects[first : first + PANELS_PER_ROW] for first in range(0, len(effects), PANELS_PER_ROW)]
    return tuple(_row_of_panels(result, row, number) for number, row in enumerate(rows, start=1))


def _row_of_panels(result: SweepResult, effects: Sequence[Effect], number: int) -> str:
    shown = [trial for trial in result.trials if trial.value is not None]
    values_N = np.array([trial.value for trial in shown], dtype=np.float64)
    finished_N = np.array([trial.state == "finished" for trial in shown])
    best = shown.index(result.trials[result.best])
    margin = 0.06 * np.ptp(values_N) or 0.01

    def paint(axes: Sequence[Axes]) -> None:
        for axis, effect in zip(axes, effects, strict=True):
            place = _by_value if effect.scale == "listed" else _along_numbers
            position_N, groups = place(axis, [trial.values[effect.name] for trial in shown], finished_N)
            if effect.scale == "logarithmic":
                axis.set_xscale("log")
                axis.xaxis.set_major_formatter(StrMethodFormatter("{x:.4g}"))
                axis.xaxis.set_minor_formatter(NullFormatter())
            axis.plot(
                position_N[finished_N], values_N[finished_N], "o", color=BLUE, markersize=6, markeredgecolor=PAPER
            )
            axis.plot(position_N[~finished_N], values_N[~finished_N], "o", color="none", markeredgecolor=MUTED)
            axis.plot(position_N[best], values_N[best], "o", color=ORANGE, markersize=10, markeredgecolor=PAPER)
            for rows, left, right in groups:
                if finished_N[rows].any():
                    axis.hlines(np.median(values_N[rows][finished_N[rows]]), left, right, color=INK, linewidth=2)
            axis.set_ylim(values_N.min() - margin, values_N.max() + margin)
            axis.set_title(effect.name)
            axis.tick_params(axis="y", labelleft=axis is axes[0])
        axes[0].set_ylabel(f"validation {metric_words(result.metric)}")

    names = ", ".join(effect.name for effect in effects)
    described = f"Validation {metric_words(result.metric)} of {len(shown)} trials by {names}"
    widths = (1.0,) * len(effects)
    width = 3.4 * len(effects)
    return draw(paint, name=f"settings-{number}", description=described, width=width, height=3.4, panel_widths=widths)


def _along_numbers(axis: Axes, settings: Sequence[Any], finished_N: np.ndarray) -> tuple[np.ndarray, list[Group]]:
    """Each trial at its number; a group for each quarter of the finished trials, as in the table."""
    position_N, rows_F = np.array(settings, dtype=np.float64), np.flatnonzero(finished_N)
    quarter_F = quarters(position_N[rows_F].tolist())[1]
    groups = [rows_F[quarter_F == quarter] for quarter in range(quarter_F.max() + 1)]
    return position_N, [(rows, position_N[rows].min(), position_N[rows].max()) for rows in groups]


def _by_value(axis: Axes, settings: Sequence[Any], finished_N: np.ndarray) -> tuple[np.ndarray, list[Group]]:
    """Each trial above the name of its value, equal ones beside each other; a group per value."""
    are_numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in settings)
    different = sorted(set(settings)) if are_numbers else list(dict.fromkeys(settings))
    axis.set_xticks(range(len(different)), [value_text(value).replace("+", "\n+ ") for value in different])
    axis.set_xlim(-0.6, len(different) - 0.4)
    axis.grid(axis="x", visible=False)
    position_N, groups = np.zeros(len(settings)), []
    for level, wanted in enumerate(different):
        rows = np.flatnonzero([value == wanted for value in settings])
        position_N[rows] = level + (np.linspace(-DODGE, DODGE, len(rows)) if len(rows) > 1 else 0)
        groups.append((rows, level - HALF_WIDTH, level + HALF_WIDTH))
    return position_N, groups
