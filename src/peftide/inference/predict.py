"""Scores of many examples from the vectors of their proteins: only the head runs per example.

Shapes: N examples, K proteins of an example, P proteins, D width, C outputs.
"""

import numpy as np
import torch

from peftide.models.property_model import PropertyModel
from peftide.models.target import Target, scores
from peftide.records import Dataset

EXAMPLES_AT_ONCE = 8192


@torch.inference_mode()
def score_examples(model: PropertyModel, vectors_PD: np.ndarray, members_NK: np.ndarray) -> np.ndarray:
    """Probabilities (N,) or (N, C), or values (N,), in the order of the examples; every one is independent."""
    model.head.eval()
    device = model.head.center_D.device
    table_PD = torch.from_numpy(vectors_PD).to(device)
    members = torch.from_numpy(members_NK).to(device)
    logits = [model.head(table_PD[part]) for part in members.split(EXAMPLES_AT_ONCE)]
    if not logits:
        return np.zeros((0, model.target.num_outputs) if model.target.num_outputs > 1 else (0,), dtype=np.float32)
    return scores(torch.cat(logits), model.target)


def example_columns(dataset: Dataset) -> dict[str, list]:
    """Which example each row is: the ids of its proteins."""
    ids = [[dataset.proteins.ids[row] for row in column] for column in dataset.members_NK.T]
    return dict(zip(("protein_a", "protein_b") if len(ids) == 2 else ("id",), ids, strict=True))


def prediction_columns(dataset: Dataset, scores: np.ndarray, target: Target) -> dict[str, list]:
    """Columns of a table of predictions, in the order of the examples.

    Ids; the label where there is one; the predicted class, classes or value; a probability per class.
    """
    columns = example_columns(dataset)
    if dataset.targets is not None:
        columns["label"] = [label_text(value, target) for value in dataset.targets]
    columns["prediction"] = [label_text(value, target) for value in decide(scores, target)]
    if target.kind == "binary":
        columns["probability"] = scores.tolist()
    elif target.kind != "regression":
        columns |= {f"probability_{name}": scores[:, column].tolist() for column, name in enumerate(target.classes)}
    return columns


def decide(scores: np.ndarray, target: Target) -> np.ndarray:
    """Predictions in the form of targets: the class at probability 0.5 or more, the likeliest class, or the value."""
    if target.kind == "multiclass":
        return scores.argmax(axis=1)
    if target.kind == "regression":
        return scores
    return (scores >= 0.5).astype(np.float32)


def label_text(value: np.ndarray, target: Target) -> str | float:
    """One target as users write it: a class, classes with a space between, or a number."""
    if target.kind == "regression":
        return float(value)
    if target.kind == "multilabel":
        return " ".join(name for name, is_member in zip(target.classes, value, strict=True) if is_member > 0.5)
    return target.classes[int(value)]
