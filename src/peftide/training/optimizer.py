"""AdamW with decay groups, and the learning rate of each step."""

import math
from collections.abc import Iterable

import torch
from torch import nn

DEFAULT_LEARNING_RATES = {"head": 1e-3, "lora": 1e-3, "full": 1e-4}


def make_optimizer(modules: Iterable[nn.Module], *, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW over the trained parameters: matrices decay (LoRA's too, as in the paper), norms and biases do not."""
    trained = [p for module in modules for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, fused=True)


def learning_rate_at(step: int, *, num_steps: int, peak: float, warmup_fraction: float) -> float:
    """Linear rise over the warm-up, then a cosine to zero at `num_steps` (Loshchilov & Hutter 2017)."""
    num_warmup = round(warmup_fraction * num_steps)
    if step < num_warmup:
        return peak * (step + 1) / num_warmup
    progress = (step - num_warmup) / max(1, num_steps - num_warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))
