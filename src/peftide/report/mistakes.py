"""The worst errors: the held-out examples on which the model was most surely wrong.

Shapes: N examples, C classes.
"""

from dataclasses import dataclass

import numpy as np

from peftide.report.blocks import Section, Text, text_table
from peftide.report.facts import RunFacts, TargetFacts
from peftide.report.predictions import Predictions
from peftide.report.wording import PART_WORDS, number, signed

MOST_SHOWN = 20
ID_WORDS = {"protein_a": "Protein A", "protein_b": "Protein B", "id": "Protein"}
TITLE = "Worst errors"


@dataclass(frozen=True)
class Mistakes:
    """rows: of the examples, the worst first; headings: of what is said of each; cells: that, a tuple per row."""

    rows: np.ndarray
    headings: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]


def mistakes_section(facts: RunFacts, predictions: Predictions | None) -> Section:
    """A table of at most 20 examples, the worst first."""
    if facts.judged is None or predictions is None:
        return Section(TITLE, (Text("The bundle has no held-out predictions to look at."),))
    target, part = facts.model.target, PART_WORDS[facts.judged]
    found = _find(predictions, target)
    if not len(found.rows):
        return Section(TITLE, (Text(f"No prediction on {part} is wrong."),))
    opening = f"The wrong predictions on {part} of which the model was surest. Labels are sometimes wrong too: look "
    opening += "these up before you blame the model."
    if target.kind == "regression":
        opening = f"The examples of {part} with the largest errors."
    rows = tuple((*predictions.ids[row], *cells) for row, cells in zip(found.rows, found.cells, strict=True))
    columns = (*(ID_WORDS.get(name, name) for name in predictions.id_columns), *found.headings)
    num_numbers = 3 if target.kind == "regression" else 1
    return Section(TITLE, (Text(opening), text_table(columns, rows, num_text_columns=len(columns) - num_numbers)))


def _find(predictions: Predictions, target: TargetFacts) -> Mistakes:
    if target.kind == "regression":
        return _largest_errors(predictions)
    return _wrong_labels(predictions, target) if target.kind == "multilabel" else _wrong_classes(predictions, target)


def _wrong_classes(predictions: Predictions, target: TargetFacts) -> Mistakes:
    """By the probability of what was predicted."""
    said_N = np.array([target.classes.index(said) for said in predictions.said])
    if target.kind == "binary":
        confidence_N = np.where(said_N == 1, predictions.scores, 1 - predictions.scores)
    else:
        confidence_N = np.take_along_axis(predictions.scores, said_N[:, None], axis=1)[:, 0]
    is_wrong_N = said_N != predictions.targets
    rows = _worst(np.where(is_wrong_N, confidence_N, -1.0), int(is_wrong_N.sum()))
    cells = tuple((predictions.labels[row], predictions.said[row], number(float(confidence_N[row]))) for row in rows)
    return Mistakes(rows, ("True", "Predicted", "Its probability"), cells)


def _wrong_labels(predictions: Predictions, target: TargetFacts) -> Mistakes:
    """By the label whose probability is furthest on the wrong side of one half."""
    truths_NC = predictions.targets > 0.5
    is_wrong_NC = (predictions.scores >= 0.5) != truths_NC
    sureness_NC = np.where(is_wrong_NC, np.abs(predictions.scores - 0.5), -1.0)
    rows = _worst(sureness_NC.max(axis=1), int(is_wrong_NC.any(axis=1).sum()))
    cells = []
    for row in rows:
        column = int(sureness_NC[row].argmax())
        worst = f"{target.classes[column]}, {'missed' if truths_NC[row, column] else 'not there'}"
        probability = number(float(predictions.scores[row, column]))
        cells.append((predictions.labels[row] or "none", predictions.said[row] or "none", worst, probability))
    return Mistakes(rows, ("True", "Predicted", "Worst label", "Its probability"), tuple(cells))


def _largest_errors(predictions: Predictions) -> Mistakes:
    errors_N = predictions.scores - predictions.targets
    rows = _worst(np.abs(errors_N), len(errors_N))
    cells = [(number(float(truth)), number(float(said)), signed(float(said - truth)))
             for truth, said in zip(predictions.targets[rows], predictions.scores[rows], strict=True)]  # fmt: skip
    return Mistakes(rows, ("True", "Predicted", "Predicted minus true"), tuple(cells))


def _worst(badness_N: np.ndarray, num_wrong: int) -> np.ndarray:
    """Rows of the highest badness, in the order of the file where equal."""
    return np.argsort(-badness_N, kind="stable")[: min(num_wrong, MOST_SHOWN)]
