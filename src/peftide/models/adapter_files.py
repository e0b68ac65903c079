"""A LoRA adapter as files: numbers out of its settings, matrices out of its weights, and nothing else of either.

peft's settings can also import modules, wrap other layers, repeat them or match names by patterns of any cost. So only
four of them are read; which modules are adapted is told by the names of the weights.
"""

import json
import re
from pathlib import Path
from typing import Any

from peft import LoraConfig
from torch import Tensor, nn

from peftide.config.setting import COUNT, FRACTION_OR_ZERO, POSITIVE
from peftide.errors import UserError, raise_problems
from peftide.models.untrusted import Shape, number_problem, read_json, read_tensors, shown, tensor_shapes

SETTINGS, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
NUMBERS = {"r": COUNT, "lora_alpha": POSITIVE, "lora_dropout": FRACTION_OR_ZERO}
# Told by the weights, or about where the adapter came from
NOT_READ = (
    *("target_modules", "layers_to_transform", "layers_pattern", "inference_mode", "task_type", "peft_type"),
    *("base_model_name_or_path", "revision", "auto_mapping", "peft_version"),
)
OFF = (None, False, [], {})  # values of a setting, of a later peft perhaps, that change nothing
MATRIX = re.compile(r"base_model\.model\.(encoder\.layer\.\d{1,4}\.[a-zA-Z.]{1,64})\.lora_[AB]\.weight")


def read_adapter(folder: Path, network: nn.Module) -> tuple[LoraConfig, dict[str, Tensor]]:
    """The settings of a LoRA adapter of `network` (a stock model) and its matrices, by peft's names.

    Raises UserError for settings of another kind of adapter, for modules that the network does not have, and for
    matrices that do not fit them or are not finite.
    """
    numbers = _read_numbers(folder / SETTINGS)
    found = tensor_shapes(folder / WEIGHTS)
    linears = {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    wanted: dict[str, Shape] = {}
    foreign = []
    for name in found:
        match = MATRIX.fullmatch(name)
        if match is None or match[1] not in linears:
            foreign.append(f"{name!r:.200}: this backbone has no such layer to adapt")
            continue
        linear, prefix = linears[match[1]], f"base_model.model.{match[1]}"
        wanted[f"{prefix}.lora_A.weight"] = (numbers["r"], linear.in_features)
        wanted[f"{prefix}.lora_B.weight"] = (linear.out_features, numbers["r"])
    raise_problems(f"{folder}: an adapter of another model", foreign, shown=5)
    if not wanted:
        raise UserError(f"{folder / WEIGHTS}: holds no matrix, so it is no LoRA adapter")
    matrices = read_tensors(folder / WEIGHTS, wanted)
    modules = sorted({match[1] for name in wanted if (match := MATRIX.fullmatch(name))})
    return LoraConfig(**numbers, target_modules=modules, bias="none"), matrices


def _read_numbers(path: Path) -> dict[str, Any]:
    """Rank, alpha and dropout; UserError where another setting would make it something else than plain LoRA."""
    document = read_json(path)
    if document.get("peft_type") != "LORA":
        raise UserError(f"{path}: an adapter of kind {shown(document.get('peft_type'))}; only LORA is loaded")
    usual = json.loads(json.dumps(LoraConfig().to_dict()))
    problems = [f"{name} is missing" for name in NUMBERS if name not in document]
    for name, value in document.items():
        if name in NUMBERS:
            problem = number_problem(value, NUMBERS[name], whole=name == "r")
            problems += [] if problem is None else [f"{name} {problem}"]
        elif name not in NOT_READ and value not in OFF and value != usual.get(name):
            problems.append(f"{shown(name)} is {shown(value)}, which is not supported")
    raise_problems(f"{path}: no plain LoRA adapter", problems)
    return {name: document[name] for name in NUMBERS}
