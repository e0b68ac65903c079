"""The page of a comparison of methods."""

from collections.abc import Mapping

from peftide.config import CompareSettings, gibibytes
from peftide.evaluation.compared import MethodComparison, MethodSummary, best_of
from peftide.evaluation.intervals import Spread
from peftide.report.blocks import (
    Block,
    Bullets,
    Cell,
    Code,
    Column,
    Definitions,
    Picture,
    Section,
    Table,
    Text,
    text_table,
)
from peftide.report.command_line import command_line
from peftide.report.compare_figures import cost_chart, quality_chart
from peftide.report.page import page
from peftide.report.wording import (
    duration,
    glossary,
    interval_words,
    metric_words,
    number,
    predictor_words,
    signed,
    signed_interval_words,
)

COLUMNS = ("method", "seeds", "validation", "test", "seeds averaged", "difference to the best")
COST_COLUMNS = ("method", "trained parameters", "peak memory", "time of a run", "weights on disk", "bundle on disk")


CAPTION = (
    "Test part. Large dots: the scores of all seeds averaged, with 95 % intervals over the test proteins. Small dots: "
    "single seeds. Grey rows: predictors without a language model."
)
HOW_MEASURED = (
    "Validation and test: mean and standard deviation over the seeds, all trained and measured on the same split. "
    "Seeds averaged: the scores of the seeds are averaged, example by example, as peftide predict does for a folder of "
    "several bundles, and the metric is taken of these; its 95 % interval is from drawing the test proteins again and "
    "again. The difference is between averaged scores of the method and of the best one, on the same draws: where its "
    "interval has 0 inside, the two cannot be told apart here. These intervals hold with 95 % all together."
)
HOW_COSTED = (
    "The largest of a method's runs. Memory: on a GPU what PyTorch took, else what the process held. Time: the first "
    "run fills the cache of what the frozen layers give; the others read it and are faster, see every run below."
)


def compare_page(comparison: MethodComparison, document: Mapping[str, object]) -> str:
    """A self-contained page; document: the comparison's JSON, for the settings, the data and the machine."""
    metric, names = metric_words(comparison.metric), _names(comparison)
    sections = (
        Section("Answer", (Bullets(comparison.verdict), Picture(quality_chart(comparison, names), CAPTION))),
        Section("Quality", (_quality_table(comparison), Text(HOW_MEASURED, is_note=True))),
        Section("Cost", (Picture(cost_chart(comparison, names), HOW_COSTED), _cost_table(comparison))),
        Section("Every run", tuple(_runs(comparison))),
        Section("Again", (Code(_command(document)), Text("Runs that are there are not made again.", is_note=True))),
        Section("What the words mean", (Definitions(glossary([comparison.metric])),)),
    )
    return page(f"Comparison of methods by {metric}", sections, subtitle=_subtitle(document))


def _names(comparison: MethodComparison) -> list[str]:
    """How the methods are called: by backbone too where there are several."""
    is_one = len({method.variant.backbone for method in comparison.methods}) == 1
    return [method.variant.method if is_one else str(method.variant) for method in comparison.methods]


def _quality_table(comparison: MethodComparison) -> Table:
    metric, best = comparison.metric, best_of(comparison.methods)
    rows = []
    for name, method in zip(_names(comparison), comparison.methods, strict=True):
        averaged = method.averaged
        rows.append(
            (
                Cell(name),
                Cell(str(len(method.seeds))),
                _spread_cell(method.spreads["val"][metric]),
                _spread_cell(method.spreads["test"][metric]),
                Cell(number(averaged.estimate), detail=interval_words(averaged.low, averaged.high)),
                _difference_cell(method),
            )
        )
    for name, value in comparison.baselines.items():
        rows.append((Cell(predictor_words(name)), Cell(""), Cell(""), Cell(number(value)), Cell(""), Cell("")))
    columns = tuple(Column(title, is_number=place > 0) for place, title in enumerate(COLUMNS))
    return Table(columns, tuple(rows), strong_rows=(comparison.methods.index(best),))


def _spread_cell(spread: Spread) -> Cell:
    deviation = spread.standard_deviation
    return Cell(number(spread.mean), detail="" if deviation is None else f"± {number(deviation)}")


def _difference_cell(method: MethodSummary) -> Cell:
    if method.difference is None:
        return Cell("the best")
    difference = method.difference
    return Cell(signed(difference.estimate), detail=signed_interval_words(difference.low, difference.high))


def _cost_table(comparison: MethodComparison) -> Table:
    rows = [
        (
            name,
            f"{method.cost.trained_parameters:,}",
            gibibytes(method.cost.peak_memory_bytes),
            duration(method.cost.seconds),
            f"{method.cost.weights_bytes / 1e6:,.1f} MB",
            f"{method.cost.bundle_bytes / 1e6:,.1f} MB",
        )
        for name, method in zip(_names(comparison), comparison.methods, strict=True)
    ]
    return text_table(COST_COLUMNS, tuple(rows))


def _runs(comparison: MethodComparison) -> list[Block]:
    metric = comparison.metric
    rows = [
        (
            str(run.variant),
            str(run.seed),
            number(run.metrics["val"][metric]),
            number(run.metrics["test"][metric]),
            duration(run.cost.seconds),
            run.folder,
        )
        for run in comparison.runs
        if run.metrics is not None and run.cost is not None
    ]
    blocks: list[Block] = [text_table(("run", "seed", "validation", "test", "time", "bundle"), tuple(rows))]
    failed = [f"{run.variant}, seed {run.seed}: {run.reason}" for run in comparison.runs if run.reason is not None]
    return [*blocks, Bullets(tuple(failed))] if failed else blocks


def _settings(document: Mapping[str, object]) -> Mapping[str, object]:
    settings = document["settings"]
    assert isinstance(settings, Mapping)
    return settings


def _command(document: Mapping[str, object]) -> str:
    return command_line(_settings(document), command="compare", kind=CompareSettings)


def _subtitle(document: Mapping[str, object]) -> str:
    settings, data = _settings(document), document["data"]
    assert isinstance(data, Mapping)
    counts = ", ".join(f"{count:,} {split}" for split, count in data["examples"].items())
    return f"{settings['data']}: {data['proteins']:,} proteins; examples: {counts}"
