"""Stock ESM-2 modules run on packed sequences: no padding, no mask, no neighbour that could change a result.

Shapes: T tokens of a packed batch, S pieces (sequences), P proteins, D width, H heads, d width of a head.

The layers are walked here, over the stock modules with their stock names, instead of through `EsmLayer.forward`:
the walk takes (T, D) without a batch axis, uses the fused GELU (the stock one is 4.6 times slower on a CPU), and runs
trained float32 weights next to frozen bfloat16 ones. Equality with the stock forward is tested.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention.varlen import varlen_attn
from torch.utils.checkpoint import checkpoint
from transformers import EsmModel
from transformers.models.esm.modeling_esm import EsmLayer

from peftide.models.tokens import Pieces

# ESM-2 was trained with 15 % of the tokens chosen and 80 % of those masked (Lin et al. 2023; stock `EsmEmbeddings`).
MASK_RATIO_IN_TRAINING = 0.15 * 0.8
POOLED_TOGETHER = 64  # proteins; a matrix for all would grow with their number times their tokens
LENGTH_STEP = 512  # tokens; the grid of the attention kernel is sized by the longest piece, its work is not


@dataclass(frozen=True)
class PackedBatch:
    """Sequences laid end to end.

    ids_T: token ids; positions_T: position in its own piece; offsets: (S + 1,) int32 starts of the pieces;
    lengths: tokens of each piece, on the host; poolings: float32, for so many proteins and their tokens at a time a
    matrix whose row p holds the share of each token in protein p's vector; has_mask: whether a `<mask>` is among the
    tokens.
    """

    ids_T: Tensor
    positions_T: Tensor
    offsets: Tensor
    lengths: tuple[int, ...]
    poolings: tuple[Tensor, ...]
    has_mask: bool

    @property
    def num_tokens(self) -> int:
        """Tokens in the batch, `<cls>` and `<eos>` included."""
        return len(self.ids_T)


def pack(proteins: Sequence[Pieces], *, pooling: str, mask_id: int, device: torch.device) -> PackedBatch:
    """Lay the pieces of all proteins end to end.

    pooling: "mean" shares each protein's vector among its residues; "cls" among the `<cls>` tokens of its pieces.
    """
    tokens = [piece for protein in proteins for piece in protein.tokens]
    lengths = tuple(len(piece) for piece in tokens)
    ids = np.concatenate(tokens)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    positions = np.arange(len(ids)) - np.repeat(offsets[:-1], lengths)
    groups = [proteins[start : start + POOLED_TOGETHER] for start in range(0, len(proteins), POOLED_TOGETHER)]
    return PackedBatch(
        ids_T=torch.from_numpy(ids).to(device),
        positions_T=torch.from_numpy(positions).to(device),
        offsets=torch.from_numpy(offsets.astype(np.int32)).to(device),
        lengths=lengths,
        poolings=tuple(_pooling(group, pooling, device) for group in groups),
        has_mask=bool((ids == mask_id).any()),
    )


def _pooling(proteins: Sequence[Pieces], pooling: str, device: torch.device) -> Tensor:
    """The matrix (P, T) that takes the states of these proteins' tokens to their vectors."""
    owners = np.repeat(np.arange(len(proteins)), [protein.num_tokens for protein in proteins])
    shares = np.concatenate([_shares(protein, pooling) for protein in proteins])
    pooling_PT = torch.zeros(len(proteins), len(owners), device=device)
    places = torch.from_numpy(owners).to(device), torch.arange(len(owners), device=device)
    pooling_PT[places] = torch.from_numpy(shares).to(device)
    return pooling_PT


def _shares(protein: Pieces, pooling: str) -> np.ndarray:
    """The share of each token of a protein in its vector (sum 1), float32."""
    if pooling == "cls":
        parts = [np.eye(1, len(piece), dtype=np.float32)[0] / len(protein.tokens) for piece in protein.tokens]
    else:  # nothing for <cls> and <eos>
        parts = [np.pad(weights, 1) for weights in protein.weights]
    return np.concatenate(parts)


def pool(hidden_TD: Tensor, batch: PackedBatch) -> Tensor:
    """Protein vectors (P, D) in float32: small matrix products, deterministic in both directions."""
    tokens = hidden_TD.float().split([pooling_PT.shape[1] for pooling_PT in batch.poolings])
    return torch.cat([pooling_PT @ own_TD for pooling_PT, own_TD in zip(batch.poolings, tokens, strict=True)])


def linear(module: nn.Module, x: Tensor) -> Tensor:
    """Apply a linear layer, with its LoRA update if it has one, in the arithmetic of `x`.

    Trained weights stay float32 and are rounded here for the product; frozen ones already have the dtype of `x`.
    """
    if isinstance(module, LoraLinear) and not (module.disable_adapters or module.merged or module.lora_variant):
        y = linear(module.base_layer, x)
        for name in module.active_adapters:
            if name in module.lora_A:
                a, b = _weight(module.lora_A[name]).to(x.dtype), _weight(module.lora_B[name])
                update = F.linear(dropout(module.lora_dropout[name], x), a)
                y = y + F.linear(update, (b * module.scaling[name]).to(x.dtype))
        return y
    if isinstance(module, nn.Linear):
        return F.linear(x, module.weight.to(x.dtype), None if module.bias is None else module.bias.to(x.dtype))
    return module(x)


def dropout(module: nn.Module, x: Tensor) -> Tensor:
    """Apply a dropout layer; on a CPU with 16 random bits for each value, three times as fast as PyTorch's own.

    The rate is rounded to a multiple of 2^-16, and what is kept is scaled by the rounded rate.
    """
    if not (isinstance(module, nn.Dropout) and module.training and module.p > 0 and x.device.type == "cpu"):
        return module(x)
    num_dropped = min(round(module.p * 2**16), 2**16 - 1)
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)  # all of their 64 bits
    is_kept = words.view(torch.int16)[: x.numel()].view(x.shape) >= num_dropped - 2**15
    return torch.where(is_kept, x * (2**16 / (2**16 - num_dropped)), 0)


def _weight(module: nn.Module) -> Tensor:
    assert isinstance(module, nn.Linear)
    return module.weight


def layer_norm(module: nn.LayerNorm, x: Tensor) -> Tensor:
    """Layer norm in the arithmetic of `x`."""
    return F.layer_norm(x, module.normalized_shape, module.weight.to(x.dtype), module.bias.to(x.dtype), module.eps)


def rotate(x_THd: Tensor, cos_T1d: Tensor, sin_T1d: Tensor) -> Tensor:
    """Rotary position embedding (Su et al. 2021), halves convention of ESM-2; float32 inside."""
    first, second = x_THd.float().chunk(2, dim=-1)
    return torch.cat([first * cos_T1d - second * sin_T1d, second * cos_T1d + first * sin_T1d], dim=-1)


class Spans(NamedTuple):
    """Where the pieces lie, as attention needs it.

    offsets: (S + 1,) int32, and longest, at least the longest piece: for the variable-length kernel. lengths: for one
    call per piece, empty where the kernel serves (a compiled layer must not depend on them).
    """

    offsets: Tensor
    longest: int
    lengths: tuple[int, ...]


def spans_of(batch: PackedBatch, dtype: torch.dtype) -> Spans:
    """The spans for hidden states of `dtype`; `longest` is rounded up, so that a compiled layer sees few values."""
    if has_varlen(batch.ids_T.device, dtype):
        return Spans(batch.offsets, -(-max(batch.lengths) // LENGTH_STEP) * LENGTH_STEP, ())
    return Spans(batch.offsets, max(batch.lengths), batch.lengths)


def has_varlen(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the variable-length attention kernel serves this device and dtype."""
    return device.type == "cuda" and dtype in (torch.bfloat16, torch.float16)


def attend(q_THd: Tensor, k_THd: Tensor, v_THd: Tensor, spans: Spans) -> Tensor:
    """Attention within each piece: variable-length kernel on CUDA in half precision, else one call per piece."""
    if not spans.lengths:
        out_THd = varlen_attn(q_THd, k_THd, v_THd, spans.offsets, spans.offsets, spans.longest, spans.longest)
        assert isinstance(out_THd, Tensor)
        return out_THd
    outputs = []
    heads_first = [x.transpose(0, 1).unsqueeze(0).split(list(spans.lengths), dim=2) for x in (q_THd, k_THd, v_THd)]
    for q, k, v in zip(*heads_first, strict=True):
        outputs.append(F.scaled_dot_product_attention(q, k, v).squeeze(0).transpose(0, 1))
    return torch.cat(outputs)


def encoder_layer(layer: EsmLayer, hidden_TD: Tensor, cos_T1d: Tensor, sin_T1d: Tensor, spans: Spans) -> Tensor:
    """One pre-norm transformer layer of ESM-2 over packed tokens (stock `EsmLayer.forward`)."""
    attention = layer.attention.self
    shape = (len(hidden_TD), attention.num_attention_heads, attention.attention_head_size)
    normed_TD = layer_norm(layer.attention.LayerNorm, hidden_TD)
    q_THd = rotate(linear(attention.query, normed_TD).view(shape), cos_T1d, sin_T1d)
    k_THd = rotate(linear(attention.key, normed_TD).view(shape), cos_T1d, sin_T1d)
    v_THd = linear(attention.value, normed_TD).view(shape)
    if not spans.lengths:
        q_THd, k_THd = q_THd.to(hidden_TD.dtype), k_THd.to(hidden_TD.dtype)
    else:  # attention gains nothing from bfloat16 on a CPU, and its backward is up to three times slower there
        v_THd = v_THd.float()
    context_TD = attend(q_THd, k_THd, v_THd, spans).reshape(len(hidden_TD), -1).to(hidden_TD.dtype)
    hidden_TD = hidden_TD + linear(layer.attention.output.dense, context_TD)
    inner = F.gelu(linear(layer.intermediate.dense, layer_norm(layer.LayerNorm, hidden_TD)))
    return hidden_TD + linear(layer.output.dense, inner)


def rotary_table(backbone: EsmModel, positions_T: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines (T, 1, d / 2) in float32."""
    assert backbone.rotary_embeddings is not None
    inverse_frequencies = backbone.rotary_embeddings.inv_freq.to(positions_T.device, torch.float32)
    angles = positions_T.float()[:, None, None] * inverse_frequencies
    return angles.cos(), angles.sin()


def embed_tokens(backbone: EsmModel, batch: PackedBatch, dtype: torch.dtype) -> Tensor:
    """Token embeddings (T, D); ESM-2's token dropout scale is taken per piece (stock `EsmEmbeddings.forward`)."""
    embeddings = backbone.embeddings
    hidden_TD = embeddings.word_embeddings(batch.ids_T).to(dtype)
    if embeddings.token_dropout:
        scale = 1 - MASK_RATIO_IN_TRAINING
        if batch.has_mask:
            masked_T = batch.ids_T == embeddings.mask_token_id
            masked = [piece.float().mean() for piece in masked_T.split(list(batch.lengths))]
            lengths = torch.tensor(batch.lengths, device=hidden_TD.device)
            scale = (scale / (1 - torch.stack(masked))).repeat_interleave(lengths)[:, None].to(dtype)
            hidden_TD = hidden_TD.masked_fill(masked_T[:, None], 0.0)
        hidden_TD = hidden_TD * scale
    if embeddings.layer_norm is not None:
        hidden_TD = layer_norm(embeddings.layer_norm, hidden_TD)
    return hidden_TD


LayerFunction = Callable[[EsmLayer, Tensor, Tensor, Tensor, Spans], Tensor]


def run_layers(
    backbone: EsmModel,
    hidden_TD: Tensor,
    batch: PackedBatch,
    *,
    first: int,
    wanted: Sequence[int],
    checkpoint_layers: bool = False,
    layer_function: LayerFunction = encoder_layer,
) -> Tensor:
    """Hidden states (T, M D) of each token side by side: after each of the M `wanted` layers, in rising order.

    Layers are counted from 1. hidden_TD: the states after layer `first`, or the embedded tokens where it is 0. The
    final layer norm follows the top layer, as in the stock model.
    checkpoint_layers: recompute each layer in the backward pass (non-reentrant, so adapters get their gradients
    although the input carries none).
    """
    cos_T1d, sin_T1d = rotary_table(backbone, batch.positions_T)
    spans = spans_of(batch, hidden_TD.dtype)
    states = [hidden_TD] if first in wanted else []
    for number, layer in enumerate(list(backbone.encoder.layer)[first : wanted[-1]], start=first + 1):
        assert isinstance(layer, EsmLayer)
        inputs = (layer, hidden_TD, cos_T1d, sin_T1d, spans)
        if checkpoint_layers and torch.is_grad_enabled():
            hidden_TD = checkpoint(layer_function, *inputs, use_reentrant=False)
        else:
            hidden_TD = layer_function(*inputs)
        if number in wanted:
            states.append(hidden_TD)
    if first < wanted[-1] == len(backbone.encoder.layer):
        states[-1] = layer_norm(backbone.encoder.emb_layer_norm_after, states[-1])
    return states[0] if len(states) == 1 else torch.cat(states, dim=-1)


def hidden_states(backbone: EsmModel, batch: PackedBatch, *, dtype: torch.dtype) -> Tensor:
    """Last hidden states (T, D) of the whole backbone, as stock `EsmModel` gives for each piece alone."""
    return run_layers(
        backbone, embed_tokens(backbone, batch, dtype), batch, first=0, wanted=[len(backbone.encoder.layer)]
    )
