"""What every benchmark runs on: backbones, real or of random weights, proteins as tokens, and the common options."""

import argparse
from collections.abc import Sequence

import numpy as np
import torch
from transformers import EsmConfig, EsmModel

from peftide.errors import UserError
from peftide.inference.encoder import place
from peftide.models.backbones import SHIPPED, Backbone, backbone_folder, fingerprint, load_backbone
from peftide.models.machine import Machine
from peftide.models.tokens import Pieces, Vocabulary, cut_pieces

# Layers, width and heads of ESM-2 (Lin et al. 2023); the feed-forward layer is four times as wide.
SHAPES = {
    "8m": (6, 320, 20),
    "35m": (12, 480, 20),
    "150m": (30, 640, 20),
    "650m": (33, 1280, 20),
    "3b": (36, 2560, 40),
}


def add_common_options(parser: argparse.ArgumentParser, *, seconds_per_variant: float) -> None:
    """The options of all benchmarks: backbone, machine, how long to time, where to write."""
    names = ", ".join(f"random:{shape}" for shape in SHAPES)
    parser.add_argument("--backbone", default=SHIPPED, help=f"any that peftide loads, or random weights: {names}")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="CPU threads; all cores when absent")
    parser.add_argument("--max-residues", type=int, default=1022, help="longer proteins are cropped (%(default)s)")
    parser.add_argument(
        "--seconds-per-variant", type=float, default=seconds_per_variant,
        help="time spent timing each variant, at least a unit of work a round (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=3, help="rounds of A B C ..., medians over them (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of pairs and the weights (%(default)s)")
    parser.add_argument("--json", metavar="OUT", help="file for the results")


def load_subject(name: str, device: torch.device) -> Backbone:
    """A backbone on the device in float32; `random:SHAPE` has an ESM-2 shape and random weights, always the same.

    Raises UserError for a name that is unknown or out of reach.
    """
    kind, _, shape = name.partition(":")
    if kind != "random":
        backbone = load_backbone(name, dtype=torch.float32)
        place(backbone.model, Machine(device, torch.float32))
        return backbone
    if shape not in SHAPES:
        raise UserError(f"--backbone {name}: no such shape; choose one of {', '.join(SHAPES)}")
    num_layers, width, num_heads = SHAPES[shape]
    vocabulary = Vocabulary.from_tokens((backbone_folder() / "vocab.txt").read_text("utf-8").split())
    config = EsmConfig(
        vocab_size=len(vocabulary.tokens), hidden_size=width, num_hidden_layers=num_layers,
        num_attention_heads=num_heads, intermediate_size=4 * width, pad_token_id=vocabulary.tokens.index("<pad>"),
        mask_token_id=vocabulary.mask_id, position_embedding_type="rotary", token_dropout=True,
        emb_layer_norm_before=False, max_position_embeddings=1026, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, layer_norm_eps=1e-5,
    )  # fmt: skip
    torch.manual_seed(0)
    with device:
        model = EsmModel(config, add_pooling_layer=False)
    model.eval().requires_grad_(False)
    model.name_or_path = name  # peft warns where it finds none
    return Backbone(
        name, None, model, vocabulary, fingerprint(model, vocabulary), fingerprint(model, vocabulary, exact=True)
    )


def cut_all(sequences: Sequence[str], backbone: Backbone, *, max_residues: int) -> list[Pieces]:
    """Each protein as the tokens of its start."""
    return [
        cut_pieces(sequence, backbone.vocabulary, max_residues=max_residues, long_proteins="crop")
        for sequence in sequences
    ]


def encoding_cost(backbone: Backbone, lengths: np.ndarray) -> float:
    """Floating-point operations of one layer over sequences of these tokens: matrix products and attention.

    Two for each weight and token, and 4 L^2 D for the scores and the weighted sum of a sequence of L tokens.
    """
    width, inner_width = backbone.width, backbone.model.config.intermediate_size
    lengths = lengths.astype(np.float64)
    return float(2 * (4 * width**2 + 2 * width * inner_width) * lengths.sum() + 4 * width * (lengths**2).sum())


def weight_bytes(*modules: torch.nn.Module) -> int:
    """Bytes of parameters and buffers."""
    return sum(t.numel() * t.element_size() for m in modules for t in [*m.parameters(), *m.buffers()])
