"""The whole model: a backbone with or without adapters, a head, and what its outputs mean."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from peftide.config import LongProteins, Method
from peftide.evaluation.calibration import Calibration
from peftide.models.adapters import base_model, num_trained
from peftide.models.backbones import Backbone
from peftide.models.heads import Head
from peftide.models.target import Target
from peftide.models.tokens import Pieces, cut_proteins
from peftide.records import Proteins, Task


@dataclass(frozen=True)
class HeadShape:
    """How a head is built; enough to build it again."""

    kind: Literal["mlp", "paper", "linear"]
    width: int
    arity: int
    num_outputs: int
    hidden_width: int
    dropout: float


@dataclass(frozen=True)
class PropertyModel:
    """A model of one task: `model` is the backbone's stock module or peft's wrapper of it.

    state_layers: the layers, counted from 1, whose states side by side are pooled to the protein's vector.
    calibration: corrects the probabilities, learnt on validation after training; None until then.
    """

    task: Task
    method: Method
    backbone: Backbone
    model: nn.Module
    head: Head
    head_shape: HeadShape
    target: Target
    pooling: Literal["mean", "cls"]
    state_layers: tuple[int, ...]
    max_residues: int
    long_proteins: LongProteins
    calibration: Calibration | None = None

    def pieces(self, proteins: Proteins) -> list[Pieces]:
        """Each protein cut and turned into tokens as this model was trained to see it."""
        return cut_proteins(
            proteins, self.backbone.vocabulary, max_residues=self.max_residues, long_proteins=self.long_proteins
        )

    def trained_state(self) -> dict[str, torch.Tensor]:
        """Every trained tensor, and the head's buffers, by name: what makes this model differ from its backbone."""
        trained = {f"model.{name}": p for name, p in self.model.named_parameters() if p.requires_grad}
        return trained | {f"head.{name}": tensor for name, tensor in self.head.state_dict().items()}

    @property
    def num_trained(self) -> int:
        """Trained parameters, the head's included."""
        return num_trained(self.model) + num_trained(self.head)


def make_head(shape: HeadShape) -> Head:
    """A new head with random weights."""
    return Head(
        shape.kind,
        width=shape.width,
        arity=shape.arity,
        num_outputs=shape.num_outputs,
        hidden_width=shape.hidden_width,
        dropout=shape.dropout,
    )


def train_all_weights(model: nn.Module) -> None:
    """Make every weight that the hidden states depend on trainable (full fine-tuning)."""
    esm = base_model(model)
    esm.embeddings.requires_grad_(True)
    esm.encoder.requires_grad_(True)
