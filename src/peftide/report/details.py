"""What the kind of label calls for: curves and thresholds, confusion and classes, scatter."""

import numpy as np

from peftide.report.blocks import Block, Cell, Column, Heading, Picture, Section, Table, Text, text_table
from peftide.report.facts import AssessmentFacts, CalibrationFacts, ConfusionFacts, HeldOut, RunFacts
from peftide.report.figures import predicted_against_true, ranking_curves, reliability
from peftide.report.predictions import Predictions
from peftide.report.wording import ABSENT, PART_WORDS, capital, number, percent, threshold_words

NO_PREDICTIONS = "The bundle has no predictions.tsv for this part, so the {what} cannot be drawn."
CALIBRATION_WORDS = {
    "none": "No correction was better on validation than leaving the probabilities as they are.",
    "temperature": "Probabilities are corrected by one temperature, learnt on validation.",
    "isotonic": "Probabilities are corrected by a rising line (isotonic regression), learnt on validation.",
}
MOST_CONFUSED = 40


def detail_sections(facts: RunFacts, predictions: Predictions | None) -> list[Section]:
    """The sections that this kind of label has; none where nothing was held out."""
    judged = facts.judged
    if judged is None:
        return []
    kind, assessment = facts.model.target.kind, facts.assessment
    if kind == "regression":
        return [Section("Predicted and true values", (_scatter(predictions),))]
    sections = []
    if kind == "binary":
        sections.append(Section("Ranking", (_ranking(predictions), *_confusion_blocks(assessment, judged))))
    else:
        sections.append(
            Section("Classes", (*_class_blocks(assessment, judged), *_confusion_blocks(assessment, judged)))
        )
    sections.append(Section("Probabilities", tuple(_calibration_blocks(assessment, judged))))
    if kind == "binary":
        sections.append(Section("Use on rare positives", tuple(_rare_blocks(facts, assessment, judged))))
    return sections


def _scatter(predictions: Predictions | None) -> Block:
    if predictions is None:
        return Text(NO_PREDICTIONS.format(what="scatter"))
    picture = predicted_against_true(predictions.targets, predictions.scores)
    return Picture(picture, "On the dashed line, predicted and true values are equal.")


def _ranking(predictions: Predictions | None) -> Block:
    if predictions is None:
        return Text(NO_PREDICTIONS.format(what="curves"))
    truths_N = predictions.targets == 1
    if truths_N.all() or not truths_N.any():
        return Text("Precision-recall and ROC curves need examples of both classes.")
    caption = "Left: take the list from the top, further and further; precision is the share of true ones so far."
    return Picture(ranking_curves(truths_N.astype(np.float64), predictions.scores), caption)


def _confusion_blocks(assessment: AssessmentFacts | None, judged: HeldOut) -> list[Block]:
    if assessment is None or assessment.confusion is None:
        return []
    if len(assessment.confusion.classes) > MOST_CONFUSED:
        return [Text(f"A confusion matrix of more than {MOST_CONFUSED} classes is not shown.", is_note=True)]
    return [Heading("Confusion matrix"), _confusion_table(assessment.confusion, judged)]


def _confusion_table(confusion: ConfusionFacts, judged: HeldOut) -> Table:
    rows = []
    for name, counts in zip(confusion.classes, confusion.counts, strict=True):
        total = sum(counts)
        shares = [count / total if total else 0.0 for count in counts]
        cells = [
            Cell(f"{100 * share:.0f} %" if total else ABSENT, f"{count:,.0f}", shade=share)
            for count, share in zip(counts, shares, strict=True)
        ]
        rows.append((Cell(name), *cells, Cell(f"{total:,.0f}")))
    columns = ("true ↓   predicted →", *confusion.classes, "in all")
    return Table(
        columns=tuple(Column(title, is_number=place > 0) for place, title in enumerate(columns)),
        rows=tuple(rows),
        caption=f"Of each true class (row) the share and the number predicted as each class, on {PART_WORDS[judged]}.",
    )


def _class_blocks(assessment: AssessmentFacts | None, judged: HeldOut) -> list[Block]:
    table = {} if assessment is None else assessment.classes.get(judged, {})
    if assessment is None or not table:
        return [Text("The run has no table of classes.")]
    blocks: list[Block] = [Heading("Class by class"), _class_table("Class", table, judged)]
    if groups := assessment.groups.get(judged):
        blocks += [Heading("Coarse groups"), _class_table("Group", groups, judged)]
    return blocks


def _class_table(what: str, table: dict[str, dict[str, float]], judged: HeldOut) -> Table:
    rows = []
    for name, values in table.items():
        aupr, prevalence = values.get("aupr"), values.get("prevalence")
        rows.append(
            (
                Cell(name),
                Cell(ABSENT if "support" not in values else f"{values['support']:,.0f}"),
                Cell(ABSENT if prevalence is None else percent(prevalence)),
                Cell(number(aupr), bar=aupr, mark=None if aupr is None else prevalence),
                *(Cell(number(values.get(metric))) for metric in ("auroc", "f1", "precision", "recall")),
            )
        )
    columns = (what, "Examples", "Share", "AUPR", "AUROC", "F1", "Precision", "Recall")
    return Table(
        columns=tuple(Column(title, is_number=place > 0) for place, title in enumerate(columns)),
        rows=tuple(rows),
        caption=f"{capital(PART_WORDS[judged])}. The line across a bar is what a random order gives. A "
        f"{what.casefold()} without both kinds of examples has no AUPR and no AUROC.",
    )


def _calibration_blocks(assessment: AssessmentFacts | None, judged: HeldOut) -> list[Block]:
    calibration = None if assessment is None else assessment.calibration
    if calibration is None:
        return [Text("The probabilities were not calibrated: they rank, but 0.9 need not be right nine times in ten.")]
    blocks: list[Block] = [Text(" ".join([_said_of(calibration), *_errors(calibration, judged)]))]
    curves = calibration.reliability.get(judged, {})
    if curves.get("before") and curves.get("after"):
        caption = (
            f"{capital(PART_WORDS[judged])}. On the dashed line, what was given a probability of 0.8 is true eight "
            "times in ten; below it the model is too sure."
        )
        blocks.append(Picture(reliability(curves["before"], curves["after"]), caption))
    return blocks


def _said_of(calibration: CalibrationFacts) -> str:
    if calibration.kind == "none" and not calibration.log_losses:
        return "Validation has too few examples to learn a correction of the probabilities."
    return CALIBRATION_WORDS[calibration.kind]


def _errors(calibration: CalibrationFacts, judged: HeldOut) -> list[str]:
    errors = calibration.ece.get(judged, {})
    if "before" not in errors or "after" not in errors:
        return []
    before, after = number(errors["before"]), number(errors["after"])
    is_changed = errors["before"] != errors["after"]
    numbers = f"{before} before and {after} after" if is_changed else after
    return [f"The calibration error on {PART_WORDS[judged]} is {numbers}."]


def _rare_blocks(facts: RunFacts, assessment: AssessmentFacts | None, judged: HeldOut) -> list[Block]:
    if assessment is None or not (assessment.rare_positives or assessment.thresholds):
        return [Text("The run has no estimate of what its predictions are worth where positives are rare.")]
    blocks: list[Block] = []
    if assessment.rare_positives:
        rows = tuple(
            (
                f"1 in {row.negatives_per_positive + 1:,}",
                number(row.threshold),
                number(row.precision),
                number(row.recall),
            )
            for row in assessment.rare_positives
        )
        blocks += [
            Text("Among all pairs of a proteome, or all proteins, positives are far rarer than in most tables of "
                 "examples. The same model at the same threshold then has a lower precision:"),
            text_table(
                ("Positives are", "Threshold", "Precision", "Recall"), rows,
                caption=f"From the shares of positives and negatives on {PART_WORDS[judged]} that pass the threshold. "
                "One negative more is counted as passing: where there are few, the true precision may be far higher.",
            ),
        ]  # fmt: skip
    if assessment.thresholds:
        prevalence = facts.metrics.get("val", {}).get("prevalence")
        rows = tuple(
            (f"{100 * row.wanted_precision:.0f} %", threshold_words(row.threshold), number(row.recall))
            for row in assessment.thresholds
        )
        share = "" if prevalence is None else f" ({percent(prevalence)} positive)"
        blocks += [
            Heading("Thresholds"),
            text_table(
                ("Wanted precision", "Probability of at least", "Recall"), rows,
                caption=f"Chosen on validation, at the share of positives there{share}. A precision that is not listed "
                "was out of reach. `peftide predict --threshold` takes the probability.",
            ),
        ]  # fmt: skip
    return blocks
