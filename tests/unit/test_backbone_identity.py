"""What tells one backbone from another: its fingerprint, and whether work begun with one goes on with another."""

import io
import json
import shutil
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from conftest import random_sequence, write_esm, write_examples
from peftide.config import CompareSettings, MachineSettings, SweepSettings, TrainSettings
from peftide.errors import UserError
from peftide.inference.caching import cached
from peftide.inference.embed import embed_proteins
from peftide.inference.encoder import Encoder
from peftide.models.backbones import Backbone, fingerprint, load_backbone
from peftide.models.bundle import load_bundle
from peftide.models.machine import choose_machine
from peftide.models.packed import hidden_states, pack
from peftide.models.tokens import Pieces, cut_proteins
from peftide.records import Proteins
from peftide.training.compare import run_compare
from peftide.training.loop import Trainer
from peftide.training.run import run_training
from peftide.training.sweep import run_sweep

RUN = {"epochs": 2, "batch_examples": 8, "device": "cpu", "precision": "fp32", "token_budget": 150, "audit": "none"}
ROTARY = "esm.encoder.layer.{}.attention.self.rotary_embeddings.inv_freq"


def change_weights(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({name: change(name, tensor) for name, tensor in tensors.items()}, folder / "model.safetensors")


def other_weights(folder: Path) -> None:
    change_weights(folder, lambda name, tensor: tensor * 1.1 if name.endswith("value.weight") else tensor)


def round_frequencies(folder: Path) -> None:
    """Keep the rotary frequencies in the checkpoint, rounded to half precision, as some on the hub are."""
    exact = load(folder).model.rotary_embeddings.inv_freq
    tensors = load_file(folder / "model.safetensors")
    tensors |= {ROTARY.format(number): exact.half().float().clone() for number in range(4)}
    save_file(tensors, folder / "model.safetensors")


def other_heads(folder: Path) -> None:
    """As many numbers a layer in twice as many heads; the contact head, which nobody needs, would tell."""
    tensors = load_file(folder / "model.safetensors")
    encoder = {name: tensor for name, tensor in tensors.items() if "contact_head" not in name}
    save_file(encoder, folder / "model.safetensors")
    rewrite_config(folder, num_attention_heads=8)


def load(folder: Path, dtype: torch.dtype = torch.float32) -> Backbone:
    return load_backbone(str(folder), dtype=dtype)


def states(backbone: Backbone) -> torch.Tensor:
    """Hidden states of a protein."""
    pieces = pieces_of(backbone)
    batch = pack(pieces, pooling="mean", mask_id=backbone.vocabulary.mask_id, device=torch.device("cpu"))
    with torch.no_grad():
        return hidden_states(backbone.model, batch, dtype=torch.float32)


def pieces_of(backbone: Backbone) -> list[Pieces]:
    proteins = Proteins(("P",), (random_sequence(90),))
    return cut_proteins(proteins, backbone.vocabulary, max_residues=1022, long_proteins="crop")


def rewrite_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | values))


@pytest.fixture
def copy(esm_folder, tmp_path) -> Path:
    return Path(shutil.copytree(esm_folder, tmp_path / "copy"))


@pytest.mark.parametrize(
    "change",
    [
        other_weights,
        round_frequencies,
        lambda folder: rewrite_config(folder, layer_norm_eps=1e-3),
        other_heads,
        lambda folder: rewrite_config(folder, token_dropout=False),
        lambda folder: rewrite_config(folder, rope_theta=500.0),
    ],
    ids=["weights", "rounded frequencies", "layer norm", "heads", "token dropout", "rotary base"],
)
def test_what_changes_the_states_changes_the_fingerprint(esm_folder, copy, change):
    whole = load(esm_folder)
    change(copy)
    assert (states(load(copy)) - states(whole)).abs().max() > 1e-6
    assert load(copy).fingerprint != whole.fingerprint
    assert load(copy).exact_fingerprint != whole.exact_fingerprint


def test_another_vocabulary_is_another_backbone(esm_folder, copy):
    tokens = (copy / "vocab.txt").read_text().split()
    first, second = tokens.index("A"), tokens.index("L")
    tokens[first], tokens[second] = "L", "A"
    (copy / "vocab.txt").write_text("\n".join(tokens) + "\n")
    assert load(copy).fingerprint != load(esm_folder).fingerprint


def test_one_checkpoint_has_one_fingerprint_in_every_arithmetic_and_two_exact_ones(copy):
    round_frequencies(copy)
    whole, half = load(copy), load(copy, torch.bfloat16)
    assert half.fingerprint == whole.fingerprint
    assert half.exact_fingerprint != whole.exact_fingerprint
    assert fingerprint(whole.model, whole.vocabulary) == whole.fingerprint


def test_a_copy_in_half_precision_does_not_share_the_cache_of_the_whole(esm_folder, copy, tmp_path):
    change_weights(copy, lambda _, tensor: tensor.bfloat16())
    settings = MachineSettings(device="cpu", precision="fp32", cache_dir=str(tmp_path / "cache"))
    machine = choose_machine("cpu", "fp32", None)

    def vectors(folder: Path) -> torch.Tensor:
        backbone = load(folder)
        pieces = pieces_of(backbone)
        encoder = Encoder(backbone, backbone.model, machine, pooling="mean")
        with cached(encoder, pieces, settings, Console(quiet=True), kind="mean") as store:
            return torch.from_numpy(embed_proteins(encoder, pieces, token_budget=500, store=store))

    assert load(copy).fingerprint == load(esm_folder).fingerprint
    whole, half = vectors(esm_folder), vectors(copy)
    assert (whole - half).abs().max() > 1e-5
    assert torch.equal(vectors(esm_folder), whole)


def test_a_tuned_backbone_keeps_the_frequencies_that_it_was_trained_with(tmp_path):
    folder = write_esm(tmp_path)
    round_frequencies(folder)
    data = write_examples(tmp_path, "binary")
    out = tmp_path / "bundle"
    run = TrainSettings(
        **data, **RUN, backbone=str(folder), method="full", out=str(out), baselines="none", cache_limit_gb=0
    )
    run_training(run, Console(quiet=True))
    kept, wanted = load_bundle(out, dtype=torch.float32).backbone, load(folder)
    assert torch.equal(kept.model.rotary_embeddings.inv_freq, wanted.model.rotary_embeddings.inv_freq)
    stock = load_file(out / "backbone" / "model.safetensors")
    assert torch.equal(stock[ROTARY.format(3)], wanted.model.rotary_embeddings.inv_freq)


def test_an_unfinished_run_does_not_go_on_with_other_weights(tmp_path, monkeypatch):
    folder = write_esm(tmp_path)
    settings = TrainSettings(
        **write_examples(tmp_path, "binary"), **RUN, backbone=str(folder), method="lora", out=str(tmp_path / "run"),
        baselines="none", checkpoint_minutes=0, cache_dir=str(tmp_path / "cache"),
    )  # fmt: skip
    taken, step = [], Trainer.step

    def fail_at_the_second(self, *arguments):
        taken.append(1)
        if len(taken) == 2:
            raise RuntimeError("power cut")
        return step(self, *arguments)

    monkeypatch.setattr(Trainer, "step", fail_at_the_second)
    with pytest.raises(RuntimeError, match="power cut"):
        run_training(settings, Console(quiet=True))
    other_weights(folder)
    with pytest.raises(UserError, match=r"an unfinished run .*has other weights, config or vocabulary now"):
        run_training(settings, Console(quiet=True))


@pytest.mark.parametrize(
    ("kind", "work", "more"),
    [
        (CompareSettings, run_compare, {"methods": ("head", "full"), "seeds": 1, "baselines": "none"}),
        (SweepSettings, run_sweep, {"vary": ("lora_rank=1,2",)}),
    ],
    ids=["compare", "sweep"],
)
def test_what_was_made_of_other_weights_is_not_taken_for_finished(tmp_path, kind, work, more):
    folder = write_esm(tmp_path)
    name = {"backbones": (str(folder),)} if kind is CompareSettings else {"backbone": str(folder)}
    settings = kind(
        **write_examples(tmp_path, "binary"), **RUN, **more, **name, out=str(tmp_path / "out"),
        cache_dir=str(tmp_path / "cache"),
    )  # fmt: skip
    work(settings, Console(quiet=True))
    again = Console(file=io.StringIO(), width=300)
    work(settings, again)
    assert "finished earlier" in again.file.getvalue() or "known already" in again.file.getvalue()
    other_weights(folder)
    with pytest.raises(UserError, match=r"made otherwise(?s:.)*has other weights, config or vocabulary now"):
        work(settings, Console(quiet=True))
