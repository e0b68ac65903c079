"""Bundles that a stranger made: nothing of theirs runs, leads elsewhere, takes memory or passes for what it is not."""

import json
import math
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import random_sequence, write_esm
from peftide.cli import main
from peftide.config import Method
from peftide.data.symmetry import SYMMETRY_CLASSES
from peftide.errors import UserError
from peftide.models.adapters import add_lora
from peftide.models.backbones import load_backbone
from peftide.models.bundle import load_bundle, save_bundle, was_trained_on
from peftide.models.property_model import HeadShape, PropertyModel, make_head
from peftide.models.target import Target

resource = pytest.importorskip("resource", reason="limits of a process are those of POSIX")

METHODS: tuple[Method, ...] = ("head", "lora", "full")
HEAD, ADAPTER, SETTINGS = "head.safetensors", "adapter/adapter_model.safetensors", "adapter/adapter_config.json"
CONFIG, WEIGHTS, RUN = "backbone/config.json", "backbone/model.safetensors", "run.json"


def sound_bundle(folder: Path, method: Method, esm_folder: Path) -> Path:
    """A bundle as peftide writes it, of a model that nobody trained."""
    backbone = load_backbone(str(esm_folder), dtype=torch.float32)
    network: torch.nn.Module = backbone.model
    torch.manual_seed(2)
    if method == "lora":
        network = add_lora(backbone, rank=4, alpha=8, dropout=0.0, matrices=("key", "value"), layers=(2, 3))
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.1)
    shape = HeadShape("mlp", width=48, arity=2, num_outputs=1, hidden_width=16, dropout=0.1)
    model = PropertyModel(
        "pair",
        method,
        backbone,
        network,
        make_head(shape),
        shape,
        Target("binary", ("0", "1")),
        "mean",
        (4,),
        1022,
        "crop",
    )
    save_bundle(folder, model, {"data": {"sha256": {}}})
    return folder


@pytest.fixture(scope="module")
def sound(esm_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Method, Path]:
    return {method: sound_bundle(tmp_path_factory.mktemp(method) / "b", method, esm_folder) for method in METHODS}


@pytest.fixture
def forged(sound: dict[Method, Path], tmp_path: Path) -> Callable[[Method], Path]:
    """A function that copies a sound bundle to a place where it may be forged."""
    return lambda method: Path(shutil.copytree(sound[method], tmp_path / "forged"))


def refusal(folder: Path) -> str:
    """What the refusal of a bundle says; that it is refused, and in little time and memory, is checked too."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + (1 << 30), limits[1]))
    try:
        with pytest.raises(UserError) as caught:
            load_bundle(folder, dtype=torch.float32)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    text = str(caught.value)
    assert text.startswith((str(folder), "backbone"))
    assert text.replace("\n", "").isprintable()
    assert len(text) < 5_000
    return text


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a document of JSON in place."""
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def set_in(path: Path, place: str, value: object) -> None:
    """Set one value, named by its keys with dots between."""
    *outer, last = place.split(".")

    def change(document: dict[str, Any]) -> None:
        for key in outer:
            document = document[key]
        document[last] = value

    rewrite(path, change)


def change_tensors(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def header_of(tensors: dict[str, object]) -> bytes:
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize("method", METHODS)
def test_a_sound_bundle_is_loaded(forged, method):
    assert load_bundle(forged(method), dtype=torch.float32).method == method


# What nobody should be able to make a machine do: by the place in run.json and the forged value, part of the refusal
WRONG_FACTS = [
    ("model", ["head"], "task must be one of"),
    ("model", None, "task must be one of"),
    ("model.task", "reverse-shell", "task must be one of pair, protein, symmetry"),
    ("model.method", "pickle", "method must be one of head, lora, full"),
    ("model.pooling", {}, "pooling must be one of mean, cls, not a dict"),
    ("model.long_proteins", "\x1b[2J", "long_proteins must be one of"),
    ("model.max_residues", 0, "max_residues must be a whole number"),
    ("model.max_residues", True, "max_residues must be a whole number"),
    ("model.backbone", 3, "backbone must be a text"),
    ("model.backbone", "x" * 10_000, "backbone must be a text"),
    ("model.backbone", "esm2-8m\x1b]0;owned\x07", "backbone must be a text that can be printed"),
    ("model.backbone", "../../../etc", "no name and no full path"),
    ("model.backbone", "/tmp/../etc", "no name and no full path"),
    ("model.backbone", "//attacker.example/share/esm", "no name and no full path"),
    ("model.backbone", "\\\\attacker.example\\share\\esm", "no name and no full path"),
    ("model.backbone", "stranger/esm2-looks-fine", "not fetched unasked"),
    ("model.backbone", "/nowhere/at/all", "no such folder"),
    ("model.backbone_fingerprint", "0" * 32, "trained on other weights"),
    ("model.backbone_fingerprint", None, "backbone_fingerprint must be a text"),
    ("model.head", [], "kind must be mlp, paper or linear"),
    ("model.head.kind", "__import__('os').system", "kind must be mlp, paper or linear"),
    ("model.head.width", 10**12, "head: width must be a whole number"),
    ("model.head.width", 49, "49 numbers, and those of backbone"),
    ("model.state_layers", [], "state_layers must be rising numbers of layers, not a list"),
    ("model.state_layers", [4, 2], "state_layers must be rising numbers of layers, not a list"),
    ("model.state_layers", [0, 4], "state_layers must be rising numbers of layers, not a list"),
    ("model.state_layers", [True], "state_layers must be rising numbers of layers, not a list"),
    ("model.state_layers", 4, "state_layers must be rising numbers of layers, not 4"),
    ("model.state_layers", [10**12], "state_layers must be rising numbers of layers, not a list"),
    ("model.state_layers", [5], "states after layer 5, and backbone"),
    ("model.state_layers", [2, 4], "of 2 layer(s), have 96"),
    ("model.head.hidden_width", 10**12, "head: hidden_width must be a whole number"),
    ("model.head.hidden_width", 10**5, "has shape"),
    ("model.head.hidden_width", 16.0, "head: hidden_width must be a whole number"),
    ("model.head.num_outputs", 10**9, "head: num_outputs must be a whole number"),
    ("model.head.num_outputs", 2, "2 output(s), and a binary target"),
    ("model.head.arity", 1, "compares 1 protein(s), and the task pair has 2"),
    ("model.head.dropout", 2.0, "head: dropout must be a number"),
    ("model.head.extra", 1, "'extra' is unknown"),
    ("model.target.kind", "quantum", "target: kind must be one of"),
    ("model.target.classes", ["0", "1", "2"], "3 classes do not fit a binary target"),
    ("model.target.classes", ["0", "0"], "classes must be different texts"),
    ("model.target.classes", ["0", "1\x1b[31m"], "classes must be different texts that can be printed"),
    ("model.target.classes", "01", "classes must be different texts"),
    ("model.target.class_weights", [1.0, -1.0], "class_weights must be 2 positive numbers"),
    ("model.target.class_weights", 7, "class_weights must be 2 positive numbers"),
    ("model.target.scale", 0, "scale must be a number"),
    ("model.target.center", "zero", "center must be a number"),
    ("model.task", "symmetry", "classes are not those of the task symmetry"),
    ("model.calibration", 5, "calibration: kind must be one of"),
]  # fmt: skip


@pytest.mark.parametrize(("place", "value", "expected"), WRONG_FACTS, ids=lambda value: repr(value)[:40])
def test_a_forged_fact_is_refused_with_the_reason(forged, place, value, expected):
    folder = forged("head")
    set_in(folder / RUN, place, value)
    assert expected in refusal(folder)


def test_names_of_classes_may_have_any_letters_and_spaces(forged):
    folder = forged("head")
    classes = ("inner\u00a0membrane", "\u03b2 \U0001f469\u200d\U0001f52c")
    set_in(folder / RUN, "model.target.classes", list(classes))
    assert load_bundle(folder, dtype=torch.float32).target.classes == classes


CALIBRATION = {
    "kind": "isotonic",
    "target": "binary",
    "temperature": None,
    "scores": [0.0, 0.5, 1.0],
    "probabilities": [0.1, 0.5, 0.9],
    "log_losses": {},
}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("kind", "eval", "calibration: kind"),
        ("target", "multiclass", "the calibration is that of a multiclass target"),
        ("target", None, "calibration: target must be one of"),
        ("scores", [0.0, 2.0, 1.0], "rising numbers from 0 to 1"),
        ("scores", [0.5, 0.1, 1.0], "rising numbers from 0 to 1"),
        ("scores", [0.5], "as many as each other"),
        ("scores", [None] * 3, "rising numbers from 0 to 1"),
        ("log_losses", 1, "log_losses"),
    ],
)
def test_a_forged_calibration_is_refused_with_the_reason(forged, name, value, expected):
    folder = forged("head")
    set_in(folder / RUN, "model.calibration", CALIBRATION)
    assert load_bundle(folder, dtype=torch.float32).calibration is not None
    set_in(folder / RUN, f"model.calibration.{name}", value)
    assert expected in refusal(folder)


@pytest.mark.parametrize("temperature", [0, -1, 1e-300, None, "hot"])
def test_a_forged_temperature_is_refused(forged, temperature):
    folder = forged("head")
    forgery = CALIBRATION | {"kind": "temperature", "temperature": temperature, "scores": [], "probabilities": []}
    set_in(folder / RUN, "model.calibration", forgery)
    assert "temperature must be a number" in refusal(folder)


@pytest.mark.parametrize("place", [RUN, SETTINGS])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("[" * 100_000, "not valid JSON"),
        ('{"a":' * 100_000, "not valid JSON"),
        ('{"format": NaN}', "NaN is no number"),
        ('{"format": 1' + "0" * 100_000 + "}", "not valid JSON"),
        ("[]", "not an object"),
        ("\ufeff{}", "not valid JSON"),
        ("", "not valid JSON"),
    ],
)
def test_json_that_is_none_is_refused(forged, place, content, expected):
    folder = forged("lora")
    (folder / place).write_text(content)
    assert expected in refusal(folder)


@pytest.mark.parametrize(("method", "place"), [("head", RUN), ("lora", SETTINGS), ("full", CONFIG)])
def test_gigabytes_of_json_are_refused_unread(forged, method, place):
    folder = forged(method)
    os.truncate(folder / place, 1 << 33)
    assert "of JSON, where at most 64 MiB are read" in refusal(folder)


def test_a_number_beyond_all_numbers_is_refused(forged):
    folder = forged("lora")
    text = (folder / SETTINGS).read_text().replace('"lora_alpha": 8', '"lora_alpha": 1e999')
    assert "1e999" in text
    (folder / SETTINGS).write_text(text)
    assert "lora_alpha must be a number" in refusal(folder)


PARTS = [("head", RUN), ("head", HEAD), ("lora", ADAPTER), ("lora", SETTINGS), ("full", WEIGHTS), ("full", CONFIG)]


@pytest.mark.parametrize(("method", "place"), PARTS)
def test_a_part_that_is_a_link_out_of_the_bundle_is_refused(forged, tmp_path, method, place):
    folder = forged(method)
    shutil.move(folder / place, tmp_path / "elsewhere")
    (folder / place).symlink_to(tmp_path / "elsewhere")
    assert f"{place}: a link that leads out of the folder" in refusal(folder)


@pytest.mark.parametrize(("method", "place"), PARTS)
def test_a_part_that_is_a_pipe_or_a_circle_of_links_is_refused_at_once(forged, method, place):
    folder = forged(method)
    (folder / place).unlink()
    os.mkfifo(folder / place)
    assert Path(place).name in refusal(folder)
    (folder / place).unlink()
    (folder / place).symlink_to(folder / place)
    assert Path(place).name in refusal(folder)


@pytest.mark.parametrize(("method", "place"), [("lora", "adapter"), ("full", "backbone")])
def test_a_folder_of_a_bundle_that_is_a_link_elsewhere_is_refused(forged, tmp_path, method, place):
    folder = forged(method)
    shutil.move(folder / place, tmp_path / "elsewhere")
    (folder / place).symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert "a link that leads out of the folder" in refusal(folder)


FORGED_TENSORS = [("head", HEAD), ("lora", ADAPTER), ("full", WEIGHTS)]


@pytest.mark.parametrize(("method", "place"), FORGED_TENSORS)
@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<Q", 1 << 62) + b"{}",
        struct.pack("<Q", (1 << 64) - 1),
        struct.pack("<Q", 50 << 20) + b" " * (50 << 20),
        header_of({"center_D": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}),
        header_of({"center_D": {"dtype": "F32", "shape": [1 << 62, 1 << 62], "data_offsets": [0, 0]}}),
        header_of({"center_D": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}) + b"\0" * 4,
        header_of({"center_D": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}) + b"\0" * 4,
        header_of({"center_D": {"dtype": "PICKLE", "shape": [1], "data_offsets": [0, 4]}}) + b"\0" * 4,
        header_of({"__metadata__": {"run": "import os"}}),
        b"\x80\x04\x95 a pickle",
        b"PK\x03\x04 an archive of torch.save",
        b"",
    ],
    ids=lambda content: repr(content[:24]),
)
def test_a_forged_header_is_refused_and_takes_no_memory(forged, method, place, content):
    folder = forged(method)
    (folder / place).write_bytes(content)
    assert place.split("/")[0] in refusal(folder)


@pytest.mark.parametrize(("method", "place"), FORGED_TENSORS)
@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused(forged, method, place, number):
    folder = forged(method)

    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        max(tensors.values(), key=torch.numel).view(-1)[-1] = number

    change_tensors(folder / place, spoil)
    assert "NaN or infinite" in refusal(folder)


@pytest.mark.parametrize(("method", "place"), FORGED_TENSORS)
def test_whole_numbers_are_no_weights(forged, method, place):
    folder = forged(method)
    change_tensors(folder / place, lambda tensors: tensors.update({n: t.int() for n, t in tensors.items()}))
    assert "weights are kept as" in refusal(folder)


@pytest.mark.parametrize(("method", "place"), FORGED_TENSORS)
def test_a_missing_tensor_is_named(forged, method, place):
    folder = forged(method)
    removed = next(name for name in load_file(folder / place) if "contact_head" not in name)
    change_tensors(folder / place, lambda tensors: tensors.pop(removed))
    assert f"missing: {removed.removeprefix('esm.')}" in refusal(folder)


@pytest.mark.parametrize(("method", "place"), [("head", HEAD), ("lora", ADAPTER)])
def test_a_tensor_that_nobody_asked_for_is_refused(forged, method, place):
    folder = forged(method)
    change_tensors(folder / place, lambda tensors: tensors.update({"../../evil\x1b[0m": torch.zeros(3)}))
    assert "evil" in refusal(folder)


def test_a_head_that_divides_by_zero_is_refused(forged):
    folder = forged("head")
    change_tensors(folder / HEAD, lambda tensors: tensors["scale_D"].zero_())
    assert "scale_D must be positive" in refusal(folder)


def test_a_tuned_backbone_with_more_weights_than_memory_is_refused(forged):
    """A file of holes: its header tells the truth, and reading it would take 200 GB."""
    folder, num_layers, inner = forged("full"), 511, (1 << 20) - 1
    shapes = {}
    for name, tensor in load_file(folder / WEIGHTS).items():
        shape = [inner if size == 96 else size for size in tensor.shape]
        for layer in range(num_layers) if ".layer.3." in name else ():
            shapes[name.replace(".layer.3.", f".layer.{layer}.")] = shape
        if "contact_head" not in name:
            shapes.setdefault(name, shape)
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    (folder / WEIGHTS).write_bytes(header_of(header))
    os.truncate(folder / WEIGHTS, len(header_of(header)) + end)
    set_in(folder / CONFIG, "num_hidden_layers", num_layers)
    set_in(folder / CONFIG, "intermediate_size", inner)
    with pytest.raises(UserError, match=r"its weights take 19\d\.\d GiB, and .* of memory are free here"):
        load_bundle(folder, dtype=torch.float32)


EVIL_SETTINGS = [
    ("peft_type", "XLORA", "only LORA is loaded"),
    ("peft_type", None, "only LORA is loaded"),
    ("r", 10**9, "has shape"),
    ("r", 0, "r must be a whole number"),
    ("r", 4.0, "r must be a whole number"),
    ("lora_alpha", "1", "lora_alpha must be a number"),
    ("lora_dropout", -1, "lora_dropout must be a number"),
    ("megatron_core", "antigravity", "'megatron_core' is 'antigravity', which is not supported"),
    ("megatron_config", {"a": 1}, "'megatron_config'"),
    ("layer_replication", [[0, 4]] * 1000, "'layer_replication'"),
    ("modules_to_save", ["embeddings"], "'modules_to_save'"),
    ("trainable_token_indices", [1], "'trainable_token_indices'"),
    ("init_lora_weights", "pissa", "'init_lora_weights'"),
    ("loftq_config", {"loftq_bits": 4}, "'loftq_config'"),
    ("rank_pattern", {"(a+)+$": 100}, "'rank_pattern'"),
    ("alpha_pattern", {"(a+)+$": 100}, "'alpha_pattern'"),
    ("use_dora", True, "'use_dora'"),
    ("bias", "all", "'bias'"),
    ("exclude_modules", "(a+)+$", "'exclude_modules'"),
    ("invented_tomorrow", "/etc/passwd", "'invented_tomorrow'"),
]


@pytest.mark.parametrize(("name", "value", "expected"), EVIL_SETTINGS, ids=lambda value: repr(value)[:40])
def test_settings_of_an_adapter_that_ask_for_more_than_lora_are_refused(forged, name, value, expected):
    folder = forged("lora")
    set_in(folder / SETTINGS, name, value)
    assert expected in refusal(folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("target_modules", "(([a-z.0-9]+)+)+$"),
        ("base_model_name_or_path", "/etc/shadow"),
        ("auto_mapping", {"base_model_class": "Popen", "parent_library": "subprocess"}),
        ("layers_pattern", "((a+)+)+"),
        ("revision", "../../.."),
        ("invented_tomorrow", None),
    ],
)
def test_settings_of_an_adapter_that_are_not_needed_are_not_followed(forged, sound, name, value):
    folder = forged("lora")
    set_in(folder / SETTINGS, name, value)
    ours, theirs = (load_bundle(path, dtype=torch.float32).model.state_dict() for path in (sound["lora"], folder))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours if "contact_head" not in key)


def test_an_adapter_of_layers_that_the_backbone_does_not_have_is_refused(forged):
    folder = forged("lora")

    def rename(tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors):
            tensors[name.replace("layer.3", "layer.4")] = tensors.pop(name)

    change_tensors(folder / ADAPTER, rename)
    assert "this backbone has no such layer to adapt" in refusal(folder)


EVIL_CONFIGS = [
    ("num_hidden_layers", 10**9, "num_hidden_layers must be a whole number"),
    ("num_hidden_layers", 400, "missing: "),
    ("num_hidden_layers", "4", "num_hidden_layers must be a whole number"),
    ("vocab_size", 10**12, "vocab_size must be a whole number"),
    ("vocab_size", 60_000, "has shape"),
    ("hidden_size", 47, "hidden_size 47 is not an even multiple"),
    ("num_attention_heads", 0, "num_attention_heads must be a whole number"),
    ("max_position_embeddings", 10**12, "max_position_embeddings must be a whole number"),
    ("layer_norm_eps", -1, "layer_norm_eps must be a number"),
    ("rope_theta", 0, "rope_theta must be a number"),
    ("token_dropout", "yes", "token_dropout must be true or false"),
    ("is_decoder", True, "is_decoder is set"),
    ("is_folding_model", True, "is_folding_model is set"),
    ("model_type", "gpt2", "a model of type 'gpt2'"),
    ("position_embedding_type", "absolute", "with 'absolute' positions"),
]


@pytest.mark.parametrize(("name", "value", "expected"), EVIL_CONFIGS, ids=lambda value: repr(value)[:40])
def test_a_forged_config_of_a_tuned_backbone_is_refused(forged, name, value, expected):
    folder = forged("full")
    set_in(folder / CONFIG, name, value)
    assert expected in refusal(folder)


def follow(folder: Path, victim: Path) -> None:
    """Everything by which a config can lead transformers to another file, to code or to another kind of weights."""

    def change(document: dict[str, Any]) -> None:
        document["auto_map"] = {"AutoModel": "evil.EvilModel"}
        document["transformers_weights"] = f"../../{victim.name}/model.safetensors"
        document["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
        document["fusion_config"] = {"evil": True}
        document["head_dim"] = 10**9
        document["_name_or_path"] = str(victim)

    rewrite(folder / CONFIG, change)
    (folder / "backbone" / "evil.py").write_text("raise SystemExit('code of a stranger was run')\n")
    settings = {"peft_type": "LORA", "base_model_name_or_path": str(victim), "r": 1, "target_modules": ["key"]}
    (folder / "backbone" / "adapter_config.json").write_text(json.dumps(settings))


def test_a_tuned_backbone_is_made_of_its_own_three_files_whatever_lies_beside_them(forged, sound, tmp_path):
    folder, victim = forged("full"), tmp_path / "victim"
    victim.mkdir()
    write_esm(victim)
    change_tensors(victim / "model.safetensors", lambda tensors: [tensor.zero_() for tensor in tensors.values()])
    follow(folder, victim)
    ours, theirs = (load_bundle(path, dtype=torch.float32).backbone for path in (sound["full"], folder))
    assert ours.fingerprint == theirs.fingerprint
    assert len(ours.model.state_dict()) == len(theirs.model.state_dict())


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("<cls> <eos> <mask>", "no <unk>"),
        ("<cls> <eos> <mask> <unk> " + " ".join(f"t{i}" for i in range(40)), "44 tokens, and its config knows 33"),
        ("A" * (2 << 20), "far too large for a vocabulary"),
        ("", "no <cls>"),
    ],
)
def test_a_forged_vocabulary_is_refused(forged, content, expected):
    folder = forged("full")
    (folder / "backbone" / "vocab.txt").write_text(content)
    assert expected in refusal(folder)


@pytest.mark.parametrize("name", ["../../esm/model.safetensors", "/etc/passwd", "model.bin", "a/b.safetensors"])
def test_an_index_of_weights_cannot_name_another_folder(esm_folder, tmp_path, name):
    folder = Path(shutil.copytree(esm_folder, tmp_path / "esm"))
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"esm.x": name}}))
    with pytest.raises(UserError, match="must name safetensors files of this folder"):
        load_backbone(str(folder), dtype=torch.float32)


def test_weights_in_several_files_are_those_of_one(esm_folder, tmp_path):
    folder = Path(shutil.copytree(esm_folder, tmp_path / "esm"))
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = {name: f"part-{number % 2}.safetensors" for number, name in enumerate(sorted(tensors))}
    for part in set(weight_map.values()):
        save_file({name: tensors[name] for name, home in weight_map.items() if home == part}, folder / part)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    whole, parts = (load_backbone(str(path), dtype=torch.float32) for path in (esm_folder, folder))
    assert whole.fingerprint == parts.fingerprint


def test_a_bundle_of_a_symmetry_model_with_other_classes_is_refused(forged):
    folder = forged("head")
    classes = [f"class {number}" for number in range(len(SYMMETRY_CLASSES))]
    set_in(folder / RUN, "model.task", "symmetry")
    set_in(folder / RUN, "model.head", {"kind": "mlp", "width": 48, "arity": 1, "num_outputs": len(classes),
                                        "hidden_width": 16, "dropout": 0.1})  # fmt: skip
    set_in(folder / RUN, "model.target.kind", "multilabel")
    set_in(folder / RUN, "model.target.classes", classes)
    assert "the classes are not those of the task symmetry" in refusal(folder)


@pytest.mark.parametrize("about_data", [[1], {"sha256": "x"}, {"sha256": [1]}, None, 7])
def test_forged_digests_of_data_tell_nothing(forged, tmp_path, about_data):
    folder = forged("head")
    set_in(folder / RUN, "data", about_data)
    (tmp_path / "t.csv").write_text("a,b\n")
    assert not was_trained_on(folder, tmp_path / "t.csv")


def test_the_command_refuses_a_stranger_bundle_without_a_traceback(forged, tmp_path, capsys):
    folder = forged("lora")
    set_in(folder / SETTINGS, "r", 10**9)
    (tmp_path / "p.fasta").write_text(f">a\n{random_sequence(30)}\n")
    (tmp_path / "pairs.csv").write_text("protein_a,protein_b\na,a\n")
    words = ["predict", str(folder), str(tmp_path / "pairs.csv"), "--sequences", str(tmp_path / "p.fasta")]
    assert main([*words, "--allow-self-pairs", "--out", str(tmp_path / "o.tsv"), "--device", "cpu"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {folder}")
    assert not (tmp_path / "o.tsv").exists()
