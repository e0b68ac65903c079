"""Compiled layers: the same numbers, and never compiled again for a new batch."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from conftest import random_sequence
from peftide.errors import UserError
from peftide.inference import encoder as encoder_module
from peftide.inference.encoder import Encoder
from peftide.models import packed
from peftide.models.adapters import add_lora
from peftide.models.backbones import load_backbone
from peftide.models.machine import Machine
from peftide.models.tokens import cut_pieces

# PyTorch's compiler imports parts of PyTorch that warn of their own deprecation, and looks at gradients of non-leaves
pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
]
CPU = Machine(torch.device("cpu"), torch.float32)


def masked_attention(q_THd, k_THd, v_THd, offsets, _, most_queries, most_keys):
    """What the CUDA kernel computes, from the same arguments, in plain operations that a compiler can trace."""
    piece_T = torch.searchsorted(offsets[1:], torch.arange(len(q_THd)), right=True)
    is_same_TT = piece_T[:, None] == piece_T[None, :]
    assert most_queries == most_keys
    heads_first = (x.transpose(0, 1) for x in (q_THd, k_THd, v_THd))
    return F.scaled_dot_product_attention(*heads_first, attn_mask=is_same_TT).transpose(0, 1)


@pytest.fixture
def kernel_on_cpu(monkeypatch):
    """PyTorch's variable-length kernel, which needs CUDA, stood in for on a CPU; the compiler only traces."""
    monkeypatch.setattr(packed, "varlen_attn", masked_attention)
    monkeypatch.setattr(packed, "has_varlen", lambda device, dtype: True)
    monkeypatch.setattr(encoder_module, "has_varlen", lambda device, dtype: True)
    torch.compiler.reset()
    torch.compiler.set_stance("default", force_backend="eager")
    yield
    torch.compiler.set_stance("default")
    torch.compiler.reset()


def encoder_of(folder, *, compile_layers):
    backbone = load_backbone(str(folder), dtype=torch.float32)
    torch.manual_seed(0)
    model = add_lora(backbone, rank=4, alpha=8, dropout=0.0, matrices=("key", "value"), layers=(2, 3))
    return Encoder(backbone, model, CPU, compile_layers=compile_layers)


def batches_of(encoder, number):
    """Batches of 1 to 9 proteins of 5 to 700 residues."""
    generator = np.random.default_rng(0)
    for batch in range(number):
        lengths = generator.integers(5, 700, size=1 + batch % 9)
        sequences = [random_sequence(int(length), seed=row) for row, length in enumerate(lengths)]
        yield [
            cut_pieces(sequence, encoder.backbone.vocabulary, max_residues=1022, long_proteins="crop")
            for sequence in sequences
        ]


def test_layers_are_not_compiled_again_for_batches_of_other_lengths(esm_folder, kernel_on_cpu):
    compiled, plain = (encoder_of(esm_folder, compile_layers=flag) for flag in (True, False))
    for number, proteins in enumerate(batches_of(compiled, 20)):
        with torch._dynamo.config.patch(error_on_recompile=number >= 4):  # the first ones have the extreme shapes
            vectors_PD = compiled.vectors(proteins)
        expected_PD = plain.vectors(proteins)
        torch.testing.assert_close(vectors_PD, expected_PD, rtol=1e-5, atol=1e-5)
        gradients = [
            torch.autograd.grad(vectors.square().sum(), [p for p in one.model.parameters() if p.requires_grad])
            for one, vectors in ((compiled, vectors_PD), (plain, expected_PD))
        ]
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_compiling_is_refused_where_every_batch_would_be_compiled_anew(esm_folder):
    with pytest.raises(UserError, match="--compile: layers are compiled on a CUDA GPU in bf16 alone, and this is cpu"):
        encoder_of(esm_folder, compile_layers=True)
