"""The encoder: a backbone on a device, its frozen layers computed once per protein, its trained layers on top.

Shapes: T tokens, P proteins, D width (of all states side by side, where several layers give them).
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from peftide.errors import UserError
from peftide.inference.device_states import DeviceStates
from peftide.inference.store import StateStore
from peftide.models.adapters import base_model, first_trained_layer
from peftide.models.backbones import Backbone
from peftide.models.machine import Machine
from peftide.models.packed import (
    LayerFunction,
    PackedBatch,
    embed_tokens,
    encoder_layer,
    has_varlen,
    pack,
    pool,
    run_layers,
)
from peftide.models.property_model import PropertyModel
from peftide.models.sharded import shard_backbone
from peftide.models.tokens import Pieces


class Encoder:
    """Turns proteins into vectors with `model` (the backbone's stock model, or peft's wrapper of it).

    The layers below the first trained one run without gradient; with `states` their output is kept there and each
    piece of a protein passes through them once, in this run and in later ones. That is exact: frozen layers have no
    dropout (ESM-2 is trained without, and LoRA's sits on trained layers), pieces are cut by a fixed rule, and a state
    is stored in the dtype in which it was computed.

    state_layers: the layers, counted from 1 and rising, whose states side by side are those of a token; the last alone
    when absent. Layers above are not computed. Where some lie below the first trained layer, the cache holds the states
    of the lowest of them, unless `lower_vectors` gives what the proteins' vectors have of these layers.
    num_shares: processes among which the weights are shared out, where every layer is trained; see `models.sharded`.
    """

    def __init__(
        self,
        backbone: Backbone,
        model: nn.Module,
        machine: Machine,
        *,
        pooling: str = "mean",
        state_layers: Sequence[int] = (),
        checkpoint_layers: bool = False,
        compile_layers: bool = False,
        num_shares: int = 1,
    ):
        self.backbone = backbone
        self.model = model
        self.machine = machine
        self.pooling = pooling
        self.checkpoint_layers = checkpoint_layers
        self.states: StateStore | None = None
        self.device_states: DeviceStates | None = None
        self.esm = base_model(model)
        self.state_layers = tuple(state_layers) or (backbone.num_layers,)
        self.first_trained = first_trained_layer(model)
        self.lower_vectors: Callable[[Sequence[Pieces]], Tensor] | None = None
        self.layer_function = compiled_layer(machine) if compile_layers else encoder_layer
        self.is_sharded = num_shares > 1
        if self.is_sharded:
            assert self.num_frozen_layers == 0
            shard_backbone(
                self.esm, machine,
                num_shares=num_shares, state_layers=self.state_layers, checkpoint_layers=checkpoint_layers,
            )  # fmt: skip
        else:
            place(model, machine)

    @property
    def lower_layers(self) -> tuple[int, ...]:
        """The state layers whose states stay as they are: those that come before the first trained one's input."""
        return tuple(layer for layer in self.state_layers if layer < self.first_trained)

    @property
    def num_frozen_layers(self) -> int:
        """Layers that are computed once for each protein, their output kept."""
        return min(self.first_trained, self.state_layers[0]) if self.lower_vectors is None else self.first_trained

    @property
    def width(self) -> int:
        """Length of a token's states and of a protein's vector: D of the backbone for each of `state_layers`."""
        return len(self.state_layers) * self.backbone.width

    @property
    def layers_text(self) -> str:
        """The state layers as they are written in a setting, e.g. `4,6,8`."""
        return ",".join(map(str, self.state_layers))

    def vectors(self, proteins: Sequence[Pieces]) -> Tensor:
        """Vectors (P, D) in float32, with gradient where it is enabled and something below is trained."""
        if self.lower_vectors is None:
            return pool(*self.hidden(proteins))
        upper_PD = pool(*self._states(proteins, self.state_layers[len(self.lower_layers) :]))
        return torch.cat([self.lower_vectors(proteins), upper_PD], dim=1)

    def hidden(self, proteins: Sequence[Pieces]) -> tuple[Tensor, PackedBatch]:
        """The states (T, D) of all pieces of the proteins, and the batch that says which is whose."""
        assert self.lower_vectors is None, "the states of lower layers are not computed"
        return self._states(proteins, self.state_layers)

    def _states(self, proteins: Sequence[Pieces], wanted: Sequence[int]) -> tuple[Tensor, PackedBatch]:
        batch = self._pack(proteins)
        if self.is_sharded:
            has_gradient = torch.is_grad_enabled()
            with torch.inference_mode(False), torch.set_grad_enabled(has_gradient):  # the gathered weights live on
                return self.esm(batch), batch
        if self.num_frozen_layers == 0:
            hidden_TD = embed_tokens(self.esm, batch, self.machine.dtype)
        else:
            with torch.no_grad():
                hidden_TD = self._frozen_states(proteins, batch)
        return self._run(hidden_TD, batch, self.num_frozen_layers, wanted), batch

    def _pack(self, proteins: Sequence[Pieces]) -> PackedBatch:
        mask_id = self.backbone.vocabulary.mask_id
        return pack(proteins, pooling=self.pooling, mask_id=mask_id, device=self.machine.device)

    def _run(self, hidden_TD: Tensor, batch: PackedBatch, first: int, wanted: Sequence[int]) -> Tensor:
        return run_layers(
            self.esm, hidden_TD, batch, first=first, wanted=wanted,
            checkpoint_layers=self.checkpoint_layers, layer_function=self.layer_function,
        )  # fmt: skip

    def _compute_frozen(self, batch: PackedBatch) -> Tensor:
        return self._run(embed_tokens(self.esm, batch, self.machine.dtype), batch, 0, [self.num_frozen_layers])

    def _frozen_states(self, proteins: Sequence[Pieces], batch: PackedBatch) -> Tensor:
        """Output of the frozen layers (T, D): from the device, else from the store, else computed."""
        if self.states is None and self.device_states is None:
            return self._compute_frozen(batch)
        tokens = [piece for protein in proteins for piece in protein.tokens]
        keys = [key for protein in proteins for key in protein.keys]
        if self.device_states is None:
            return self._stored(tokens, keys)
        if absent := self.device_states.missing(keys):
            absent_keys = [keys[i] for i in absent]
            fresh_TD = self._stored([tokens[i] for i in absent], absent_keys)
            self.device_states.put(absent_keys, [len(tokens[i]) for i in absent], fresh_TD)
        return self.device_states.gather(keys)

    def _stored(self, tokens: Sequence[np.ndarray], keys: Sequence[bytes]) -> Tensor:
        """States (T, D) of pieces on the device, from the store; what it does not have is computed and stored."""
        if self.states is None:
            return self._compute_pieces(tokens)
        lengths = [len(piece) for piece in tokens]
        stored, absent = self.states.gather(keys, lengths)
        hidden_TD = torch.from_numpy(stored)
        if self.machine.dtype == torch.bfloat16:
            hidden_TD = hidden_TD.view(torch.bfloat16)
        if absent:
            fresh_TD = self._compute_pieces([tokens[i] for i in absent]).cpu()
            fresh_lengths = [lengths[i] for i in absent]
            bits = fresh_TD.view(torch.uint16) if fresh_TD.dtype == torch.bfloat16 else fresh_TD
            self.states.put([keys[i] for i in absent], fresh_lengths, bits.numpy())
            places = hidden_TD.split(lengths)
            for i, fresh in zip(absent, fresh_TD.split(fresh_lengths), strict=True):
                places[i].copy_(fresh)
        return hidden_TD.to(self.machine.device)

    def _compute_pieces(self, tokens: Sequence[np.ndarray]) -> Tensor:
        """Output of the frozen layers (T, D) for pieces by themselves."""
        pieces = [Pieces(len(t) - 2, (0,), (t,), (np.zeros(len(t) - 2, dtype=np.float32),)) for t in tokens]
        return self._compute_frozen(self._pack(pieces))


def encoder_of(
    model: PropertyModel,
    machine: Machine,
    *,
    checkpoint_layers: bool = False,
    compile_layers: bool = False,
    num_shares: int = 1,
) -> Encoder:
    """The encoder of a model, which it places on the machine; the rest as in `Encoder`."""
    return Encoder(
        model.backbone,
        model.model,
        machine,
        pooling=model.pooling,
        state_layers=model.state_layers,
        checkpoint_layers=checkpoint_layers,
        compile_layers=compile_layers,
        num_shares=num_shares,
    )


def compiled_layer(machine: Machine) -> LayerFunction:
    """`encoder_layer`, compiled once for all numbers and lengths of pieces.

    Raises UserError where attention is a call per piece: what is compiled would then be of one batch alone.
    """
    if not has_varlen(machine.device, machine.dtype):
        raise UserError(
            f"--compile: layers are compiled on a CUDA GPU in bf16 alone, and this is {machine.device} in "
            f"{machine.precision}; leave it out"
        )
    return torch.compile(encoder_layer, dynamic=True)


def place(model: nn.Module, machine: Machine) -> None:
    """Move a model to its device: frozen weights in the machine's arithmetic, trained weights in float32.

    LoRA matrices stay float32 when they are no longer trained: a loaded bundle rounds them where training did.
    """
    for name, parameter in model.named_parameters():
        dtype = torch.float32 if parameter.requires_grad or "lora_" in name else machine.dtype
        parameter.data = parameter.data.to(machine.device, dtype)
    for buffer in model.buffers():
        buffer.data = buffer.data.to(machine.device)
