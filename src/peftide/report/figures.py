"""The charts of a run: training, comparison with baselines, ranking, calibration, values.

Shapes: N examples, G groups of tied scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from peftide.evaluation.ranking import average_precision, count, precisions, rank
from peftide.evaluation.reliability import ReliabilityBin
from peftide.report.charts import FULL_WIDTH, INK, MUTED, PAPER, SERIES, draw

BLUE, ORANGE, GREY = SERIES
MOST_CURVE_POINTS = 400
MOST_DOTS = 1500


@dataclass(frozen=True)
class Dot:
    """One row of a dot-and-whisker panel; low and high: its interval, where it has one."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class DotPanel:
    """One panel of dots: a dot, or None, for each row. line: a value to compare with, and what it is."""

    title: str
    dots: tuple[Dot | None, ...]
    line: tuple[float, str] | None = None


def dots_and_whiskers(
    names: Sequence[str],
    panels: Sequence[DotPanel],
    *,
    name: str,
    description: str,
    strong_rows: Sequence[int] = (),
) -> str:
    """Rows of dots with their intervals, the first row on top; strong rows in the first colour, the others grey."""

    def paint(axes: Sequence[Axes]) -> None:
        for axis, panel in zip(axes, panels, strict=True):
            _paint_dots(axis, panel, strong_rows=strong_rows)
            axis.set_yticks(range(len(names)), names)
            axis.set_ylim(len(names) - 0.4, -0.6)
            axis.grid(axis="y", visible=False)
            axis.tick_params(axis="y", length=0, labelleft=axis is axes[0])
            axis.spines["left"].set_visible(False)

    height = 1.0 + 0.32 * len(names)
    return draw(paint, name=name, description=description, height=height, panel_widths=(1.0,) * len(panels))


def _paint_dots(axis: Axes, panel: DotPanel, *, strong_rows: Sequence[int]) -> None:
    for row, dot in enumerate(panel.dots):
        if dot is not None:
            color = BLUE if row in strong_rows else GREY
            if dot.low is not None and dot.high is not None:
                axis.plot([dot.low, dot.high], [row, row], color=color, linewidth=2.4, solid_capstyle="round")
            axis.plot([dot.value], [row], "o", color=color, markersize=8, markeredgecolor=PAPER, markeredgewidth=1.2)
    if panel.line is not None:
        value, meaning = panel.line
        axis.axvline(value, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=0.5)
        axis.annotate(
            meaning, (value, 0), xycoords=("data", "axes fraction"), xytext=(4, 4), textcoords="offset points",
            color=MUTED, fontsize=8,
        )  # fmt: skip
    axis.margins(x=0.08)
    axis.set_title(panel.title)


def learning_curves(history: Sequence[dict[str, float]], *, metric: str | None, title: str, best_epoch: int) -> str:
    """Training loss and, beside it, the validation metric by epoch, with the best epoch marked."""
    epochs = [row["epoch"] for row in history]
    panels = [("loss", "Training loss", GREY)] + ([(metric, f"Validation {title}", BLUE)] if metric else [])

    def paint(axes: Sequence[Axes]) -> None:
        for axis, (key, heading, color) in zip(axes, panels, strict=True):
            axis.plot(epochs, [row[key] for row in history], "o-", color=color, markersize=4)
            axis.set_title(heading)
            axis.set_xlabel("epoch")
            axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            if best_epoch in epochs:
                best = history[epochs.index(best_epoch)][key]
                axis.axvline(best_epoch, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=0.5)
                axis.plot([best_epoch], [best], "o", color=ORANGE, markersize=8, markeredgecolor=PAPER)

    described = f"Training loss{f' and validation {title}' if metric else ''} by epoch; the best epoch is {best_epoch}"
    widths = (1.0,) * len(panels)
    return draw(
        paint,
        name="learning",
        description=described,
        width=FULL_WIDTH if metric else 5.2,
        height=2.9,
        panel_widths=widths,
    )


def ranking_curves(truths_N: np.ndarray, scores_N: np.ndarray) -> str:
    """Precision-recall and ROC curves of yes/no scores with both answers among the truths."""
    counts = count(rank(truths_N, scores_N))
    true_G, false_G = counts.true_positives_G, counts.false_positives_G
    recall_G, fall_out_G = true_G / true_G[-1], false_G / false_G[-1]
    kept = _evenly_spread(recall_G + fall_out_G)
    prevalence = float(truths_N.mean())

    def paint(axes: Sequence[Axes]) -> None:
        curve, roc = axes
        curve.step(
            np.append(0, recall_G[kept]), np.append(precisions(counts)[kept][0], precisions(counts)[kept]), color=BLUE
        )
        curve.axhline(prevalence, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        curve.annotate(
            f"random order ({prevalence:.3f})", (0.01, prevalence), xytext=(0, 4), textcoords="offset points",
            color=MUTED, fontsize=8,
        )  # fmt: skip
        curve.set(xlabel="recall: share of the positives found", ylabel="precision", xlim=(-0.01, 1.01), ylim=(0, 1.03))
        curve.set_title("Precision and recall")
        roc.plot(np.append(0, fall_out_G[kept]), np.append(0, recall_G[kept]), color=BLUE)
        roc.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        roc.set(
            xlabel="share of the negatives passed",
            ylabel="share of the positives found",
            xlim=(-0.01, 1.01),
            ylim=(0, 1.03),
        )
        roc.set_title("ROC")

    described = f"Precision-recall curve with area {average_precision(counts):.3f}, and ROC curve"
    return draw(paint, name="ranking", description=described, height=4.0, panel_widths=(1.0, 1.0))


def _evenly_spread(position_G: np.ndarray) -> np.ndarray:
    """At most some hundred points of a long curve, evenly spread along a rising position; the last one among them."""
    if len(position_G) <= MOST_CURVE_POINTS:
        return np.arange(len(position_G))
    wanted = np.linspace(position_G[0], position_G[-1], MOST_CURVE_POINTS)
    return np.unique(np.append(np.searchsorted(position_G, wanted), len(position_G) - 1))


def reliability(before: Sequence[ReliabilityBin], after: Sequence[ReliabilityBin]) -> str:
    """Promised against observed fractions before and after calibration, and how often each probability is given.

    One curve where calibration changed nothing.
    """
    curves = [(before, ORANGE, "before calibration"), (after, BLUE, "after calibration")]
    if before == after:
        curves = [(after, BLUE, "as predicted")]

    def paint(axes: Sequence[Axes]) -> None:
        curve, share = axes
        curve.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        for bins, color, label in curves:
            promised = [item.mean_probability for item in bins]
            total = sum(item.num_examples for item in bins)
            style = {"color": color, "markersize": 4, "label": label}
            curve.plot(promised, [item.observed_fraction for item in bins], "o-", **style)
            share.plot(promised, [item.num_examples / max(total, 1) for item in bins], "o-", **style)
        curve.set(xlabel="probability given", ylabel="share that is true", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        curve.set_title("Do probabilities come true?")
        curve.legend(loc="upper left")
        share.set(xlabel="probability given", ylabel="share of the examples", xlim=(-0.02, 1.02), ylim=(0, None))
        share.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        share.set_title("How often each is given")

    described = "Reliability curves before and after calibration, and how often each probability is given"
    return draw(paint, name="reliability", description=described, height=3.8, panel_widths=(1.0, 1.0))


def predicted_against_true(truths_N: np.ndarray, values_N: np.ndarray) -> str:
    """Scatter of predicted against true values with the line where both are equal, and the errors beside it."""
    shown = np.arange(len(truths_N))
    if len(shown) > MOST_DOTS:
        shown = np.sort(np.random.default_rng(0).choice(len(shown), MOST_DOTS, replace=False))
    ends = [min(truths_N.min(), values_N.min()), max(truths_N.max(), values_N.max())]

    def paint(axes: Sequence[Axes]) -> None:
        scatter, errors = axes
        scatter.plot(ends, ends, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        scatter.plot(truths_N[shown], values_N[shown], "o", color=BLUE, markersize=4, alpha=0.5, markeredgewidth=0)
        scatter.set(xlabel="true value", ylabel="predicted value")
        scatter.set_title("Predicted against true")
        errors.hist(values_N - truths_N, bins=min(30, max(5, len(truths_N) // 8)), color=BLUE, edgecolor=PAPER)
        errors.axvline(0, color=INK, linewidth=1)
        errors.set(xlabel="predicted minus true", ylabel="examples")
        errors.yaxis.set_major_locator(MaxNLocator(integer=True))
        errors.set_title("Errors")

    described = "Predicted against true values with the line of equality, and a histogram of the errors"
    return draw(paint, name="values", description=described, height=4.0, panel_widths=(1.0, 1.0))


def identity_bars(histograms: Sequence[tuple[str, dict[str, int]]]) -> str:
    """How similar the proteins of a split are to their nearest in another: one panel of bars for each comparison."""

    def paint(axes: Sequence[Axes]) -> None:
        for axis, (title, counts) in zip(axes, histograms, strict=True):
            total = max(sum(counts.values()), 1)
            axis.barh(range(len(counts)), [number / total for number in counts.values()], color=BLUE, height=0.7)
            axis.set_yticks(range(len(counts)), list(counts))
            axis.tick_params(axis="y", length=0, labelleft=axis is axes[0])
            axis.grid(axis="y", visible=False)
            axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            axis.set_title(title)
            for row, number in enumerate(counts.values()):
                axis.annotate(
                    f"{number:,}", (number / total, row), xytext=(4, 0), textcoords="offset points",
                    va="center", color=MUTED, fontsize=8,
                )  # fmt: skip
            axis.margins(x=0.14)

    described = "Proteins by their identity to the most similar one in another split"
    return draw(paint, name="identity", description=described, height=2.7, panel_widths=(1.0,) * len(histograms))
