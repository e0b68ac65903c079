"""The encoder: a backbone on a device, its frozen layers computed once per protein, its trained layers on top.

Shapes: T tokens, P proteins, D width.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from peftide.inference.store import StateStore, sequence_key
from peftide.models.adapters import base_model, first_trained_layer
from peftide.models.backbones import Backbone
from peftide.models.machine import Machine
from peftide.models.packed import PackedBatch, embed_tokens, encoder_layer, pack, pool, run_layers
from peftide.models.tokens import Pieces


class Encoder:
    """Turns proteins into vectors with `model` (the backbone's stock model, or peft's wrapper of it).

    The layers below the first trained one run without gradient; with `states` their output is kept there and each
    piece of a protein passes through them once, in this run and in later ones. That is exact: frozen layers have no
    dropout (ESM-2 is trained without, and LoRA's sits on trained layers), pieces are cut by a fixed rule, and a state
    is stored in the dtype in which it was computed.
    """

    def __init__(
        self,
        backbone: Backbone,
        model: nn.Module,
        machine: Machine,
        *,
        pooling: str = "mean",
        checkpoint_layers: bool = False,
        compile_layers: bool = False,
    ):
        self.backbone = backbone
        self.model = model
        self.machine = machine
        self.pooling = pooling
        self.checkpoint_layers = checkpoint_layers
        self.states: StateStore | None = None
        self.esm = base_model(model)
        self.num_frozen_layers = first_trained_layer(model)
        self.layer_function = torch.compile(encoder_layer, dynamic=True) if compile_layers else encoder_layer
        place(model, machine)

    def vectors(self, proteins: Sequence[Pieces]) -> Tensor:
        """Vectors (P, D) in float32, with gradient where it is enabled and something below is trained."""
        hidden_TD, batch = self.hidden(proteins)
        return pool(hidden_TD, batch)

    def hidden(self, proteins: Sequence[Pieces]) -> tuple[Tensor, PackedBatch]:
        """Last hidden states (T, D) of all pieces of the proteins, and the batch that says which is whose."""
        batch = self._pack(proteins)
        if self.num_frozen_layers == 0:
            hidden_TD = embed_tokens(self.esm, batch, self.machine.dtype)
        else:
            with torch.no_grad():
                hidden_TD = self._frozen_states(proteins, batch)
        return self._run(hidden_TD, batch, self.num_frozen_layers, self.backbone.num_layers), batch

    def _pack(self, proteins: Sequence[Pieces]) -> PackedBatch:
        mask_id = self.backbone.vocabulary.mask_id
        return pack(proteins, pooling=self.pooling, mask_id=mask_id, device=self.machine.device)

    def _run(self, hidden_TD: Tensor, batch: PackedBatch, first: int, last: int) -> Tensor:
        if first == last:
            return hidden_TD
        return run_layers(
            self.esm, hidden_TD, batch, first=first, last=last,
            checkpoint_layers=self.checkpoint_layers, layer_function=self.layer_function,
        )  # fmt: skip

    def _compute_frozen(self, batch: PackedBatch) -> Tensor:
        return self._run(embed_tokens(self.esm, batch, self.machine.dtype), batch, 0, self.num_frozen_layers)

    def _frozen_states(self, proteins: Sequence[Pieces], batch: PackedBatch) -> Tensor:
        """Output of the frozen layers (T, D): from the store, computing and storing what it does not have yet."""
        if self.states is None:
            return self._compute_frozen(batch)
        tokens = [piece for protein in proteins for piece in protein.tokens]
        digests = [sequence_key(piece.tobytes()) for piece in tokens]
        stored, absent = self.states.gather(digests, batch.lengths)
        hidden_TD = torch.from_numpy(stored)
        if self.machine.dtype == torch.bfloat16:
            hidden_TD = hidden_TD.view(torch.bfloat16)
        if absent:
            pieces = hidden_TD.split(list(batch.lengths))
            fresh = self._store_states([tokens[i] for i in absent], [digests[i] for i in absent])
            for i, states in zip(absent, fresh, strict=True):
                pieces[i].copy_(states)
        return hidden_TD.to(self.machine.device)

    def _store_states(self, tokens: list[np.ndarray], digests: list[bytes]) -> tuple[Tensor, ...]:
        assert self.states is not None
        unpooled = np.zeros(0, dtype=np.float32)
        batch = self._pack([Pieces(0, (0,), (piece,), (unpooled,)) for piece in tokens])
        hidden_TD = self._compute_frozen(batch).cpu()
        bits = hidden_TD.view(torch.uint16) if hidden_TD.dtype == torch.bfloat16 else hidden_TD
        self.states.put(digests, batch.lengths, bits.numpy())
        return hidden_TD.split(list(batch.lengths))


def place(model: nn.Module, machine: Machine) -> None:
    """Move a model to its device: frozen weights in the machine's arithmetic, trained weights in float32."""
    for parameter in model.parameters():
        dtype = torch.float32 if parameter.requires_grad else machine.dtype
        parameter.data = parameter.data.to(machine.device, dtype)
    for buffer in model.buffers():
        buffer.data = buffer.data.to(machine.device)
