"""LoRA adapters on a backbone, through peft: which matrices, which layers, how many parameters."""

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from torch import nn
from transformers import EsmModel

from peftide.errors import UserError
from peftide.models.adapter_files import WEIGHTS, read_adapter
from peftide.models.backbones import Backbone

# The names of the stock modules inside a layer of ESM-2.
MATRICES = {
    "query": ("attention.self.query",),
    "key": ("attention.self.key",),
    "value": ("attention.self.value",),
    "output": ("attention.output.dense",),
    "feed-forward": ("intermediate.dense", "output.dense"),
}


def add_lora(
    backbone: Backbone, *, rank: int, alpha: float, dropout: float, matrices: Sequence[str], layers: Sequence[int]
) -> PeftModel:
    """Wrap the backbone's model in a stock peft LoRA model; only the LoRA matrices are trainable, in float32."""
    names = "|".join(re.escape(name) for matrix in matrices for name in MATRICES[matrix])
    numbers = "|".join(str(layer) for layer in layers)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # pyrefly: ignore[bad-argument-type]  # peft annotates int and takes any number
        lora_dropout=dropout,
        target_modules=rf"encoder\.layer\.({numbers})\.({names})",
        bias="none",
        base_model_name_or_path=backbone.hub_name or backbone.name,
    )
    with _without_deprecation():
        return get_peft_model(backbone.model, config)  # pyrefly: ignore[bad-return]


def load_adapter(backbone: Backbone, folder: Path) -> PeftModel:
    """Put a standard PEFT adapter on the backbone's model, in eval mode, nothing trainable.

    Raises UserError for a folder without safetensors weights (other formats can run code when they are loaded), and
    for what `read_adapter` refuses.
    """
    if not (folder / WEIGHTS).is_file():
        raise UserError(f"{folder}: no {WEIGHTS}; only adapters saved as safetensors are loaded")
    config, matrices = read_adapter(folder, backbone.model)
    config.base_model_name_or_path = backbone.hub_name or backbone.name
    with _without_deprecation():
        model = get_peft_model(backbone.model, config)
        set_peft_model_state_dict(model, matrices)
    return model.eval().requires_grad_(False)  # pyrefly: ignore[bad-return]


def remove_adapters(model: nn.Module) -> None:
    """Take the adapters off a backbone's stock model, which is then as it was before `add_lora`."""
    if isinstance(model, PeftModel):
        model.unload()  # pyrefly: ignore[not-callable]


@contextmanager
def _without_deprecation() -> Iterator[None]:
    """peft 0.21 asks transformers 5.23 for an attribute that it renamed; harmless, and not the user's business."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        yield


def base_model(model: nn.Module) -> EsmModel:
    """The `EsmModel` inside a peft model, or the model itself."""
    esm = model.get_base_model() if isinstance(model, PeftModel) else model
    assert isinstance(esm, EsmModel)
    return esm


def first_trained_layer(model: nn.Module) -> int:
    """Number of layers below the first trained weight: these run without gradient, and their output can be cached.

    The number of layers where nothing of the backbone is trained; 0 where the embeddings are.
    """
    esm = base_model(model)
    if any(parameter.requires_grad for parameter in esm.embeddings.parameters()):
        return 0
    for index, layer in enumerate(esm.encoder.layer):
        if any(parameter.requires_grad for parameter in layer.parameters()):
            return index
    return len(esm.encoder.layer)


def num_trained(module: nn.Module) -> int:
    """Trainable parameters."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
