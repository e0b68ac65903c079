"""A trained model as a folder: safetensors and JSON only, nothing that can execute on loading.

run.json            what was asked, on which data and machine, and what came out; all that loading needs
head.safetensors    the head
adapter/            method lora: a standard peft adapter of the stock `EsmModel`
backbone/           method full: the tuned backbone in the format of the hub, with config.json and vocab.txt
"""

import csv
import hashlib
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import save_file

from peftide.config import Method
from peftide.data.files import file_digest
from peftide.data.findings import has_controls
from peftide.data.writers import write_json
from peftide.errors import UserError, raise_problems, unwritable
from peftide.models.adapters import base_model, load_adapter
from peftide.models.backbones import HUB_NAMES, SHIPPED, Backbone, fingerprint, load_backbone
from peftide.models.bundle_facts import BundleFacts, read_model_facts
from peftide.models.esm_files import FREQUENCIES, PREFIX
from peftide.models.heads import Head
from peftide.models.property_model import HeadShape, PropertyModel, make_head
from peftide.models.untrusted import check_inside, read_json, read_tensors

FORMAT = 3
PARTS: dict[Method, tuple[str, ...]] = {  # by method, beside run.json
    "head": ("head.safetensors",),
    "lora": ("head.safetensors", "adapter/adapter_config.json", "adapter/adapter_model.safetensors"),
    "full": ("head.safetensors", "backbone/config.json", "backbone/vocab.txt", "backbone/model.safetensors"),
}
OWN_NAMES = ("run.json", "head.safetensors", "adapter", "backbone", "split.tsv", "predictions.tsv", "report.html")


def save_bundle(folder: Path, model: PropertyModel, run: dict[str, Any]) -> None:
    """Write the bundle, in place of one that is there; `run` is kept in run.json beside what loading needs.

    All is written aside before an earlier bundle is touched: a full disk leaves that as it was. Then its run.json goes
    first and the new one comes last: a folder that has one is whole. Raises UserError where it cannot be written.
    """
    aside = folder / f".bundle.{os.getpid()}.new"
    try:
        try:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            _write_parts(aside, model)
            document = {"format": FORMAT, "model": _description(model)} | run
            (aside / "run.json").write_text(json.dumps(document, indent=2, allow_nan=False), "utf-8")
            for path in aside.rglob("*.safetensors"):  # which safetensors lets nobody else read
                path.chmod((aside / "run.json").stat().st_mode)
            _remove_earlier(folder)
            for name in sorted(os.listdir(aside), key=lambda name: name == "run.json"):
                if (folder / name).is_dir():
                    shutil.rmtree(folder / name)
                os.replace(aside / name, folder / name)
        finally:
            if aside.is_dir():
                shutil.rmtree(aside)
    except (OSError, SafetensorError) as error:
        raise unwritable(f"{folder}: the bundle", error, goes_on=True) from error


def _write_parts(folder: Path, model: PropertyModel) -> None:
    _save_tensors(model.head.state_dict(), folder / "head.safetensors")
    if model.method == "lora":
        _save_adapter(model, folder / "adapter")
    if model.method == "full":
        save_backbone(model.backbone, model.model, folder / "backbone")


def add_to_run(folder: Path, more: dict[str, Any]) -> None:
    """Add entries to the bundle's run.json, in place of those of the same name. Raises UserError as `save_bundle`."""
    write_json(folder / "run.json", read_run(folder) | more)


def load_bundle(folder: Path, *, dtype: torch.dtype) -> PropertyModel:
    """Load a bundle on the CPU, in eval mode, frozen weights in `dtype`, nothing trainable.

    Raises UserError where the folder is no bundle, a file is missing or damaged, or the backbone is not the one that
    it was trained on.
    """
    facts = read_facts_of_whole(folder)
    if facts.method == "full":
        backbone = load_backbone(str(folder / "backbone"), dtype=dtype)
    else:
        backbone = _load_named_backbone(folder, facts.backbone, dtype)
    _check_fingerprint(folder, facts.backbone_fingerprint, backbone)
    if facts.state_layers[-1] > backbone.num_layers:
        raise UserError(
            f"{folder}: it takes states after layer {facts.state_layers[-1]}, and backbone {backbone.name} has "
            f"{backbone.num_layers} layers"
        )
    if facts.head.width != (width := len(facts.state_layers) * backbone.width):
        raise UserError(
            f"{folder}: its head takes vectors of {facts.head.width:,} numbers, and those of backbone "
            f"{backbone.name}, of {len(facts.state_layers)} layer(s), have {width:,}"
        )
    network = load_adapter(backbone, folder / "adapter") if facts.method == "lora" else backbone.model
    return PropertyModel(
        task=facts.task,
        method=facts.method,
        backbone=backbone,
        model=network.eval().requires_grad_(False),
        head=_load_head(folder / "head.safetensors", facts.head),
        head_shape=facts.head,
        target=facts.target,
        pooling=facts.pooling,
        state_layers=facts.state_layers,
        max_residues=facts.max_residues,
        long_proteins=facts.long_proteins,
        calibration=facts.calibration,
    )


def read_facts_of_whole(folder: Path) -> BundleFacts:
    """The facts of a bundle that has all its files, inside its folder. Raises UserError as `load_bundle` does."""
    facts = read_model_facts(folder, read_run(folder))
    _check_whole(folder, facts.method)
    check_inside(folder, ("run.json", *PARTS[facts.method]))
    return facts


def _load_named_backbone(folder: Path, name: str, dtype: torch.dtype) -> Backbone:
    """The backbone that a bundle names: one that peftide knows, a folder by its full path, or one fetched before.

    A stranger's bundle shall not make this machine fetch whatever it likes.
    """
    is_known = name == SHIPPED or name.lower() in HUB_NAMES or name in HUB_NAMES.values()
    if is_known or Path(name).is_absolute():
        return load_backbone(name, dtype=dtype)
    if Path(name).is_dir():
        raise UserError(
            f"{folder}: it names the folder {name} as its backbone, and not by the full path: train it again"
        )
    try:
        return load_backbone(name, dtype=dtype, may_fetch=False)
    except UserError as error:
        raise UserError(
            f"{folder}: its backbone {name} is none that peftide knows, so it is not fetched unasked; if you trust it: "
            f"hf download {name} config.json vocab.txt model.safetensors ({error})"
        ) from error


def _load_head(path: Path, shape: HeadShape) -> Head:
    with torch.device("meta"):
        wanted = {name: tuple(tensor.shape) for name, tensor in make_head(shape).state_dict().items()}
    tensors = read_tensors(path, wanted)
    if not bool((tensors["scale_D"] > 0).all()):
        raise UserError(f"{path}: scale_D must be positive, for vectors are divided by it")
    head = make_head(shape)
    head.load_state_dict(tensors)
    return head.eval().requires_grad_(False)


def read_run(folder: Path) -> dict[str, Any]:
    """The bundle's run.json; UserError where the folder is no bundle or of a newer format."""
    path = folder / "run.json"
    if not path.is_file() and (inside := bundles_in(folder)):
        raise UserError(f"{folder}: is a folder of bundles; give one of them: {', '.join(map(str, inside))}")
    if not path.is_file():
        what = "has no run.json, so it is not a finished bundle" if folder.is_dir() else "is not a folder"
        raise UserError(f"{folder}: {what}; give the folder that `peftide train --out` wrote")
    document = read_json(path)
    if document.get("format") != FORMAT:
        raise UserError(f"{path}: not a run of this version of peftide (format {FORMAT}); train it again or upgrade")
    return document


def bundles_in(folder: Path) -> list[Path]:
    """The bundles right below a folder that is none itself, by name; none below a bundle.

    Raises UserError where the folder cannot be read, and for names that would write what they like on a terminal.
    """
    if not folder.is_dir() or (folder / "run.json").is_file():
        return []
    try:
        bundles = sorted(path for path in folder.iterdir() if _may_be_bundle(path))
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror or error})") from error
    if strange := [path.name for path in bundles if has_controls(path.name)]:
        raise UserError(f"{folder}: {strange[0]!r} in it has control characters in its name; rename it")
    return bundles


def _may_be_bundle(path: Path) -> bool:
    """Whether a folder is one that has a run.json, and not a part of an unfinished run."""
    is_part = path.name.startswith(".") or path.name == "checkpoints"
    return not is_part and (path / "run.json").is_file()


def bundles_together(folder: Path) -> tuple[list[Path], BundleFacts]:
    """The bundles whose scores are averaged, and the first one's facts: the folder itself, or all right below it.

    Raises UserError where there is none, where one is not whole, and where they answer different questions.
    """
    bundles = bundles_in(folder) or [folder]
    first, *others = [read_facts_of_whole(bundle) for bundle in bundles]
    problems = [
        f"{bundle}: {other}, and {bundles[0]}: {wanted}"
        for bundle, facts in zip(bundles[1:], others, strict=True)
        if (other := _question(facts)) != (wanted := _question(first))
    ]
    raise_problems(f"{folder}: its bundles answer different questions, so their scores have no average", problems)
    return bundles, first


def _question(facts: BundleFacts) -> str:
    classes = f" of {', '.join(facts.target.classes)}" if facts.target.classes else ""
    return f"task {facts.task}, {facts.target.kind}{classes}"


def bundle_files(folder: Path) -> dict[str, bytes]:
    """The content of the files that loading a bundle reads, by name; of a method `full`, the backbone's too."""
    names = ("run.json", *PARTS[read_run(folder)["model"]["method"]])
    return {name: (folder / name).read_bytes() for name in names}


def bundle_digest(folder: Path) -> str:
    """A digest of what a bundle computes; its run.json may have been added to since."""
    run = read_run(folder)
    whole = hashlib.sha256(json.dumps(run["model"], sort_keys=True).encode())
    for name in PARTS[run["model"]["method"]]:
        with (folder / name).open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()[:16]


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
    about_data = read_run(folder).get("data")
    digests = about_data.get("sha256") if isinstance(about_data, dict) else None
    if not isinstance(digests, dict):
        return False
    return file_digest(data) in digests.values()


def trained_examples(folder: Path) -> set[frozenset[str]]:
    """The ids of each training example of the bundle, by its split.tsv; empty where it has none."""
    path = folder / "split.tsv"
    if not path.is_file():
        return set()
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t", strict=True))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: damaged ({error}); remove it, or train again") from error
    ids = ("id", "protein_a", "protein_b")
    return {frozenset(row[name] for name in ids if row.get(name)) for row in rows if row.get("split") == "train"}


def save_backbone(backbone: Backbone, model: torch.nn.Module, folder: Path) -> None:
    """Write a backbone as the hub has it: weights under the hub's names (which every reader of ESM-2 knows; stock
    `save_pretrained` renames some), config.json and vocab.txt.
    """
    folder.mkdir(parents=True)
    state = base_model(model).state_dict()
    tensors = {f"{PREFIX}{name}": tensor for name, tensor in state.items() if name != FREQUENCIES}
    for number in range(backbone.num_layers):  # some checkpoints have rounded ones; the hub keeps them in every layer
        tensors[f"{PREFIX}encoder.layer.{number}.attention.self.{FREQUENCIES}"] = state[FREQUENCIES].clone()
    _save_tensors(tensors, folder / "model.safetensors")
    config = backbone.model.config.to_dict() | {"architectures": ["EsmModel"], "dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(config, indent=2), "utf-8")
    (folder / "vocab.txt").write_text("\n".join(backbone.vocabulary.tokens) + "\n", "utf-8")


def _description(model: PropertyModel) -> dict[str, Any]:
    return {
        "task": model.task,
        "method": model.method,
        "backbone": str(Path(name).resolve()) if Path(name := model.backbone.name).is_dir() else name,
        "backbone_hub_name": model.backbone.hub_name,
        "backbone_fingerprint": fingerprint(base_model(model.model), model.backbone.vocabulary)
        if model.method == "full"
        else model.backbone.fingerprint,
        "pooling": model.pooling,
        "state_layers": model.state_layers,
        "max_residues": model.max_residues,
        "long_proteins": model.long_proteins,
        "head": asdict(model.head_shape),
        "target": asdict(model.target),
        "calibration": None if model.calibration is None else model.calibration.to_json(),
        "trained_parameters": model.num_trained,
    }


def _check_fingerprint(folder: Path, trained_on: str, backbone: Backbone) -> None:
    if backbone.fingerprint != trained_on:
        raise UserError(
            f"{folder}: it was trained on other weights than those of backbone {backbone.name} here "
            f"({trained_on[:8]}, not {backbone.fingerprint[:8]}); get the same checkpoint"
        )


def _save_adapter(model: PropertyModel, folder: Path) -> None:
    assert isinstance(model.model, PeftModel)
    model.model.save_pretrained(str(folder), save_embedding_layers=False)


def _save_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    save_file({name: t.detach().to("cpu").contiguous() for name, t in tensors.items()}, path, metadata={"format": "pt"})
