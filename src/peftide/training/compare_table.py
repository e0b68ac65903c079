"""A comparison as a table for the terminal, and as columns for a file."""

from rich.box import SIMPLE_HEAD
from rich.table import Table

from peftide.config import gibibytes
from peftide.evaluation.compared import Cost, MethodComparison, MethodSummary, SeedRun
from peftide.evaluation.intervals import Spread
from peftide.inference.cache_folder import readable_size
from peftide.training.plan_table import duration

QUALITY = ("", "seeds", "validation", "test", "seeds averaged", "to the best")
COST = ("", "trained", "peak memory", "time", "weights")


def quality_table(comparison: MethodComparison) -> Table:
    """A line per method, those that failed included, then the baselines.

    validation, test: mean and standard deviation over the seeds; seeds averaged, to the best: with intervals, of 95 %
    for the averages and for all differences together.
    """
    table = _table(f"{comparison.metric} of the compared methods", QUALITY)
    for method in comparison.methods:
        averaged, difference = method.averaged, method.difference
        behind = "the best"
        if difference is not None:
            behind = f"{difference.estimate:+.3f} ({difference.low:+.3f} to {difference.high:+.3f})"
        table.add_row(
            str(method.variant),
            str(len(method.seeds)),
            spread_text(method.spreads["val"][comparison.metric]),
            spread_text(method.spreads["test"][comparison.metric]),
            f"{averaged.estimate:.3f} ({averaged.low:.3f} to {averaged.high:.3f})",
            behind,
        )
    for run in comparison.runs:
        if run.reason is not None:
            table.add_row(str(run.variant), "", "failed", f"seed {run.seed}")
    for name, value in comparison.baselines.items():
        table.add_row(f"baseline {name}", "", "", f"{value:.3f}")
    return table


def cost_table(comparison: MethodComparison) -> Table:
    """A line per method, the largest of its runs: the first one fills the cache and takes longer."""
    table = _table("what a run takes", COST)
    for method in comparison.methods:
        cost = method.cost
        memory, size = gibibytes(cost.peak_memory_bytes), readable_size(cost.weights_bytes)
        table.add_row(str(method.variant), f"{cost.trained_parameters:,}", memory, duration(cost.seconds), size)
    return table


def _table(title: str, headings: tuple[str, ...]) -> Table:
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        table.add_column(heading, justify="right" if heading else "left", no_wrap=bool(heading))
    return table


def spread_text(spread: Spread) -> str:
    """`0.651 ± 0.004`; the mean alone for a single seed."""
    deviation = "" if spread.standard_deviation is None else f" ± {spread.standard_deviation:.3f}"
    return f"{spread.mean:.3f}{deviation}"


def comparison_columns(comparison: MethodComparison) -> dict[str, list[object]]:
    """A row per run, then one per method with seed "all" (mean metrics, largest costs), then one per baseline."""
    metric = comparison.metric
    rows = [_run_row(run, metric) for run in comparison.runs]
    rows += [_method_row(method, metric) for method in comparison.methods]
    rows += [{"method": f"baseline {name}", f"test_{metric}": value} for name, value in comparison.baselines.items()]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _run_row(run: SeedRun, metric: str) -> dict[str, object]:
    row: dict[str, object] = {
        "backbone": run.variant.backbone,
        "method": run.variant.method,
        "seed": run.seed,
        "folder": run.folder,
        "reason": run.reason,
    }
    for split in ("val", "test"):
        row[f"{split}_{metric}"] = None if run.metrics is None else run.metrics[split][metric]
    return row | ({} if run.cost is None else _cost_row(run.cost))


def _method_row(method: MethodSummary, metric: str) -> dict[str, object]:
    row: dict[str, object] = {"backbone": method.variant.backbone, "method": method.variant.method, "seed": "all"}
    for split in ("val", "test"):
        spread = method.spreads[split][metric]
        row |= {f"{split}_{metric}": spread.mean, f"{split}_{metric}_deviation": spread.standard_deviation}
    averaged, difference = method.averaged, method.difference
    row |= {"averaged": averaged.estimate, "averaged_low": averaged.low, "averaged_high": averaged.high}
    if difference is not None:
        row |= {
            "difference": difference.estimate,
            "difference_low": difference.low,
            "difference_high": difference.high,
        }
    return row | _cost_row(method.cost)


def _cost_row(cost: Cost) -> dict[str, object]:
    return {
        "trained_parameters": cost.trained_parameters,
        "peak_memory_bytes": round(cost.peak_memory_bytes),
        "seconds": cost.seconds,
        "weights_bytes": cost.weights_bytes,
        "bundle_bytes": cost.bundle_bytes,
    }
