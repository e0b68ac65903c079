"""A checkpoint in ESM-2 format as files: what its config may say, and its weights, without opening what they name.

transformers would also follow an adapter's settings, a quantisation, the names of other files and of code in a config.
Here the config is numbers and flags of the encoder, checked, and the weights are those of model.safetensors (or of the
files that its index lists, in the same folder).
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import EsmConfig, EsmModel

from peftide.config.setting import FRACTION_OR_ZERO, NOT_NEGATIVE, Interval
from peftide.errors import UserError, raise_problems
from peftide.models.untrusted import (
    Shape,
    check_memory,
    check_shapes,
    load_tensors,
    number_problem,
    read_json,
    shown,
    tensor_shapes,
)

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PREFIX = "esm."  # of the encoder's names in the hub's checkpoints, which hold a language-model head beside it
OLD_ENDINGS = {".gamma": ".weight", ".beta": ".bias"}  # of norms, as some versions of transformers wrote them
FREQUENCIES = "rotary_embeddings.inv_freq"  # older checkpoints hold the same ones in every layer
NOT_NEEDED = ("contact_head", "inv_freq")  # no part of the hidden states, or computed


# Far beyond the largest ESM-2 (48 layers of width 5,120), and few enough to build its outline at once
SIZES = {
    "vocab_size": Interval(5, 1 << 16),
    "mask_token_id": Interval(0, 1 << 16),
    "pad_token_id": Interval(0, 1 << 16),
    "hidden_size": Interval(2, 1 << 16),
    "num_hidden_layers": Interval(1, 1 << 9),
    "num_attention_heads": Interval(1, 1 << 12),
    "intermediate_size": Interval(1, 1 << 20),
    "max_position_embeddings": Interval(1, 1 << 24),
}
NUMBERS = {
    "layer_norm_eps": Interval(0, 1, with_low=False),
    "rope_theta": Interval(0, 1e12, with_low=False),
    "hidden_dropout_prob": FRACTION_OR_ZERO,
    "attention_probs_dropout_prob": FRACTION_OR_ZERO,
    "initializer_range": NOT_NEGATIVE,
}
NEEDED = tuple(name for name in SIZES if name != "max_position_embeddings")
FLAGS = ("emb_layer_norm_before", "token_dropout")
DECISIVE = ("num_attention_heads", "mask_token_id", "layer_norm_eps", *FLAGS)  # for the states; not seen in the weights
OTHER_KINDS = ("is_folding_model", "is_decoder", "add_cross_attention")  # of models: none of these is an encoder


def esm_config(path: Path) -> EsmConfig:
    """The config of an ESM-2 encoder; UserError with all that is missing, of a wrong type or of an unlikely size."""
    document = read_json(path)
    model_type, position = document.get("model_type"), document.get("position_embedding_type")
    if model_type != "esm" or position != "rotary":
        raise UserError(f"{path}: a model of type {shown(model_type)} with {shown(position)} positions, not ESM-2")
    given = {name: document[name] for name in (*SIZES, *NUMBERS, *FLAGS) if document.get(name) is not None}
    problems = [f"{name} is missing" for name in NEEDED if name not in given]
    problems += [f"{name} is set, so it is no encoder" for name in OTHER_KINDS if document.get(name)]
    problems += [f"{name} {problem}" for name, value in given.items() if (problem := _problem(name, value))]
    raise_problems(f"{path}: not the config of an ESM-2 encoder", problems)
    if given["hidden_size"] % (2 * given["num_attention_heads"]):
        raise UserError(
            f"{path}: not the config of an ESM-2 encoder: hidden_size {given['hidden_size']} is not an even multiple "
            f"of num_attention_heads {given['num_attention_heads']}"
        )
    return EsmConfig(**given, position_embedding_type="rotary")


def _problem(name: str, value: object) -> str | None:
    if name in FLAGS:
        return None if isinstance(value, bool) else f"must be true or false, not {shown(value)}"
    return number_problem(value, SIZES.get(name) or NUMBERS[name], whole=name in SIZES)


def outline(config: EsmConfig) -> EsmModel:
    """The model without its weights."""
    with torch.device("meta"):
        return EsmModel(config, add_pooling_layer=False)


def read_weights(folder: Path, config: EsmConfig, *, dtype: torch.dtype) -> dict[str, Tensor]:
    """The encoder's weights under its own names, finite and of the shapes that the config needs.

    dtype: of the model to be made of them. Raises UserError where there is no safetensors file, one is damaged or of
    another model, or memory is short.
    """
    places: dict[str, tuple[Path, str, Shape]] = {}  # by the encoder's own name
    for path in weight_files(folder):
        places |= {own_name(name): (path, name, shape) for name, shape in tensor_shapes(path).items()}
    all_shapes = {name: tuple(tensor.shape) for name, tensor in outline(config).state_dict().items()}
    wanted = {
        name: shape
        for name, shape in all_shapes.items()
        if name in places or not any(word in name for word in NOT_NEEDED)
    }
    check_shapes(folder, {name: shape for name, (_, _, shape) in places.items()}, wanted)
    check_memory(str(folder), wanted.values(), dtype)
    tensors: dict[str, Tensor] = {}
    for home in sorted({path for path, _, _ in places.values()}):
        own_of = {name: own for own, (path, name, _) in places.items() if path == home and own in wanted}
        tensors |= {own_of[name]: tensor for name, tensor in load_tensors(home, own_of).items()}
    return tensors


def weight_files(folder: Path) -> list[Path]:
    """model.safetensors, or the files of its index; UserError where there is neither, or one names another place."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        raise UserError(f"{folder}: has no {WEIGHTS}; only weights saved as safetensors are loaded")
    index: Any = read_json(folder / INDEX).get("weight_map")
    names = sorted(set(map(str, index.values()))) if isinstance(index, dict) else []
    wrong = [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]
    if wrong or not names:
        found = f"{wrong[0]!r:.200}" if wrong else "none"
        raise UserError(f"{folder / INDEX}: must name safetensors files of this folder, not {found}")
    return [folder / name for name in names]


def own_name(name: str) -> str:
    """The encoder's name of a tensor of a checkpoint."""
    if name.endswith(FREQUENCIES):
        return FREQUENCIES
    for old, new in OLD_ENDINGS.items():
        if name.endswith(old):
            name = name.removesuffix(old) + new
    return name.removeprefix(PREFIX)
