"""AdamW with decay groups, and the learning rate of each step."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from peftide.models.sharded import own_share
from peftide.training.ranks import Ranks

DEFAULT_LEARNING_RATES = {"head": 1e-3, "lora": 1e-3, "full": 1e-4}


def make_optimizer(modules: Iterable[nn.Module], *, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW over the trained parameters: matrices decay (LoRA's too, as in the paper), norms and biases do not."""
    trained = [p for module in modules for p in module.parameters() if p.requires_grad]
    shared = [p for p in trained if isinstance(p, DTensor)]  # in groups of their own: no operation takes both kinds
    groups = [
        {"params": [p for p in kind if (p.ndim >= 2) == decays], "weight_decay": weight_decay if decays else 0.0}
        for kind in ([p for p in trained if not isinstance(p, DTensor)], shared)
        for decays in (True, False)
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=learning_rate, fused=True)


def clip_gradients(parameters: Sequence[nn.Parameter], limit: float, ranks: Ranks) -> float:
    """Scale the gradients so that the norm of all of them together is at most `limit`; their norm before."""
    if not ranks.shards:
        return nn.utils.clip_grad_norm_(parameters, limit).item()
    gradients = [p.grad for p in parameters if p.grad is not None]
    shared = [own_share(gradient) for gradient in gradients if isinstance(gradient, DTensor)]
    plain = [gradient for gradient in gradients if not isinstance(gradient, DTensor)]
    own, same = (float(sum(part.square().sum() for part in parts)) for parts in (shared, plain))
    norm = math.sqrt(ranks.sum_numbers([own])[0] + same)
    for part in (*shared, *plain):
        part.mul_(min(1.0, limit / (norm + 1e-6)))
    return norm


def learning_rate_at(step: int, *, num_steps: int, peak: float, warmup_fraction: float) -> float:
    """Linear rise over the warm-up, then a cosine to zero at `num_steps` (Loshchilov & Hutter 2017)."""
    num_warmup = round(warmup_fraction * num_steps)
    if step < num_warmup:
        return peak * (step + 1) / num_warmup
    progress = (step - num_warmup) / max(1, num_steps - num_warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))
