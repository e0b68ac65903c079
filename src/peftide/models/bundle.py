"""A trained model as a folder: safetensors and JSON only, nothing that can execute on loading.

run.json            what was asked, on which data and machine, and what came out; all that loading needs
head.safetensors    the head
adapter/            method lora: a standard peft adapter of the stock `EsmModel`
backbone/           method full: the tuned backbone in the format of the hub, with config.json and vocab.txt
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from peftide.config import Method
from peftide.errors import UserError
from peftide.evaluation.calibration import Calibration
from peftide.models.adapters import base_model, load_adapter
from peftide.models.backbones import Backbone, fingerprint, load_backbone
from peftide.models.property_model import HeadShape, PropertyModel, make_head
from peftide.models.target import Target

FORMAT = 1
PARTS: dict[Method, tuple[str, ...]] = {  # by method, beside run.json
    "head": ("head.safetensors",),
    "lora": ("head.safetensors", "adapter/adapter_config.json", "adapter/adapter_model.safetensors"),
    "full": ("head.safetensors", "backbone/config.json", "backbone/vocab.txt", "backbone/model.safetensors"),
}


def save_bundle(folder: Path, model: PropertyModel, run: dict[str, Any]) -> None:
    """Write the bundle, in place of one that is there; `run` is kept in run.json beside what loading needs.

    An earlier run.json goes first and the new one comes last: a folder that has one is whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _remove_earlier(folder)
    _replace(folder / "head.safetensors", lambda path: _save_tensors(model.head.state_dict(), path))
    if model.method == "lora":
        _replace(folder / "adapter", lambda path: _save_adapter(model, path))
    if model.method == "full":
        _replace(folder / "backbone", lambda path: save_backbone(model.backbone, model.model, path))
    document = {"format": FORMAT, "model": _description(model)} | run
    text = json.dumps(document, indent=2, allow_nan=False)
    _replace(folder / "run.json", lambda path: path.write_text(text, "utf-8"))


def add_to_run(folder: Path, more: dict[str, Any]) -> None:
    """Add entries to the bundle's run.json, in place of those of the same name."""
    document = read_run(folder) | more
    _replace(
        folder / "run.json", lambda path: path.write_text(json.dumps(document, indent=2, allow_nan=False), "utf-8")
    )


def load_bundle(folder: Path, *, dtype: torch.dtype) -> PropertyModel:
    """Load a bundle on the CPU, in eval mode, frozen weights in `dtype`, nothing trainable.

    Raises UserError where the folder is no bundle, a file is missing or damaged, or the backbone is not the one that
    it was trained on.
    """
    document = read_run(folder)
    try:
        facts = document["model"]
        _check_whole(folder, facts["method"])
        shape, target = HeadShape(**facts["head"]), _target(facts["target"])
        backbone_name = str(folder / "backbone") if facts["method"] == "full" else facts["backbone"]
        backbone = load_backbone(backbone_name, dtype=dtype)
        _check_fingerprint(folder, facts, backbone)
        network = load_adapter(backbone, folder / "adapter") if facts["method"] == "lora" else backbone.model
        head = make_head(shape)
        head.load_state_dict(load_file(folder / "head.safetensors"))
        return PropertyModel(
            task=facts["task"],
            method=facts["method"],
            backbone=backbone,
            model=network.eval().requires_grad_(False),
            head=head.eval().requires_grad_(False),
            head_shape=shape,
            target=target,
            pooling=facts["pooling"],
            max_residues=facts["max_residues"],
            long_proteins=facts["long_proteins"],
            calibration=None if facts["calibration"] is None else Calibration.from_json(facts["calibration"]),
        )
    except (KeyError, TypeError, RuntimeError, OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{folder}: this bundle is incomplete or damaged ({type(error).__name__}: {reason}); train it again"
        ) from error


def read_run(folder: Path) -> dict[str, Any]:
    """The bundle's run.json; UserError where the folder is no bundle or of a newer format."""
    path = folder / "run.json"
    if not path.is_file():
        what = "has no run.json, so it is not a finished bundle" if folder.is_dir() else "is not a folder"
        raise UserError(f"{folder}: {what}; give the folder that `peftide train --out` wrote")
    try:
        document = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); the bundle is damaged, train it again") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise UserError(f"{path}: not a run of this version of peftide (format {FORMAT}); train it again or upgrade")
    return document


def _check_whole(folder: Path, method: Method) -> None:
    """Raise UserError that lists the missing files. (peft and transformers would look for `ppi/adapter` on the hub.)"""
    if missing := [name for name in PARTS[method] if not (folder / name).is_file()]:
        raise UserError(f"{folder}: this bundle is incomplete: it has no {', '.join(missing)}; train it again")


def _remove_earlier(folder: Path) -> None:
    if (folder / "run.json").is_file():
        (folder / "run.json").unlink()
        for name in ("adapter", "backbone"):
            if (folder / name).is_dir():
                shutil.rmtree(folder / name)


def was_trained_on(folder: Path, data: Path) -> bool:
    """Whether a table is, byte for byte, the one that the bundle was trained on."""
    known = read_run(folder).get("data", {}).get("sha256", {}).values()
    return hashlib.sha256(data.read_bytes()).hexdigest() in known


def save_backbone(backbone: Backbone, model: torch.nn.Module, folder: Path) -> None:
    """Write a backbone as the hub has it: weights under the hub's names (which every reader of ESM-2 knows; stock
    `save_pretrained` renames some), config.json and vocab.txt.
    """
    folder.mkdir(parents=True)
    state = base_model(model).state_dict()
    _save_tensors(
        {f"esm.{name}": t for name, t in state.items() if "inv_freq" not in name}, folder / "model.safetensors"
    )
    config = backbone.model.config.to_dict() | {"architectures": ["EsmModel"], "dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(config, indent=2), "utf-8")
    (folder / "vocab.txt").write_text("\n".join(backbone.vocabulary.tokens) + "\n", "utf-8")


def _description(model: PropertyModel) -> dict[str, Any]:
    return {
        "task": model.task,
        "method": model.method,
        "backbone": str(Path(name).resolve()) if Path(name := model.backbone.name).is_dir() else name,
        "backbone_hub_name": model.backbone.hub_name,
        "backbone_fingerprint": fingerprint(base_model(model.model))
        if model.method == "full"
        else model.backbone.fingerprint,
        "pooling": model.pooling,
        "max_residues": model.max_residues,
        "long_proteins": model.long_proteins,
        "head": asdict(model.head_shape),
        "target": asdict(model.target),
        "calibration": None if model.calibration is None else model.calibration.to_json(),
        "trained_parameters": model.num_trained,
    }


def _target(facts: dict[str, Any]) -> Target:
    weights = facts["class_weights"]
    return Target(
        kind=facts["kind"],
        classes=tuple(facts["classes"]),
        class_weights=None if weights is None else tuple(weights),
        center=facts["center"],
        scale=facts["scale"],
    )


def _check_fingerprint(folder: Path, facts: dict[str, Any], backbone: Backbone) -> None:
    if backbone.fingerprint != facts["backbone_fingerprint"]:
        raise UserError(
            f"{folder}: it was trained on other weights than those of backbone {backbone.name} here "
            f"({facts['backbone_fingerprint'][:8]}, not {backbone.fingerprint[:8]}); get the same checkpoint"
        )


def _save_adapter(model: PropertyModel, folder: Path) -> None:
    assert isinstance(model.model, PeftModel)
    model.model.save_pretrained(str(folder), save_embedding_layers=False)


def _save_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    save_file({name: t.detach().to("cpu").contiguous() for name, t in tensors.items()}, path, metadata={"format": "pt"})


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file or folder beside its place, then move it there."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    if fresh.is_dir():
        shutil.rmtree(fresh)
    write(fresh)
    if path.is_dir():
        shutil.rmtree(path)
    os.replace(fresh, path)
