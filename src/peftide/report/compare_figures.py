"""The charts of a comparison: quality with intervals and single seeds, and what each method costs."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from peftide.evaluation.compared import MethodComparison
from peftide.report.charts import INK, PAPER, SERIES, draw
from peftide.report.wording import metric_words, predictor_words

BLUE, ORANGE, GREY = SERIES
SEEDS_BELOW = 0.24  # of the distance between two rows: single seeds stand below their average


def quality_chart(comparison: MethodComparison, names: Sequence[str]) -> str:
    """Averaged scores with their intervals, single seeds below them, baselines in grey; names: of the methods."""
    metric = comparison.metric
    rows = [*names, *(predictor_words(name) for name in comparison.baselines)]

    def paint(axes: Sequence[Axes]) -> None:
        (axis,) = axes
        for row, method in enumerate(comparison.methods):
            found = method.averaged
            axis.plot([found.low, found.high], [row, row], color=BLUE, linewidth=2.4, solid_capstyle="round")
            axis.plot([found.estimate], [row], "o", color=BLUE, markersize=9, markeredgecolor=PAPER)
            runs = [run.metrics for run in comparison.runs if run.variant == method.variant and run.metrics is not None]
            seeds = [metrics["test"][metric] for metrics in runs]
            axis.plot(seeds, [row + SEEDS_BELOW] * len(seeds), "o", color=ORANGE, markersize=6, markeredgecolor=PAPER)
        first = len(comparison.methods)
        values = list(comparison.baselines.values())
        axis.plot(values, range(first, first + len(values)), "o", color=GREY, markersize=8, markeredgecolor=PAPER)
        axis.set_title(f"{metric_words(metric)} on the test part")
        _name_rows(axis, rows)

    described = f"{metric_words(metric)} on the test part of {', '.join(rows)}"
    return draw(paint, name="quality", description=described, height=1.0 + 0.42 * len(rows))


def cost_chart(comparison: MethodComparison, names: Sequence[str]) -> str:
    """Trained parameters, memory, time and size on disk of each method, on logarithmic scales."""
    costs = [method.cost for method in comparison.methods]
    panels = (
        ("Trained parameters", [cost.trained_parameters for cost in costs]),
        ("Peak memory, MiB", [cost.peak_memory_bytes / 2**20 for cost in costs]),
        ("Seconds of a run", [cost.seconds for cost in costs]),
        ("Weights on disk, kB", [cost.weights_bytes / 1000 for cost in costs]),
    )

    def paint(axes: Sequence[Axes]) -> None:
        for axis, (title, values) in zip(axes, panels, strict=True):
            axis.set_xscale("log")
            axis.set_xlim(min(values) / 2, max(values) * 4)
            axis.hlines(range(len(values)), min(values) / 2, values, color=BLUE, linewidth=2.4)
            axis.plot(values, range(len(values)), "o", color=BLUE, markersize=8, markeredgecolor=PAPER)
            for row, value in enumerate(values):
                text = f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
                axis.annotate(
                    text, (value, row), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=8, color=INK
                )
            axis.xaxis.set_major_locator(NullLocator())  # the numbers stand at the dots
            axis.xaxis.set_minor_locator(NullLocator())
            axis.set_title(title)
            _name_rows(axis, names)
            axis.tick_params(axis="y", labelleft=axis is axes[0])

    described = "Trained parameters, peak memory, seconds and weights on disk of " + ", ".join(names)
    return draw(paint, name="cost", description=described, height=1.1 + 0.42 * len(names), panel_widths=(1.0,) * 4)


def _name_rows(axis: Axes, names: Sequence[str]) -> None:
    """Rows from the top down."""
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.grid(axis="y", visible=False)
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
