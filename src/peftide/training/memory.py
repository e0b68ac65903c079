"""How many tokens to encode at once: from the memory there is and what a token costs."""

import os

import torch

from peftide.models.machine import Machine

LARGEST_BUDGET = 262_144
SMALLEST_BUDGET = 1_024
MEMORY_SHARE = 0.5  # of what is free, for activations


def activation_bytes_per_token(machine: Machine, *, width: int, inner_width: int, num_layers: int) -> int:
    """Bytes kept per token for the backward pass of `num_layers` trained layers.

    Counted over the layer as `models.packed` runs it: about 12 vectors of the width and 1 of the inner width in the
    layer's arithmetic; on a CPU the attention's 5 are float32.
    """
    size = 2 if machine.dtype == torch.bfloat16 else 4
    attention_size = size if machine.device.type == "cuda" else 4
    return num_layers * (width * (7 * size + 5 * attention_size) + 2 * inner_width * size) + 8 * width * 4


def free_memory_bytes(device: torch.device) -> int:
    """Free memory of the GPU, or memory that this process could still take."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def choose_token_budget(machine: Machine, *, width: int, inner_width: int, num_layers: int) -> int:
    """Tokens at once that take about half of the free memory, between 1,024 and 262,144."""
    per_token = activation_bytes_per_token(machine, width=width, inner_width=inner_width, num_layers=max(1, num_layers))
    fitting = int(MEMORY_SHARE * free_memory_bytes(machine.device)) // per_token
    return max(SMALLEST_BUDGET, min(LARGEST_BUDGET, fitting))
