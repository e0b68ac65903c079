"""What training takes in memory, counted from the model, and how to run it within a limit.

Shapes: T tokens encoded at once, D width.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import nn
from transformers.models.esm.modeling_esm import EsmLayer

from peftide.config import parse_size
from peftide.inference.score import TOKENS_AT_ONCE
from peftide.models.adapters import base_model, first_trained_layer
from peftide.models.machine import Machine
from peftide.models.packed import has_varlen
from peftide.models.property_model import PropertyModel
from peftide.training.resident import available_bytes, can_free_at_once

LARGEST_BUDGET = 262_144
COMFORTABLE_BUDGET = 4_096  # tokens at once that fill a device well enough
MEMORY_SHARE = {"cuda": 0.8, "cpu": 0.5, "mps": 0.5}  # of what is left, where no limit is given
MARGIN = 0.08  # of a limit that stays unplanned: fragments, and what a count cannot see
CPU_SPREAD = 2.5  # resident memory over that of live tensors with glibc's allocator as it is (measured: 1.3 to 2.8)
FRUGAL_SPREAD = 1.05  # the same after `free_at_once`
STATES_SHARE = 0.4  # of a limit's room, for frozen hidden states held on a GPU


@dataclass(frozen=True)
class Footprint:
    """Bytes that a training run takes, by what for.

    weights: on the device; gradients, optimizer (AdamW's two moments): of the trained weights, in float32;
    rounded: copies of trained weights in the backbone's arithmetic, which the backward pass keeps;
    best: the copy of the best weights (on a GPU it lies in the host's memory, and is 0 here);
    layers: for each layer from the first trained one to the last that is computed, per token, what its backward pass
    keeps; per_state: a hidden state of a token; has_frozen_layers: whether some come before the first trained one;
    transient, transient_checkpointed: per token, what comes on top at the peak; per_token_encoding: without gradient.
    """

    weights: int
    gradients: int
    optimizer: int
    rounded: int
    best: int
    layers: tuple[int, ...]
    per_state: int
    has_frozen_layers: bool
    transient: int
    transient_checkpointed: int
    per_token_encoding: int

    @property
    def fixed(self) -> int:
        """All that does not depend on the tokens encoded at once."""
        return self.weights + self.gradients + self.optimizer + self.rounded + self.best

    def per_token(self, *, checkpoint_layers: bool) -> int:
        """Bytes for each token encoded at once, with gradient where anything of the backbone is trained."""
        if not self.layers:
            return self.per_token_encoding
        on_top = max(self.layers) + self.transient_checkpointed if checkpoint_layers else self.transient
        return max(self.kept_per_token(checkpoint_layers=checkpoint_layers) + on_top, self.per_token_encoding)

    def kept_per_token(self, *, checkpoint_layers: bool) -> int:
        """Bytes for each token whose graph is held."""
        return len(self.layers) * self.per_state if checkpoint_layers else sum(self.layers)


@dataclass(frozen=True)
class Execution:
    """How a run is carried out: nothing here changes its result.

    token_budget: tokens encoded at once; is_frugal: see `free_at_once`; holds_states: whether there is room to keep
    frozen hidden states on the GPU; planned_bytes: what the run was reckoned to hold at its peak, at most.
    """

    token_budget: int
    checkpoint_layers: bool
    is_frugal: bool
    holds_states: bool
    planned_bytes: int


def footprint(model: PropertyModel, machine: Machine) -> Footprint:
    """Count what training `model` takes; its tensors may be on the meta device."""
    esm = base_model(model.model)
    config = esm.config
    size = machine.dtype.itemsize
    frozen, trained, rounded = 0, 0, 0
    for parameter in model.model.parameters():
        frozen += 0 if parameter.requires_grad else parameter.numel()
        trained += parameter.numel() if parameter.requires_grad else 0
        rounded += parameter.numel() * size if parameter.requires_grad and machine.dtype != torch.float32 else 0
    head = sum(parameter.numel() for parameter in model.head.parameters())
    width, inner = config.hidden_size, config.intermediate_size
    table_bytes = 4 * width // config.num_attention_heads  # cosines and sines of the rotary positions
    attention_size = size if has_varlen(machine.device, machine.dtype) else 4
    pooled = len(model.state_layers) * width * (size + 4)  # the states side by side, and their float32 copy
    encoding = size * (2 * inner + 4 * width) + 3 * attention_size * width
    held = (len(model.state_layers) - 1) * width * size  # states of lower layers, while those above are computed
    first_trained = first_trained_layer(model.model)
    layers = list(esm.encoder.layer)[first_trained : model.state_layers[-1]]
    return Footprint(
        weights=frozen * size + 4 * (trained + head),
        gradients=4 * (trained + head),
        optimizer=8 * (trained + head),
        rounded=rounded,
        best=0 if machine.device.type == "cuda" else 4 * (trained + head),
        layers=tuple(_kept_per_token(layer, machine, width=width, inner=inner) for layer in layers),  # pyrefly: ignore
        per_state=width * size,
        has_frozen_layers=first_trained > 0,
        transient=max(size * (inner + 2 * width), pooled) + table_bytes,
        transient_checkpointed=max(size * (inner + 4 * width), pooled) + table_bytes,
        per_token_encoding=held + max(encoding, pooled) + table_bytes,
    )


def shared_out(need: Footprint, num_shares: int, *, num_layers: int) -> Footprint:
    """What each of several processes takes that share out weights, gradients and moments.

    Besides its share a process holds a few whole layers: the one at work, the next on its way, and a gradient.
    """
    return replace(
        need,
        weights=math.ceil(need.weights / num_shares) + 3 * math.ceil(need.weights / num_layers),
        gradients=math.ceil(need.gradients / num_shares),
        optimizer=math.ceil(need.optimizer / num_shares),
        rounded=0,
        best=math.ceil(need.best / num_shares),
    )


def _kept_per_token(layer: EsmLayer, machine: Machine, *, width: int, inner: int) -> int:
    """Bytes per token that `models.packed.encoder_layer` keeps for its backward pass.

    Always: the inputs of the two layer norms with mean and scale (float32), query, key, value and output of the
    attention, its log-sum-exp (float32), and the input of the GELU. For a trained or adapted matrix also its input,
    of which LoRA's dropout makes a copy of its own beside its mask, and what lies between LoRA's two matrices.
    """
    size = machine.dtype.itemsize
    has_kernel = has_varlen(machine.device, machine.dtype)
    attention_size = size if has_kernel else 4
    attention = layer.attention.self
    groups = (
        (width, (attention.query, attention.key, attention.value), False),
        (width, (layer.attention.output.dense,), has_kernel),  # there the kernel's output itself
        (width, (layer.intermediate.dense,), False),
        (inner, (layer.output.dense,), False),
    )
    kept = 2 * (width * size + 8) + 4 * width * attention_size + 4 * attention.num_attention_heads + inner * size
    mask_size = size if machine.device.type == "mps" else 1
    for numbers, matrices, is_kept_anyway in groups:
        dropped = sum(_has_dropout(matrix) for matrix in matrices)
        plain = any(_is_trained(matrix) and not _has_dropout(matrix) for matrix in matrices)
        kept += dropped * numbers * (size + mask_size) + (plain and not is_kept_anyway) * numbers * size
        kept += sum(sum(matrix.r.values()) for matrix in matrices if isinstance(matrix, LoraLinear)) * size
    return kept


def _is_trained(matrix: nn.Module) -> bool:
    return isinstance(matrix, LoraLinear) or any(parameter.requires_grad for parameter in matrix.parameters())


def _has_dropout(matrix: nn.Module) -> bool:
    return isinstance(matrix, LoraLinear) and any(getattr(d, "p", 0) > 0 for d in matrix.lora_dropout.values())


def memory_limit(memory: str | None, device: torch.device, *, held_bytes: int, num_sharing: int = 1) -> int:
    """Bytes to keep within: the user's limit, or a share of what is left beside what is held.

    num_sharing: processes that train together on this machine and share its memory (not that of a GPU of their own).
    """
    if memory is not None:
        limit_bytes = parse_size(memory)
        assert limit_bytes is not None, f"memory = {memory}: the settings were not checked"
        return limit_bytes
    num_sharing = 1 if device.type == "cuda" else num_sharing
    return held_bytes + round(MEMORY_SHARE[device.type] * available_bytes(device) / num_sharing)


def choose_execution(
    need: Footprint,
    machine: Machine,
    tokens: Sequence[int],
    *,
    held_bytes: int,
    limit_bytes: int,
    checkpoint_layers: bool,
    token_budget: int | None,
    must_fit: bool,
) -> Execution | None:
    """The fastest way to train within `limit_bytes`; None where even the leanest does not fit.

    Tried in order, until a comfortable number of tokens fits at once: as it is; memory returned at once (CPU); layers
    checkpointed. What does not fit at once is encoded in parts, down to one protein.
    tokens: of each protein. held_bytes: what the process holds before the weights are loaded. must_fit: the limit is
    the user's; otherwise it is a wish, and the leanest way is taken rather than none.
    """
    longest, total = max(tokens), sum(tokens)
    largest = min(token_budget or LARGEST_BUDGET, LARGEST_BUDGET)
    enough = min(total, max(longest, min(largest, COMFORTABLE_BUDGET)))
    room = limit_bytes * (1 - MARGIN) - held_bytes - need.fixed
    keeps_states = machine.device.type == "cuda" and bool(need.layers) and need.has_frozen_layers
    states_bytes = need.per_state * total if keeps_states else 0
    frugal = must_fit and can_free_at_once(machine.device)
    ways = [(checkpoint_layers, False)]
    if frugal:
        ways.append((checkpoint_layers, True))
    if need.layers:
        ways.append((True, frugal))
    way, per_token, fitting = ways[0], 0.0, 0
    for way in ways:
        per_token = _spread(machine, is_frugal=way[1]) * need.per_token(checkpoint_layers=way[0])
        fitting = math.floor(room / per_token)
        if fitting >= enough:
            break
    if fitting < longest and must_fit:
        return None
    holds_states = keeps_states and states_bytes <= min(STATES_SHARE * room, room - per_token * enough)
    if holds_states:
        fitting = math.floor((room - states_bytes) / per_token)
    budget = min(max(fitting, longest), largest)
    return Execution(
        token_budget=budget,
        checkpoint_layers=way[0],
        is_frugal=way[1],
        holds_states=holds_states,
        planned_bytes=round(
            held_bytes + need.fixed + holds_states * states_bytes + per_token * min(max(budget, longest), total)
        ),
    )


def least_bytes(need: Footprint, machine: Machine, tokens: Sequence[int], *, held_bytes: int) -> int:
    """The smallest limit with which `choose_execution` finds a way: one protein at a time, layers checkpointed."""
    spread = _spread(machine, is_frugal=can_free_at_once(machine.device))
    leanest = min(need.per_token(checkpoint_layers=True), need.per_token(checkpoint_layers=False))
    return math.ceil((held_bytes + need.fixed + spread * leanest * max(tokens)) / (1 - MARGIN))


def _spread(machine: Machine, *, is_frugal: bool) -> float:
    if machine.device.type != "cpu":
        return 1.0
    return FRUGAL_SPREAD if is_frugal else CPU_SPREAD


def encoding_budget(token_budget: int, device: torch.device) -> int:
    """Tokens to encode in one call: more than fills the device would only take memory."""
    return min(token_budget, TOKENS_AT_ONCE[device.type])
