"""Coarse groups of classes: an example is in a group where it is in any of its classes.

Shapes: N examples, C classes, G groups.
"""

from collections.abc import Mapping

import numpy as np

from peftide.evaluation.metrics import measure_classes

Groups = Mapping[str, tuple[int, ...]]  # columns of the classes of each group, by its name


def group_probabilities(scores_NC: np.ndarray, groups: Groups) -> np.ndarray:
    """Probability (N, G) of any class of each group, the classes taken as independent: 1 - product of (1 - p)."""
    columns = [1 - np.prod(1 - scores_NC[:, list(columns)], axis=1) for columns in groups.values()]
    return np.stack(columns, axis=1).clip(0, 1)


def group_targets(targets_NC: np.ndarray, groups: Groups) -> np.ndarray:
    """1.0 where an example is in any class of a group (N, G)."""
    return np.stack([targets_NC[:, list(columns)].max(axis=1) for columns in groups.values()], axis=1)


def measure_groups(targets_NC: np.ndarray, scores_NC: np.ndarray, groups: Groups) -> dict[str, dict[str, float]]:
    """The table of `metrics.measure_classes` for the groups of a multilabel target."""
    return measure_classes(
        "multilabel", group_targets(targets_NC, groups), group_probabilities(scores_NC, groups), classes=tuple(groups)
    )
