"""The self-test passes where all is well, and each of its checks can fail."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from conftest import EXAMPLES, PROTEIN_LABELS
from peftide import api
from peftide.cli import main
from peftide.config import DoctorSettings, Method
from peftide.models.adapters import add_lora
from peftide.models.backbones import load_backbone
from peftide.models.bundle import save_bundle
from peftide.models.machine import Machine
from peftide.models.packed import encoder_layer
from peftide.models.property_model import HeadShape, PropertyModel, make_head
from peftide.models.target import Target
from peftide.training.model_checks import MODEL_CHECKS, CheckFailedError, Trial, make_trial

CPU = Machine(torch.device("cpu"), torch.float32)
METHODS: tuple[Method, ...] = ("head", "lora", "full")
TARGETS = {
    "pair": Target("binary", ("0", "1")),
    "binary": Target("binary", ("soluble", "membrane")),
    "multiclass": Target("multiclass", ("cytoplasm", "membrane", "nucleus")),
    "multilabel": Target("multilabel", ("binder", "kinase", "motor"), (1.0, 2.0, 0.5)),
    "regression": Target("regression", (), None, 60.0, 12.0),
}


def a_model(method: Method, kind: str, esm_folder: Path) -> PropertyModel:
    """A model that nobody trained, its adapters as after some training."""
    backbone = load_backbone(str(esm_folder), dtype=torch.float32)
    network: nn.Module = backbone.model
    torch.manual_seed(4)
    if method == "lora":
        network = add_lora(backbone, rank=3, alpha=6, dropout=0.1, matrices=("key", "feed-forward"), layers=(1, 3))
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.1)
    target, arity = TARGETS[kind], 2 if kind == "pair" else 1
    shape = HeadShape("mlp", backbone.width, arity, target.num_outputs, hidden_width=16, dropout=0.1)
    task = "pair" if kind == "pair" else "protein"
    return PropertyModel(task, method, backbone, network, make_head(shape), shape, target, "mean", (4,), 1022, "crop")


def a_trial(esm_folder: Path, method: Method = "lora", kind: str = "pair") -> Trial:
    return make_trial(a_model(method, kind, esm_folder), CPU, token_budget=None, compile_layers=False)


def failure(check: str, trial: Trial) -> str:
    with pytest.raises(CheckFailedError) as caught:
        MODEL_CHECKS[check](trial)
    return str(caught.value)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", TARGETS)
def test_every_check_passes_on_a_sound_model(esm_folder, method, kind):
    trial = a_trial(esm_folder, method, kind)
    before = {name: tensor.clone() for name, tensor in trial.model.trained_state().items()}
    for check in MODEL_CHECKS.values():
        assert check(trial)
    after = trial.model.trained_state()
    assert all(torch.equal(before[name], after[name]) for name in before), "the checks leave the model as it was"


def test_the_kinds_tried_here_are_those_there_are():
    assert set(TARGETS) | {"symmetry"} == set(EXAMPLES)
    assert set(PROTEIN_LABELS) < set(EXAMPLES)


def test_a_neighbour_that_changes_a_protein_is_found(esm_folder):
    trial = a_trial(esm_folder)
    trial.encoder.layer_function = lambda layer, hidden_TD, *rest: (
        encoder_layer(layer, hidden_TD, *rest) + 0.1 * hidden_TD.mean(dim=0)
    )
    assert "together and each alone: largest difference" in failure("packed equals single", trial)


def test_states_that_differ_from_those_of_the_stock_model_are_found(esm_folder):
    trial = a_trial(esm_folder)
    trial.encoder.layer_function = lambda layer, hidden_TD, *rest: 1.01 * encoder_layer(layer, hidden_TD, *rest)
    assert "stock" in failure("equals stock transformers", trial)
    assert MODEL_CHECKS["packed equals single"](trial)


def test_a_head_that_takes_the_order_into_account_is_found(esm_folder):
    trial = a_trial(esm_folder)

    def in_order(vectors_BKD: Tensor) -> Tensor:
        a, b = vectors_BKD.unbind(dim=1)
        return torch.cat([a, b, a * b], dim=-1)

    trial.model.head.features = in_order
    assert "scores of (A, B) and (B, A) differ" in failure("order of a pair", trial)


def test_scores_that_are_no_numbers_are_found(esm_folder):
    trial = a_trial(esm_folder)
    with torch.no_grad():
        trial.model.head.scale_D.zero_()
        trial.model.head.center_D.fill_(float("inf"))
    assert "12 of 12 scores are NaN or infinite" in failure("scores are numbers", trial)


def test_a_model_that_is_not_the_same_once_saved_is_found(esm_folder):
    trial = a_trial(esm_folder)
    plain = trial.model.head.features
    trial.model.head.features = lambda vectors_BKD: 2 * plain(vectors_BKD)  # in no file
    assert "once written and read" in failure("save and load", trial)


@pytest.mark.parametrize("matrix", ["lora_A", "lora_B"])
def test_an_adapter_matrix_that_gets_no_gradient_is_named(esm_folder, matrix):
    trial = a_trial(esm_folder)
    name, other = next((n, p) for n, p in trial.model.model.named_parameters() if matrix in n)
    with torch.no_grad():
        other.zero_()
    idle = name.replace(matrix, "lora_B" if matrix == "lora_A" else "lora_A")
    assert f"1 of 16 trained weights get no gradient, such as model.{idle}" in failure("gradients", trial)


def test_training_that_draws_from_elsewhere_is_found(esm_folder):
    trial = a_trial(esm_folder)

    class Unseeded(nn.Module):
        def forward(self, features_BF: Tensor) -> Tensor:
            return features_BF * random.uniform(0.5, 1.5)

    trial.model.head.layers[0] = Unseeded()
    assert "3 steps twice: the losses differ by" in failure("determinism", trial)


@pytest.fixture
def bundle(esm_folder, tmp_path) -> Path:
    save_bundle(tmp_path / "bundle", a_model("lora", "pair", esm_folder), {})
    return tmp_path / "bundle"


def doctor(*words: str) -> int:
    return main(["doctor", "--device", "cpu", "--precision", "fp32", "--threads", "1", *words])


def lines_of(said: str) -> dict[str, str]:
    """The word before each check by its name."""
    lines = [line.split(None, 1) for line in said.splitlines() if line.startswith(("ok", "FAIL", "----"))]
    return {rest.split(":")[0]: word for word, rest in lines}


def test_the_shipped_backbone_passes_with_a_line_for_each_check(capsys):
    assert doctor() == 0
    said = capsys.readouterr().out
    names = ["versions", "device", "cache", "backbone", *MODEL_CHECKS]
    assert lines_of(said) == dict.fromkeys(names, "ok")
    assert "swissprot-10m, 8 layers, fingerprint" in said
    assert "torch 2." in said
    assert "can be written; it holds 0 kB of 20 GB" in said
    assert said.endswith("all checks passed\n")


def test_a_sound_bundle_passes_and_its_backbone_is_told(bundle, capsys):
    assert doctor("--bundle", str(bundle)) == 0
    said = capsys.readouterr().out
    assert lines_of(said) == dict.fromkeys(["versions", "device", "cache", "bundle", *MODEL_CHECKS], "ok")
    assert "has the weights that it was trained on (fingerprint" in said
    assert "all of 12 adapter matrices" in said


def zero_one_matrix(bundle: Path) -> None:
    path = bundle / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    next(tensor for name, tensor in tensors.items() if "lora_A" in name).zero_()
    save_file(tensors, path)


def spoil_head(bundle: Path) -> None:
    tensors = load_file(bundle / "head.safetensors")
    tensors["layers.1.weight"][0, 0] = float("nan")
    save_file(tensors, bundle / "head.safetensors")


def other_backbone(bundle: Path) -> None:
    document = json.loads((bundle / "run.json").read_text())
    document["model"]["backbone_fingerprint"] = "0" * 32
    (bundle / "run.json").write_text(json.dumps(document))


BROKEN: list[tuple[Callable[[Path], object], str, str]] = [
    (zero_one_matrix, "gradients", "1 of 16 trained weights get no gradient"),
    (spoil_head, "bundle", "NaN or infinite in layers.1.weight"),
    (other_backbone, "bundle", "trained on other weights"),
    (shutil.rmtree, "bundle", "is not a folder"),
]


@pytest.mark.parametrize(("break_it", "check", "reason"), BROKEN, ids=lambda value: getattr(value, "__name__", None))
def test_a_broken_bundle_fails_with_the_reason_and_exit_code_1(bundle, capsys, break_it, check, reason):
    break_it(bundle)
    assert doctor("--bundle", str(bundle)) == 1
    said = capsys.readouterr().out
    found = lines_of(said)
    assert found.pop(check) == "FAIL"
    assert reason in next(line for line in said.splitlines() if line.startswith("FAIL"))
    rest = {name: found.pop(name) for name in MODEL_CHECKS if name in found}
    assert set(rest.values()) == ({"----"} if check == "bundle" else {"ok"})
    assert set(found.values()) == {"ok"}
    assert said.endswith(f"1 of 11 checks failed: {check}\n")


def test_a_device_that_is_not_there_fails_and_leaves_the_model_untried(capsys):
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA GPU")
    assert main(["doctor", "--device", "cuda"]) == 1
    found = lines_of(capsys.readouterr().out)
    assert found["device"] == "FAIL"
    assert found["cache"] == "ok"
    assert {found[name] for name in MODEL_CHECKS} == {"----"}


def test_a_cache_that_cannot_be_written_fails(esm_folder, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert doctor("--backbone", str(esm_folder), "--cache-dir", str(tmp_path / "file" / "cache")) == 1
    assert lines_of(capsys.readouterr().out)["cache"] == "FAIL"


def test_a_cache_that_is_switched_off_is_told(esm_folder, capsys):
    assert doctor("--backbone", str(esm_folder), "--cache-limit-gb", "0") == 0
    assert "cache: switched off" in capsys.readouterr().out


def test_the_checks_come_back_to_python(esm_folder):
    checks = api.doctor(DoctorSettings(backbone=str(esm_folder), device="cpu", precision="fp32", threads=1))
    assert [check.name for check in checks] == ["versions", "device", "cache", "backbone", *MODEL_CHECKS]
    assert all(check.passed for check in checks)
