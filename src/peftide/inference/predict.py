"""Scores of many examples from the vectors of their proteins: only the head runs per example.

Shapes: N examples, K proteins of an example, P proteins, D width, C outputs.
"""

from collections.abc import Mapping

import numpy as np
import torch

from peftide.data.symmetry import GROUP_COLUMNS
from peftide.evaluation.assessment import correct
from peftide.evaluation.groups import group_probabilities
from peftide.models.property_model import PropertyModel
from peftide.models.target import Target, scores
from peftide.records import Dataset, Task, class_separator

EXAMPLES_AT_ONCE = 8192


@torch.inference_mode()
def score_examples(model: PropertyModel, vectors_PD: np.ndarray, members_NK: np.ndarray) -> np.ndarray:
    """Probabilities (N,) or (N, C), or values (N,), in the order of the examples; every one is independent.

    Probabilities are corrected where the model has a calibration.
    """
    model.head.eval()
    device = model.head.center_D.device
    table_PD = torch.from_numpy(vectors_PD).to(device)
    members = torch.from_numpy(members_NK).to(device)
    logits = [model.head(table_PD[part]) for part in members.split(EXAMPLES_AT_ONCE)]
    if not logits:
        return np.zeros((0, model.target.num_outputs) if model.target.num_outputs > 1 else (0,), dtype=np.float32)
    return correct(scores(torch.cat(logits), model.target), model.calibration)


def example_columns(dataset: Dataset) -> dict[str, list]:
    """Which example each row is: the ids of its proteins."""
    ids = [[dataset.proteins.ids[row] for row in column] for column in dataset.members_NK.T]
    return dict(zip(("protein_a", "protein_b") if len(ids) == 2 else ("id",), ids, strict=True))


def prediction_columns(
    dataset: Dataset,
    scores: np.ndarray,
    target: Target,
    *,
    threshold: float = 0.5,
    min_confidence: float | None = None,
) -> dict[str, list]:
    """Columns of a table of predictions, in the order of the examples.

    Ids; the label where there is one; the predicted class, classes or value; a probability per class and, of a
    symmetry, per coarse group. threshold: see `decide`. min_confidence: no prediction (an empty text) where the
    probability of the answer is lower.
    """
    columns = example_columns(dataset)
    if dataset.targets is not None:
        columns["label"] = [label_text(value, target) for value in dataset.targets]
    answers = answer_columns(dataset.task, scores, target, threshold=threshold, min_confidence=min_confidence)
    return columns | answers


def answer_columns(
    task: Task, scores: np.ndarray, target: Target, *, threshold: float = 0.5, min_confidence: float | None = None
) -> dict[str, list]:
    """What `prediction_columns` has beside ids and labels."""
    columns: dict[str, list] = {}
    said = [label_text(value, target) for value in decide(scores, target, threshold=threshold)]
    if min_confidence is not None:
        is_sure = confidence(scores, target, threshold=threshold) >= min_confidence
        said = [text if sure else "" for text, sure in zip(said, is_sure, strict=True)]
    columns["prediction"] = said
    if target.kind == "binary":
        columns["probability"] = scores.tolist()
    elif target.kind != "regression":
        columns |= {f"probability_{name}": scores[:, column].tolist() for column, name in enumerate(target.classes)}
    if task == "symmetry":
        of_groups_NG = group_probabilities(scores, GROUP_COLUMNS)
        columns |= {f"group_{name}": of_groups_NG[:, place].tolist() for place, name in enumerate(GROUP_COLUMNS)}
    return columns


def scores_of(columns: Mapping[str, np.ndarray], target: Target) -> np.ndarray:
    """The scores (N,) or (N, C) that `answer_columns` told."""
    if target.kind == "binary":
        return columns["probability"]
    if target.kind == "regression":
        return columns["prediction"]
    return np.stack([columns[f"probability_{name}"] for name in target.classes], axis=1)


def confidence(scores: np.ndarray, target: Target, *, threshold: float = 0.5) -> np.ndarray:
    """Probability (N,) of the answer that `decide` gives, for targets with one answer: binary and multiclass."""
    if target.kind == "multiclass":
        return scores.max(axis=1)
    assert target.kind == "binary", f"a {target.kind} prediction is not one answer"
    return np.where(scores >= threshold, scores, 1 - scores)


def decide(scores: np.ndarray, target: Target, *, threshold: float = 0.5) -> np.ndarray:
    """Predictions in the form of targets: the likeliest class, the value, or (binary, multilabel) yes where the
    probability is `threshold` or more.
    """
    if target.kind == "multiclass":
        return scores.argmax(axis=1)
    if target.kind == "regression":
        return scores
    return (scores >= threshold).astype(np.float32)


def label_text(value: np.ndarray, target: Target) -> str | float:
    """One target as users write it: a class, classes with `class_separator` between, or a number."""
    if target.kind == "regression":
        return float(value)
    if target.kind == "multilabel":
        names = (name for name, is_member in zip(target.classes, value, strict=True) if is_member > 0.5)
        return class_separator(target.classes).join(names)
    return target.classes[int(value)]
