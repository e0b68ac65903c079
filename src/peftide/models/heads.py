"""Heads: from the vectors of one or two proteins to logits, exactly symmetric in the two.

Shapes: B examples, K proteins of an example (1 or 2), D width of a protein vector, F features, C outputs.
"""

import torch
from torch import Tensor, nn

PAPER_WIDTH = 128  # hidden units of the head of Sledzieski et al. 2024


def mean_features(vectors_BKD: Tensor) -> Tensor:
    """The mean over the proteins of an example (B, D): the paper's pair vector."""
    return vectors_BKD.mean(dim=1)


def comparison_features(vectors_BKD: Tensor) -> Tensor:
    """A protein's own vector (B, D); for pairs mean, absolute difference and product (B, 3 D), each symmetric."""
    if vectors_BKD.shape[1] == 1:
        return vectors_BKD[:, 0]
    a, b = vectors_BKD.unbind(dim=1)
    return torch.cat([(a + b) / 2, (a - b).abs(), a * b], dim=-1)


class Head(nn.Module):
    """Standardise protein vectors, compare them, classify.

    kind: "mlp" (one hidden layer of `hidden_width` GELU units), "paper" (mean only, 128 tanh units, no dropout) or
    "linear". The centre and scale of the vectors are buffers, set once by `standardize` from training proteins and
    saved with the weights. The paper's head gets standard vectors too: mean-pooled states share a large common offset,
    and without this its tanh units learn next to nothing (test AUPR 0.53 on the Bernett set).
    """

    center_D: Tensor
    scale_D: Tensor

    def __init__(self, kind: str, *, width: int, arity: int, num_outputs: int, hidden_width: int, dropout: float):
        super().__init__()
        self.kind = kind
        self.register_buffer("center_D", torch.zeros(width))
        self.register_buffer("scale_D", torch.ones(width))
        self.features = mean_features if kind == "paper" else comparison_features
        num_features = width if kind == "paper" or arity == 1 else 3 * width
        if kind == "mlp":
            self.layers = nn.Sequential(
                nn.Dropout(dropout),
                nn.Linear(num_features, hidden_width),
                nn.GELU(),
                nn.Dropout(dropout),
                nn.Linear(hidden_width, num_outputs),
            )
        elif kind == "paper":
            self.layers = nn.Sequential(
                nn.Linear(num_features, PAPER_WIDTH), nn.Tanh(), nn.Linear(PAPER_WIDTH, num_outputs)
            )
        else:
            self.layers = nn.Sequential(nn.Linear(num_features, num_outputs))

    @torch.no_grad()
    def standardize(self, vectors_PD: Tensor) -> None:
        """Take centre and scale from the vectors of (a sample of) the training proteins, before training."""
        self.center_D.copy_(vectors_PD.mean(dim=0))
        self.scale_D.copy_(vectors_PD.std(dim=0, correction=0).clamp_min(1e-4))

    def forward(self, vectors_BKD: Tensor) -> Tensor:
        """Logits (B, C) in float32."""
        standard_BKD = (vectors_BKD - self.center_D) / self.scale_D
        return self.layers(self.features(standard_BKD))
