"""The contract of every bundle: whole, exact when loaded, open to stock libraries, and clear when damaged."""

import csv
import io
import itertools
import json
import os
import shutil
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from rich.console import Console
from safetensors.torch import load_file, save_file
from transformers import EsmModel

from conftest import EXAMPLES, limited_files, write_examples
from peftide.config import MachineSettings, TrainSettings
from peftide.data.datasets import read_dataset
from peftide.errors import UserError
from peftide.inference.embed import embed_proteins
from peftide.inference.predict import prediction_columns, score_examples
from peftide.inference.score import load_for_inference
from peftide.models.bundle import add_to_run, load_bundle, read_run, save_bundle
from peftide.training.run import run_training

METHODS = ("head", "lora", "full")
EVERY_BUNDLE = pytest.mark.parametrize(("method", "kind"), list(itertools.product(METHODS, EXAMPLES)))
ADAPTED = pytest.mark.parametrize("method", ["lora", "full"])
TOKEN_BUDGET = 150


def quiet():
    return Console(file=io.StringIO(), width=200)


def settings_for(method, kind, folder, esm_folder, **options):
    """Settings of a run of two epochs on a tiny table in `folder`."""
    given = {
        "baselines": "none",
        "method": method, "backbone": str(esm_folder), "out": str(folder / "bundle"), "epochs": 2, "batch_examples": 8,
        "device": "cpu", "precision": "fp32", "token_budget": TOKEN_BUDGET, "cache_dir": str(folder / "cache"),
        "head_width": 16, "learning_rate": 1e-2 if method != "full" else 1e-3,
    }  # fmt: skip
    return TrainSettings(**write_examples(folder, kind), **(given | options))


@pytest.fixture(scope="module")
def trained(esm_folder, tmp_path_factory):
    """The settings of a finished run by method and kind of examples; each is trained once."""
    done = {}

    def settings_of(method, kind="pair"):
        if (method, kind) not in done:
            settings = settings_for(method, kind, tmp_path_factory.mktemp(f"{method}-{kind}"), esm_folder)
            run_training(settings, quiet())
            done[method, kind] = settings
        return done[method, kind]

    return settings_of


@pytest.fixture
def bundle(trained, tmp_path):
    """A function that copies a finished bundle to a place where it may be damaged."""
    return lambda method: Path(shutil.copytree(trained(method).out, tmp_path / "copy"))


def written_predictions(settings):
    with open(Path(settings.out) / "predictions.tsv", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def predictions_again(settings):
    """What predictions.tsv should hold, from the bundle alone: rows of text."""
    machine = MachineSettings(device="cpu", precision=settings.precision, token_budget=settings.token_budget)
    model, encoder, token_budget = load_for_inference(settings.out, machine)
    dataset = read_dataset(settings)
    vectors_PD = embed_proteins(encoder, model.pieces(dataset.proteins), token_budget=token_budget)
    rows = []
    for split in ("val", "test"):
        part = dataset.part(split)
        columns = prediction_columns(part, score_examples(model, vectors_PD, part.members_NK), model.target)
        columns = {"split": [split] * len(part), **columns}
        rows += [dict(zip(columns, map(str, row), strict=True)) for row in zip(*columns.values(), strict=True)]
    return rows


@EVERY_BUNDLE
def test_a_loaded_bundle_predicts_exactly_what_the_run_did(trained, method, kind):
    settings = trained(method, kind)
    assert predictions_again(settings) == written_predictions(settings)


@EVERY_BUNDLE
def test_a_loaded_bundle_knows_its_task_and_trains_nothing(trained, method, kind):
    settings = trained(method, kind)
    model, facts = load_bundle(Path(settings.out), dtype=torch.float32), read_run(Path(settings.out))
    assert model.task == {"pair": "pair", "symmetry": "symmetry"}.get(kind, "protein")
    assert model.target.kind == {"pair": "binary", "symmetry": "multilabel"}.get(kind, kind)
    assert model.method == method
    assert model.num_trained == 0
    assert not model.model.training
    assert not model.head.training
    assert facts["model"]["trained_parameters"] > 0
    assert set(facts["metrics"]) == {"val", "test"}


@EVERY_BUNDLE
def test_a_bundle_holds_nothing_that_could_execute(trained, method, kind):
    folder = Path(trained(method, kind).out)
    files = [path for path in folder.rglob("*") if path.is_file()]
    parts = {"head": set(), "lora": {"adapter"}, "full": {"backbone"}}[method]
    assert {path.name for path in folder.iterdir() if path.is_dir()} == parts
    assert {"run.json", "head.safetensors", "predictions.tsv"} <= {path.name for path in files}
    for path in files:
        assert path.suffix in {".json", ".safetensors", ".tsv", ".txt", ".md", ".html"}, path
        content = path.read_bytes()
        if path.suffix == ".safetensors":
            assert content[8:9] == b"{", path  # after the length of the header
        else:
            assert not content.startswith((b"\x80", b"PK")), path  # a pickle, or the zip that torch.save writes


@pytest.mark.parametrize("method", METHODS)
def test_run_json_repeats_the_run(trained, method, tmp_path):
    settings = trained(method)
    facts = read_run(Path(settings.out))["settings"]
    again = TrainSettings(**(facts | {"lora_matrices": tuple(facts["lora_matrices"])}))
    assert again == settings
    again = replace(again, out=str(tmp_path / "again"))
    run_training(again, quiet())
    assert written_predictions(again) == written_predictions(settings)


@pytest.mark.parametrize("method", METHODS)
def test_whoever_may_read_one_file_of_a_bundle_may_read_all(trained, method, tmp_path):
    model = load_bundle(Path(trained(method).out), dtype=torch.float32)
    before = os.umask(0o027)
    try:
        save_bundle(tmp_path / "bundle", model, {})
    finally:
        os.umask(before)
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "bundle").rglob("*") if path.is_file()
    }
    assert "head.safetensors" in modes
    assert set(modes.values()) == {0o640}


def test_a_bundle_trained_in_bfloat16_predicts_exactly_what_the_run_did(esm_folder, tmp_path):
    """With a LoRA scale that is no power of two: matrices rounded once more than in training would show."""
    settings = settings_for("lora", "binary", tmp_path, esm_folder, precision="bf16", lora_rank=3, lora_alpha=10.0)
    run_training(settings, quiet())
    assert predictions_again(settings) == written_predictions(settings)


def stock_states(model, encoder, protein):
    ids = torch.from_numpy(protein.tokens[0])[None]
    with torch.no_grad():
        theirs = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]
        return theirs, encoder.hidden([protein])[0]


def some_protein(settings):
    model, encoder, _ = load_for_inference(settings.out, MachineSettings(device="cpu", precision="fp32"))
    return encoder, model.pieces(read_dataset(settings).proteins)[-1]


def test_stock_peft_loads_the_adapter_on_the_stock_model(trained, esm_folder):
    settings = trained("lora")
    encoder, protein = some_protein(settings)
    base = EsmModel.from_pretrained(esm_folder, add_pooling_layer=False, dtype=torch.float32).eval()
    plain, ours = stock_states(base, encoder, protein)
    assert not torch.allclose(plain, ours, atol=1e-3)
    theirs, ours = stock_states(
        PeftModel.from_pretrained(base, Path(settings.out) / "adapter").eval(), encoder, protein
    )
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_stock_transformers_loads_the_tuned_backbone(trained, esm_folder):
    settings = trained("full")
    encoder, protein = some_protein(settings)
    tuned, report = EsmModel.from_pretrained(
        Path(settings.out) / "backbone", add_pooling_layer=False, dtype=torch.float32, output_loading_info=True
    )
    assert not report["unexpected_keys"]
    theirs, ours = stock_states(tuned.eval(), encoder, protein)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    base = EsmModel.from_pretrained(esm_folder, add_pooling_layer=False, dtype=torch.float32).eval()
    assert not torch.allclose(stock_states(base, encoder, protein)[0], ours, atol=1e-3)


def cut_short(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def no_json(path):
    path.write_text('{"format": 1, "model": ')


def no_text(path):
    path.write_bytes(b"\xff\xfe\x00\x80")


def of_another_format(path):
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))


def a_list(path):
    path.write_text("[1, 2]")


def without_the_model(path):
    path.write_text(json.dumps({"format": 1}))


def with_a_model_of_another_form(path):
    path.write_text(json.dumps({"format": 1, "model": ["head"]}))


def of_another_shape(path):
    tensors = load_file(path)
    save_file({name: tensor.repeat_interleave(2, dim=0) for name, tensor in tensors.items()}, path)


NO_RUNS = (no_json, no_text, a_list, of_another_format, without_the_model, with_a_model_of_another_form)
NO_TENSORS = (Path.unlink, cut_short, no_json, of_another_shape)
NO_TEXTS = (Path.unlink, cut_short, no_text)
DAMAGES = [
    *itertools.product(METHODS, ["run.json"], NO_RUNS),
    *itertools.product(METHODS, ["head.safetensors"], NO_TENSORS),
    *itertools.product(["lora"], ["adapter/adapter_model.safetensors"], NO_TENSORS),
    *itertools.product(["lora"], ["adapter/adapter_config.json"], NO_TEXTS),
    *itertools.product(["full"], ["backbone/model.safetensors"], NO_TENSORS),
    *itertools.product(["full"], ["backbone/config.json", "backbone/vocab.txt"], NO_TEXTS),
]


@pytest.mark.parametrize(
    ("method", "name", "damage"),
    DAMAGES,
    ids=[f"{method}-{name}-{damage.__name__}" for method, name, damage in DAMAGES],
)
def test_a_damaged_bundle_is_refused_with_its_name(bundle, method, name, damage):
    folder = bundle(method)
    damage(folder / name)
    with pytest.raises(UserError, match=str(folder)):
        load_bundle(folder, dtype=torch.float32)


@pytest.mark.parametrize(("method", "name"), [("lora", "adapter"), ("full", "backbone")])
def test_a_bundle_without_its_folder_of_weights_is_refused_and_the_hub_is_not_asked(bundle, method, name, monkeypatch):
    """A relative name such as ppi/adapter could also be one of the hub's."""
    folder = bundle(method)
    monkeypatch.chdir(folder.parent)
    shutil.rmtree(folder / name)
    with pytest.raises(UserError, match=rf"copy: .* it has no {name}/") as caught:
        load_bundle(Path("copy"), dtype=torch.float32)
    assert "hub" not in str(caught.value)


def test_an_adapter_without_its_settings_is_refused_and_the_hub_is_not_asked(bundle, monkeypatch):
    folder = bundle("lora")
    monkeypatch.chdir(folder.parent)
    (folder / "adapter" / "adapter_config.json").unlink()
    with pytest.raises(UserError, match=r"copy: .* it has no adapter/adapter_config\.json"):
        load_bundle(Path("copy"), dtype=torch.float32)


def test_an_adapter_that_could_execute_is_not_loaded(bundle):
    folder = bundle("lora")
    weights = folder / "adapter" / "adapter_model.safetensors"
    torch.save(load_file(weights), folder / "adapter" / "adapter_model.bin")
    weights.unlink()
    with pytest.raises(UserError, match="safetensors"):
        load_bundle(folder, dtype=torch.float32)


@pytest.mark.parametrize("method", ["head", "lora"])
def test_a_backbone_with_other_weights_is_refused(trained, bundle, esm_folder, tmp_path, method):
    other = Path(shutil.copytree(esm_folder, tmp_path / "other"))
    tensors = load_file(other / "model.safetensors")
    tensors["esm.encoder.layer.1.output.dense.weight"] *= 1.05
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    folder = bundle(method)
    document = read_run(folder)
    document["model"]["backbone"] = str(other)
    (folder / "run.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match=r"trained on other weights than those of backbone .*other"):
        load_bundle(folder, dtype=torch.float32)


def test_a_backbone_that_is_gone_is_named(bundle, tmp_path):
    folder = bundle("lora")
    document = read_run(folder)
    document["model"]["backbone"] = str(tmp_path / "gone")
    (folder / "run.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match="gone"):
        load_bundle(folder, dtype=torch.float32)


def test_what_is_no_bundle_is_named_with_the_mend(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    for name, what in (("empty", "has no run.json"), ("file", "is not a folder"), ("nothing", "is not a folder")):
        with pytest.raises(UserError, match=rf"{name}: {what}.*give the folder that `peftide train --out` wrote"):
            load_bundle(tmp_path / name, dtype=torch.float32)


def test_a_bundle_written_over_another_holds_nothing_of_it(bundle, esm_folder, tmp_path):
    folder = bundle("lora")
    settings = replace(settings_for("full", "pair", tmp_path, esm_folder, epochs=1), out=str(folder))
    run_training(settings, quiet())
    assert not (folder / "adapter").exists()
    assert predictions_again(settings) == written_predictions(settings)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("most_bytes", [0, 400, 4000])
def test_a_full_disk_is_told_and_leaves_the_bundle_that_was_there(bundle, method, most_bytes):
    folder = bundle(method)
    model = load_bundle(folder, dtype=torch.float32)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with limited_files(most_bytes), pytest.raises(UserError, match=r"the bundle: cannot be written \(File too large\)"):
        save_bundle(folder, model, {"more": "x" * 4000})
    with limited_files(most_bytes), pytest.raises(UserError, match=r"run.json: cannot be written \(File too large\)"):
        add_to_run(folder, {"more": "x" * 4000})
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("num_moved", [0, 1, 2])
def test_a_bundle_half_written_over_another_is_not_taken_for_whole(bundle, num_moved, monkeypatch):
    folder = bundle("lora")
    model, move = load_bundle(folder, dtype=torch.float32), os.replace
    moved = []

    def killed_on_the_way(source, place):
        if len(moved) == num_moved:
            raise KeyboardInterrupt
        moved.append(place)
        move(source, place)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed_on_the_way)
        with pytest.raises(KeyboardInterrupt):
            save_bundle(folder, model, {})
    assert len(moved) == num_moved
    with pytest.raises(UserError, match="not a finished bundle"):
        load_bundle(folder, dtype=torch.float32)
    save_bundle(folder, model, {})
    assert load_bundle(folder, dtype=torch.float32).method == "lora"


@ADAPTED
def test_weights_are_saved_in_float32(trained, method):
    name = {"lora": "adapter/adapter_model.safetensors", "full": "backbone/model.safetensors"}[method]
    tensors = load_file(Path(trained(method).out) / name)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert all(np.isfinite(tensor.numpy()).all() for tensor in tensors.values())
