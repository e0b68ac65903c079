"""A backbone of which each process holds a share of every weight (torch's `fully_shard`), for full fine-tuning.

The weights of a layer are whole on a device only while it is computed. The hooks that see to it fire when a module is
called, so the packed walk becomes the `forward` of the backbone and of its layers here. Every process has to make the
same calls in the same order, with proteins of its own: each waits for the others' shares.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils.checkpoint import checkpoint
from transformers import EsmModel
from transformers.models.esm.modeling_esm import EsmLayer

from peftide.models.machine import Machine
from peftide.models.packed import PackedBatch, Spans, embed_tokens, encoder_layer, run_layers


def shard_backbone(
    esm: EsmModel, machine: Machine, *, num_shares: int, state_layers: Sequence[int], checkpoint_layers: bool
) -> None:
    """Leave this process with its share of the weights, on its device, in float32; gradients are summed, not averaged.

    The weights of layers travel in the arithmetic of the machine, to which the walk would round them anyway. Afterwards
    `esm(batch)` gives the hidden states of a packed batch after `state_layers`, side by side.
    """
    mesh = init_device_mesh(machine.device.type, (num_shares,))
    rounded = None if machine.dtype == torch.float32 else machine.dtype
    policy = MixedPrecisionPolicy(param_dtype=rounded, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for layer in esm.encoder.layer:
        assert isinstance(layer, EsmLayer)
        layer.forward = partial(_layer_forward, layer, checkpoint_layers)  # pyrefly: ignore[bad-assignment]
        fully_shard(layer, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    esm.forward = partial(_forward, esm, machine.dtype, state_layers)  # pyrefly: ignore[bad-assignment]
    # What is left are embeddings and final norm, small, and the gradients of embeddings are long sums: float32. They
    # are let go after each forward pass too, for the weights may change before the next.
    fully_shard(esm, mesh=mesh, reshard_after_forward=True)
    for module in esm.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def _forward(esm: EsmModel, dtype: torch.dtype, state_layers: Sequence[int], batch: PackedBatch) -> Tensor:
    hidden_TD = embed_tokens(esm, batch, dtype)
    return run_layers(esm, hidden_TD, batch, first=0, wanted=state_layers, layer_function=_call)


def _call(layer: EsmLayer, hidden_TD: Tensor, cos_T1d: Tensor, sin_T1d: Tensor, spans: Spans) -> Tensor:
    return layer(hidden_TD, cos_T1d, sin_T1d, spans)


def _layer_forward(
    layer: EsmLayer, checkpoint_layers: bool, hidden_TD: Tensor, cos_T1d: Tensor, sin_T1d: Tensor, spans: Spans
) -> Tensor:
    inputs = (layer, hidden_TD, cos_T1d, sin_T1d, spans)
    if checkpoint_layers and torch.is_grad_enabled():
        return checkpoint(encoder_layer, *inputs, use_reentrant=False)
    return encoder_layer(*inputs)


def whole_backbone(esm: EsmModel, *, is_wanted: bool) -> EsmModel | None:
    """The stock model with all weights, on the CPU, where it is wanted; every process has to ask at the same time."""
    state = {name: whole(tensor, is_wanted=is_wanted) for name, tensor in esm.state_dict().items()}
    if not is_wanted:
        return None
    model = EsmModel(esm.config, add_pooling_layer=False)
    model.load_state_dict(state)
    return model


def whole(tensor: Tensor, *, is_wanted: bool = True) -> Tensor:
    """All of a tensor that may be shared out, on the CPU; where it is not wanted, nothing (but the others need us)."""
    if isinstance(tensor, DTensor):
        tensor = tensor.full_tensor()
    return tensor.detach().cpu() if is_wanted else torch.empty(0)


@torch.no_grad()
def own_share(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor, itself: all of it where it is not shared out."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor.detach()


def share_like(content: Tensor, like: Tensor) -> Tensor:
    """`content`, all of it on every process, shared out as `like` is, on its device."""
    content = content.to(like.device)
    return distribute_tensor(content, like.device_mesh, like.placements) if isinstance(like, DTensor) else content


def joined_like(own: Tensor, like: Tensor) -> Tensor:
    """A tensor shared out as `like` is, of which this process has `own`."""
    if not isinstance(like, DTensor):
        return own
    joined = torch.zeros_like(like)
    own_share(joined).copy_(own)
    return joined
