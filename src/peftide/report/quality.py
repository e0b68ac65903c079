"""How good the model is: learning curves, every metric, and the baselines beside it."""

from peftide.evaluation.metrics import COUNTS, METRIC_NAMES, higher_is_better, main_metric
from peftide.records import TargetKind
from peftide.report.blocks import Block, Cell, Column, Heading, Picture, Section, Table, Text
from peftide.report.facts import AssessmentFacts, HeldOut, RunFacts
from peftide.report.figures import Dot, DotPanel, dots_and_whiskers, learning_curves
from peftide.report.wording import (
    ABSENT,
    PART_WORDS,
    SPLIT_WORDS,
    capital,
    interval_words,
    metric_words,
    number,
    percent,
    predictor_words,
    signed,
    signed_interval_words,
)

MODEL = "This model"
COMPARED: dict[TargetKind, tuple[str, ...]] = {
    "binary": ("aupr", "auroc", "mcc"),
    "multiclass": ("macro_aupr", "macro_auroc", "macro_f1", "accuracy"),
    "multilabel": ("macro_aupr", "macro_auroc", "macro_f1"),
    "regression": ("spearman", "pearson", "rmse"),
}


def ranked_baselines(facts: RunFacts) -> list[str]:
    """Baselines that have the main metric on the judged part, the best first."""
    if facts.assessment is None or facts.judged is None:
        return []
    metric, judged = facts.assessment.main_metric, facts.judged
    values = {
        name: found.metrics[judged][metric]
        for name, found in facts.assessment.baselines.items()
        if metric in found.metrics.get(judged, {})
    }
    return sorted(values, key=lambda name: -values[name])


def training_section(facts: RunFacts) -> Section:
    """Loss and validation metric by epoch."""
    history = facts.training.history
    usable = [row for row in history if "epoch" in row and "loss" in row]
    if not usable:
        return Section("Training", (Text("No epoch was finished, so there is no learning curve."),))
    chosen = [name for name in usable[0] if name not in ("epoch", "loss", "seconds")]
    metric = next((name for name in chosen if all(name in row for row in usable)), None)
    title = metric_words(metric) if metric else ""
    picture = learning_curves(usable, metric=metric, title=title, best_epoch=facts.training.best_epoch)
    best = f"Best epoch: {facts.training.best_epoch}"
    if metric is not None and facts.training.best_value is not None:
        best += f" (validation {title} {number(facts.training.best_value)})"
    ended = f" Training ended: {facts.training.ended}." if facts.training.ended else ""
    return Section("Training", (Picture(picture, f"{best}, marked by the line.{ended}"),))


def quality_section(facts: RunFacts) -> Section:
    """The judged part: baselines, then every metric."""
    judged, assessment = facts.judged, facts.assessment
    if judged is None:
        return Section("Results", (Text("Nothing was held out, so nothing could be measured."),))
    blocks: list[Block] = []
    if judged == "val":
        blocks.append(Text("There is no test part. These are validation numbers; the epoch was chosen by them."))
    if assessment is None:
        blocks.append(Text("The run has no baselines and no intervals to compare with."))
    else:
        blocks += _comparison(facts, assessment, judged)
    blocks += [Heading("Every metric"), _metric_table(facts, judged)]
    return Section(f"Results on {PART_WORDS[judged]}", tuple(blocks))


def _comparison(facts: RunFacts, assessment: AssessmentFacts, judged: HeldOut) -> list[Block]:
    ranked = ranked_baselines(facts)
    if not ranked:
        return [Text("The run has no baselines to compare with.")]
    return [
        Heading("Beside simple predictors"),
        _comparison_picture(facts, assessment, judged, ranked),
        _comparison_table(facts, assessment, judged, ranked),
    ]


def _comparison_picture(facts: RunFacts, assessment: AssessmentFacts, judged: HeldOut, ranked: list[str]) -> Picture:
    metric = assessment.main_metric
    words = metric_words(metric)
    interval = assessment.intervals.get(judged, {}).get(metric)
    value = facts.metrics[judged].get(metric)
    model = None if value is None else Dot(value, *((interval.low, interval.high) if interval else (None, None)))
    differences = [assessment.baselines[name].difference for name in ranked]
    prevalence = facts.metrics[judged].get("prevalence")
    panels = [
        DotPanel(
            f"{capital(words)} on {PART_WORDS[judged]}",
            (model, *(Dot(assessment.baselines[name].metrics[judged][metric]) for name in ranked)),
            line=(prevalence, "random order") if metric == "aupr" and prevalence is not None else None,
        )
    ]
    if any(differences):
        dots = tuple(None if d is None else Dot(d.estimate, d.low, d.high) for d in differences)
        panels.append(DotPanel("This model minus the predictor", (None, *dots), line=(0.0, "no difference")))
    described = f"{words} of the model and of each baseline, and the differences with their intervals"
    svg = dots_and_whiskers(
        [MODEL, *map(predictor_words, ranked)], panels, name="baselines", description=described, strong_rows=(0,)
    )
    return Picture(
        svg, "Lines are 95 % intervals. Right: all of the line right of zero means that the model is better."
    )


def _comparison_table(facts: RunFacts, assessment: AssessmentFacts, judged: HeldOut, ranked: list[str]) -> Table:
    shown = [name for name in COMPARED[facts.model.target.kind] if name in facts.metrics[judged]]
    intervals = assessment.intervals.get(judged, {})
    model = [
        Cell(
            number(facts.metrics[judged][name]),
            interval_words(intervals[name].low, intervals[name].high) if name in intervals else "",
        )
        for name in shown
    ]
    rows = [(Cell(MODEL), *model, Cell(ABSENT), Cell(ABSENT))]
    for name in ranked:
        found = assessment.baselines[name]
        difference = found.difference
        rows.append(
            (
                Cell(predictor_words(name), found.note),
                *(Cell(number(found.metrics[judged].get(metric))) for metric in shown),
                Cell(ABSENT)
                if difference is None
                else Cell(signed(difference.estimate), signed_interval_words(difference.low, difference.high)),
                Cell(ABSENT if difference is None else percent(difference.probability_a_is_better)),
            )
        )
    words = metric_words(assessment.main_metric)
    columns = ("Predictor", *(capital(metric_words(name)) for name in shown), "Model minus it", "Model better in")
    return Table(
        columns=tuple(Column(title, is_number=place > 0) for place, title in enumerate(columns)),
        rows=tuple(rows),
        caption=f"Small print: 95 % intervals. The differences are in {words}; the last column is the share of the "
        "bootstrap's draws in which the model is better.",
        strong_rows=(0,),
    )


def _metric_table(facts: RunFacts, judged: HeldOut) -> Table:
    """Metrics down, validation, the judged part with its interval and the baselines across."""
    measured = facts.metrics
    order = (*METRIC_NAMES[facts.model.target.kind], "prevalence", *COUNTS)
    names = [name for name in order if any(name in measured.get(split, {}) for split in ("val", "test"))]
    splits = [split for split in ("val", "test") if measured.get(split)]
    intervals = facts.assessment.intervals.get(judged, {}) if facts.assessment else {}
    per_cluster = facts.assessment.per_cluster.get(judged, {}) if facts.assessment else {}
    baselines = facts.assessment.baselines if facts.assessment else {}
    ranked, main = ranked_baselines(facts), main_metric(facts.model.target.kind)
    rows = []
    for name in names:
        hint = "" if higher_is_better(name) else "lower is better"
        cells = [
            Cell(capital(metric_words(name)), hint),
            *(Cell(number(measured[split].get(name))) for split in splits),
        ]
        known = intervals.get(name)
        cells.append(Cell(ABSENT if known is None else interval_words(known.low, known.high)))
        if per_cluster:
            cells.append(Cell(number(per_cluster.get(name))))
        cells += [Cell(number(baselines[other].metrics[judged].get(name))) for other in ranked]
        rows.append(tuple(cells))
    columns = (
        *("Metric", *(capital(SPLIT_WORDS[split]) for split in splits)),
        f"95 % interval ({SPLIT_WORDS[judged]})",
        *([f"{capital(SPLIT_WORDS[judged])}, each cluster once"] if per_cluster else []),
        *(predictor_words(name) for name in ranked),
    )
    return Table(
        columns=tuple(Column(title, is_number=place > 0) for place, title in enumerate(columns)),
        rows=tuple(rows),
        strong_rows=(names.index(main),) if main in names else (),
    )
