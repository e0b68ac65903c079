"""What the outputs mean: losses by kind of target, and probabilities or values from logits.

Shapes: B examples, C outputs.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from peftide.records import TargetKind


@dataclass(frozen=True)
class Target:
    """What the head's outputs mean.

    num_outputs: C; class_weights: (C,) or (2,) weights of the classes in the loss, or None; center, scale: of a
    regression target in training, so that the head learns standardised values. groups, group_weight: columns of classes
    whose union is learnt too, and what that counts in the loss beside the classes (multilabel).
    """

    kind: TargetKind
    classes: tuple[str, ...]
    class_weights: tuple[float, ...] | None = None
    center: float = 0.0
    scale: float = 1.0
    groups: tuple[tuple[int, ...], ...] = ()
    group_weight: float = 0.0

    @property
    def num_outputs(self) -> int:
        """Outputs of the head: one for binary and regression targets, else one per class."""
        return len(self.classes) if self.kind in ("multiclass", "multilabel") else 1


def make_target(kind: TargetKind, classes: tuple[str, ...], targets: np.ndarray, *, balanced: bool) -> Target:
    """The target of a training set; `balanced` weighs classes by inverse frequency (mean weight 1 per example)."""
    if kind == "regression":
        values = targets.astype(np.float64)  # squares of large float32 numbers overflow
        return Target(kind, classes, None, float(values.mean()), float(values.std()) if np.ptp(values) > 0 else 1.0)
    if not balanced:
        return Target(kind, classes)
    if kind == "multilabel":  # positives of each label against its negatives, capped so that one protein cannot rule
        positives = targets.sum(axis=0)
        weights = np.clip((len(targets) - positives) / np.maximum(positives, 1), 0.1, 100.0)
    else:
        counts = np.bincount(targets.astype(np.int64), minlength=len(classes))
        weights = len(targets) / (np.count_nonzero(counts) * np.maximum(counts, 1))
    return Target(kind, classes, tuple(float(weight) for weight in weights))


def loss(logits_BC: Tensor, targets: Tensor, target: Target) -> Tensor:
    """Mean loss over the examples: cross-entropy by kind of target, squared error of standardised values."""
    weights = None
    if target.class_weights is not None:
        weights = torch.tensor(target.class_weights, device=logits_BC.device)
    if target.kind == "multiclass":
        losses_B = F.cross_entropy(logits_BC, targets, reduction="none")
        return (losses_B if weights is None else losses_B * weights[targets]).mean()
    if target.kind == "multilabel":
        of_classes = F.binary_cross_entropy_with_logits(logits_BC, targets, pos_weight=weights)
        return of_classes + target.group_weight * group_loss(logits_BC, targets, target.groups)
    if target.kind == "binary":
        losses_B = F.binary_cross_entropy_with_logits(logits_BC[:, 0], targets, reduction="none")
        return (losses_B if weights is None else losses_B * weights[targets.long()]).mean()
    return F.mse_loss(logits_BC[:, 0], (targets - target.center) / target.scale)


def group_loss(logits_BC: Tensor, targets_BC: Tensor, groups: tuple[tuple[int, ...], ...]) -> Tensor:
    """Mean cross-entropy of the unions of classes: of a group, the probability is that of any of its classes.

    Classes are taken as independent given the protein: log(1 - p) of a union is the sum of those of its classes.
    """
    if not groups:
        return logits_BC.new_zeros(())
    log_none_BC = F.logsigmoid(-logits_BC.float())
    losses = []
    for columns in groups:
        log_none_B = log_none_BC[:, list(columns)].sum(dim=1).clamp(max=-1e-7)  # below 0, where log(1 - exp) is finite
        is_any_B = targets_BC[:, list(columns)].amax(dim=1)
        losses.append(-(is_any_B * torch.log(-torch.expm1(log_none_B)) + (1 - is_any_B) * log_none_B).mean())
    return torch.stack(losses).mean()


def scores(logits: Tensor, target: Target) -> np.ndarray:
    """Probabilities: binary (B,), multiclass and multilabel (B, C); values in the target's unit: regression (B,)."""
    logits = logits.float().cpu()
    if target.kind == "multiclass":
        return logits.softmax(dim=-1).numpy()
    if target.kind == "multilabel":
        return logits.sigmoid().numpy()
    if target.kind == "binary":
        return logits[:, 0].sigmoid().numpy()
    return (logits[:, 0] * target.scale + target.center).numpy()
