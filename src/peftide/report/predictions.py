"""A bundle's predictions.tsv as arrays, by split.

Shapes: N examples of a split, C classes.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from peftide.errors import UserError
from peftide.records import class_separator
from peftide.report.facts import TargetFacts

ID_COLUMNS = ("protein_a", "protein_b", "id")


@dataclass(frozen=True)
class Predictions:
    """Held-out examples of one split in their order.

    id_columns: names of the columns that say which example it is; ids: their values, one tuple per example. labels,
    said: what is true and what was predicted, as users write it. targets: as in `records.Dataset`. scores: (N,)
    probabilities of the positive or values, or (N, C) probabilities.
    """

    id_columns: tuple[str, ...]
    ids: tuple[tuple[str, ...], ...]
    labels: tuple[str, ...]
    said: tuple[str, ...]
    targets: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


def read_predictions(path: Path, target: TargetFacts) -> dict[str, Predictions]:
    """By split; empty where there is no such file. Raises UserError for a damaged one."""
    if not path.is_file():
        return {}
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t", strict=True))
        return {split: _of_split(part, target) for split, part in _by_split(rows).items()}
    except (KeyError, TypeError, ValueError, csv.Error, OSError) as error:
        reason = f"no column {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{path}: not the predictions of a bundle, or damaged ({reason}); train it again") from error


def _by_split(rows: Sequence[Mapping[str, str]]) -> dict[str, list[Mapping[str, str]]]:
    parts: dict[str, list[Mapping[str, str]]] = {}
    for row in rows:
        parts.setdefault(row["split"], []).append(row)
    return parts


def _of_split(rows: Sequence[Mapping[str, str]], target: TargetFacts) -> Predictions:
    score_columns = {
        "binary": ["probability"],
        "regression": ["prediction"],
    }.get(target.kind, [f"probability_{name}" for name in target.classes])
    id_columns = tuple(name for name in ID_COLUMNS if name in rows[0])
    scores_NC = np.array([[float(row[name]) for name in score_columns] for row in rows])
    if not np.isfinite(scores_NC).all():
        raise ValueError("scores must be finite numbers")
    labels = tuple(row["label"] for row in rows)
    return Predictions(
        id_columns=id_columns,
        ids=tuple(tuple(row[name] for name in id_columns) for row in rows),
        labels=labels,
        said=tuple(row["prediction"] for row in rows),
        targets=_targets(labels, target),
        scores=scores_NC[:, 0] if target.kind in ("binary", "regression") else scores_NC,
    )


def _targets(labels: Sequence[str], target: TargetFacts) -> np.ndarray:
    if target.kind == "regression":
        return np.array([float(label) for label in labels])
    if target.kind == "multilabel":
        known = {label: members(label, target.classes) for label in set(labels)}
        return np.array([known[label] for label in labels], dtype=np.float64)
    return np.array([target.classes.index(label) for label in labels])


def members(text: str, classes: Sequence[str]) -> list[bool]:
    """Which classes a text names. Raises ValueError where it names something else."""
    separator = class_separator(classes)
    found = {name for name in text.split(separator) if name}
    if unknown := found - set(classes):
        raise ValueError(f"{min(unknown)!r} is no class")
    return [name in found for name in classes]
