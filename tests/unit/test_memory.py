"""Memory: what training takes by count, how a limit is kept, and what the system says."""

import io
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console

from conftest import random_sequence, write_examples
from peftide.config import TrainSettings, gibibytes, parse_size
from peftide.data.datasets import read_dataset
from peftide.errors import UserError
from peftide.inference.encoder import Encoder, encoder_of
from peftide.models.backbones import load_backbone, load_skeleton
from peftide.models.machine import Machine
from peftide.models.tokens import cut_pieces
from peftide.training.advice import least_needed, what_would_fit
from peftide.training.build import build_model
from peftide.training.loop import Trainer
from peftide.training.memory import (
    LARGEST_BUDGET,
    MARGIN,
    Footprint,
    choose_execution,
    encoding_budget,
    footprint,
    least_bytes,
    memory_limit,
    shared_out,
)
from peftide.training.progress import TrainingProgress
from peftide.training.resident import (
    available_bytes,
    can_free_at_once,
    cgroup_rooms,
)
from peftide.training.run import run_training
from peftide.training.schedule import Schedule

CPU = Machine(torch.device("cpu"), torch.float32)
GPU = Machine(torch.device("cuda"), torch.bfloat16)  # only counted with
NEED = Footprint(
    weights=1000, gradients=100, optimizer=200, rounded=0, best=100, layers=(20, 20), per_state=4,
    has_frozen_layers=True, transient=10, transient_checkpointed=12, per_token_encoding=15,
)  # fmt: skip
MEBIBYTE = 2**20


def settings_for(folder, esm_folder, **options):
    given = {
        "baselines": "none",
        "backbone": str(esm_folder),
        "out": str(folder / "bundle"),
        "device": "cpu",
        "precision": "fp32",
    }
    return TrainSettings(**write_examples(folder, "pair"), **(given | options))


def counted(folder, esm_folder, machine=CPU, **options):
    settings = settings_for(folder, esm_folder, **options)
    return footprint(build_model(settings, read_dataset(settings), load_skeleton(str(esm_folder))), machine)


def chosen(limit_bytes, *, machine=CPU, need=NEED, tokens=(100, 50, 30), **options):
    given = {"held_bytes": 0, "checkpoint_layers": False, "token_budget": None, "must_fit": True}
    return choose_execution(need, machine, tokens, limit_bytes=limit_bytes, **(given | options))


def test_a_process_with_a_share_of_the_weights_holds_that_and_a_few_whole_layers():
    shared = shared_out(NEED, 4, num_layers=10)
    assert (shared.weights, shared.gradients, shared.optimizer, shared.best) == (250 + 300, 25, 50, 25)
    assert replace(shared, weights=1000, gradients=100, optimizer=200, best=100) == NEED


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [
        ("6GB", 6 * 10**9),
        ("6GiB", 6 * 2**30),
        ("500MB", 5 * 10**8),
        ("1.5 gb", 15 * 10**8),
        ("64kib", 2**16),
        ("10B", 10),
        ("6", None),
        ("6G", None),
        ("GB", None),
        ("-1GB", None),
        ("0GB", None),
        ("six GB", None),
    ],
)
def test_a_size_is_a_number_and_its_unit(text, num_bytes):
    assert parse_size(text) == num_bytes


def test_a_size_is_written_in_binary_units():
    assert (gibibytes(5.13 * 2**30), gibibytes(310 * MEBIBYTE)) == ("5.1 GiB", "310 MiB")


def test_the_gradients_and_moments_are_those_of_the_trained_weights(tmp_path, esm_folder):
    settings = settings_for(tmp_path, esm_folder, method="full")
    model = build_model(settings, read_dataset(settings), load_backbone(str(esm_folder), dtype=torch.float32))
    need = footprint(model, CPU)
    assert need.gradients == 4 * model.num_trained
    assert need.optimizer == 8 * model.num_trained
    assert need.best == 4 * model.num_trained
    everything = sum(p.numel() for module in (model.model, model.head) for p in module.parameters())
    assert need.weights == 4 * everything


@pytest.mark.parametrize("method", ["head", "lora", "full"])
def test_the_count_of_a_skeleton_is_that_of_the_loaded_model(tmp_path, esm_folder, method):
    settings = settings_for(tmp_path, esm_folder, method=method)
    model = build_model(settings, read_dataset(settings), load_backbone(str(esm_folder), dtype=torch.float32))
    assert footprint(model, CPU) == counted(tmp_path, esm_folder, method=method)


def test_weights_trained_beside_a_bf16_backbone_are_rounded_copies_too(tmp_path, esm_folder):
    bf16 = Machine(torch.device("cpu"), torch.bfloat16)
    need = counted(tmp_path, esm_folder, bf16, method="full")
    head = counted(tmp_path, esm_folder, bf16, method="head")
    trained = (need.gradients - head.gradients) // 4
    assert need.rounded == 2 * trained
    assert head.rounded == counted(tmp_path, esm_folder, method="full").rounded == 0


def test_a_head_keeps_nothing_of_the_backbone_for_a_backward_pass(tmp_path, esm_folder):
    need = counted(tmp_path, esm_folder, method="head")
    assert need.layers == ()
    assert need.per_token(checkpoint_layers=False) == need.per_token_encoding


def test_only_adapted_layers_and_those_above_are_counted(tmp_path, esm_folder):
    assert len(counted(tmp_path, esm_folder, lora_layers="last:1").layers) == 1
    assert len(counted(tmp_path, esm_folder, lora_layers="2").layers) == 3
    assert len(counted(tmp_path, esm_folder, method="full").layers) == 4


def test_layers_above_those_whose_states_are_used_are_not_counted(tmp_path, esm_folder):
    need = counted(tmp_path, esm_folder, lora_layers="2", state_layers="3")
    assert (len(need.layers), need.has_frozen_layers) == (2, True)


def test_the_copy_of_the_best_weights_takes_nothing_of_a_gpu(tmp_path, esm_folder):
    assert counted(tmp_path, esm_folder, GPU).best == 0


OPTIONS = {
    "lora": {"method": "lora", "lora_layers": "all"},
    "lora without dropout": {"method": "lora", "lora_layers": "all", "lora_dropout": 0.0},
    "lora on every matrix": {
        "method": "lora", "lora_layers": "all", "lora_matrices": ("query", "key", "value", "output", "feed-forward"),
    },
    "lora on states of several layers": {"method": "lora", "state_layers": "1,2,4", "lora_layers": "3,4"},
    "full": {"method": "full"},
}  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_token_keeps_as_many_bytes_for_the_backward_pass_as_counted(tmp_path, esm_folder, options, dtype):
    machine = Machine(torch.device("cpu"), dtype)
    settings = settings_for(tmp_path, esm_folder, **options)
    loaded_dtype = torch.float32 if settings.method == "full" else dtype
    model = build_model(settings, read_dataset(settings), load_backbone(str(esm_folder), dtype=loaded_dtype))
    encoder = encoder_of(model, machine)
    model.model.train()
    per_token = (kept_bytes(encoder, 700) - kept_bytes(encoder, 200)) / 1000  # of two proteins
    need = footprint(model, machine)
    assert per_token == pytest.approx(sum(need.layers), rel=0.06)


def kept_bytes(encoder, num_residues):
    """Bytes of all tensors that autograd keeps over the encoding of two proteins, the weights left out."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in encoder.model.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    vocabulary = encoder.backbone.vocabulary
    proteins = [
        cut_pieces(random_sequence(num_residues, seed), vocabulary, max_residues=1022, long_proteins="crop")
        for seed in (1, 2)
    ]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        vectors_PD = encoder.vectors(proteins)
    assert vectors_PD.requires_grad
    return sum(num_bytes for num_bytes, _ in kept.values())


def test_checkpointing_keeps_a_state_per_layer_and_one_layer_at_a_time():
    assert NEED.per_token(checkpoint_layers=False) == 20 + 20 + 10
    assert NEED.per_token(checkpoint_layers=True) == 2 * 4 + 20 + 12


def test_an_ample_limit_leaves_everything_as_it_is():
    execution = chosen(10**9)
    assert (execution.checkpoint_layers, execution.is_frugal) == (False, False)
    assert execution.token_budget == LARGEST_BUDGET


def test_the_layers_are_checkpointed_only_where_too_little_fits_without():
    plain, checkpointed = 180 * 50, 100 * 40
    assert not chosen((NEED.fixed + plain) / (1 - MARGIN) + 1, machine=GPU).checkpoint_layers
    lean = chosen((NEED.fixed + checkpointed) / (1 - MARGIN) + 1, machine=GPU)
    assert (lean.checkpoint_layers, lean.token_budget) == (True, 100)


def test_memory_is_returned_at_once_before_layers_are_checkpointed():
    if can_free_at_once(CPU.device):
        execution = chosen((NEED.fixed + 180 * 50 * 1.06) / (1 - MARGIN))
        assert (execution.checkpoint_layers, execution.is_frugal) == (False, True)


def test_a_head_has_no_layers_to_checkpoint():
    assert not chosen(3300, need=replace(NEED, layers=())).checkpoint_layers


def test_a_limit_is_kept_whatever_it_is():
    for limit_bytes in range(1500, 40_000, 250):
        execution = chosen(limit_bytes)
        if execution is not None:
            assert execution.planned_bytes <= limit_bytes
            assert execution.token_budget >= 100


def test_a_larger_limit_never_fits_fewer_tokens_in_the_same_way():
    found = [execution for limit_bytes in range(1500, 40_000, 250) if (execution := chosen(limit_bytes)) is not None]
    ways = {(execution.checkpoint_layers, execution.is_frugal) for execution in found}
    for way in ways:
        budgets = [e.token_budget for e in found if (e.checkpoint_layers, e.is_frugal) == way]
        assert budgets == sorted(budgets)


@pytest.mark.parametrize("machine", [CPU, GPU])
def test_the_least_memory_is_where_the_leanest_way_begins_to_fit(machine):
    least = least_bytes(NEED, machine, (100, 50, 30), held_bytes=700)
    assert chosen(least, machine=machine, held_bytes=700) is not None
    assert chosen(least - 100, machine=machine, held_bytes=700) is None


def test_without_a_limit_of_the_user_the_leanest_way_is_taken_rather_than_none():
    execution = chosen(10, must_fit=False)
    assert execution.checkpoint_layers
    assert execution.token_budget == 100
    assert not execution.is_frugal


def test_a_token_budget_of_the_user_is_never_exceeded():
    assert chosen(10**9, token_budget=60).token_budget == 60


def test_frozen_states_stay_off_the_gpu_where_the_limit_has_no_room_for_them():
    need = replace(NEED, per_state=1)
    assert chosen(10**6, machine=GPU, need=need).holds_states
    assert not chosen(10**4, machine=GPU, need=replace(NEED, per_state=400), tokens=(20, 20, 20)).holds_states


@pytest.mark.parametrize("must_fit", [True, False])
def test_frozen_states_on_a_gpu_and_the_tokens_beside_them_share_the_room(must_fit):
    states = NEED.per_state * 180
    execution = chosen((NEED.fixed + states + 10**5) / (1 - MARGIN), machine=GPU, must_fit=must_fit, token_budget=10**4)
    assert execution.holds_states
    assert execution.token_budget == 10**5 // NEED.per_token(checkpoint_layers=False)
    assert execution.planned_bytes == NEED.fixed + states + NEED.per_token(checkpoint_layers=False) * 180


def test_no_room_is_kept_for_frozen_states_where_there_are_none():
    limit_bytes = (NEED.fixed + 50 * 1000) / (1 - MARGIN) + 1
    none = replace(NEED, has_frozen_layers=False)
    for machine, need in ((GPU, none), (CPU, NEED), (GPU, replace(NEED, layers=()))):
        assert not chosen(10**6, machine=machine, need=need).holds_states
    assert chosen(limit_bytes, machine=GPU, need=none, token_budget=10**4).token_budget == 1000


def test_encoding_without_gradient_takes_no_more_tokens_than_fill_the_device():
    assert encoding_budget(10**6, torch.device("cpu")) == 4_096
    assert encoding_budget(100, torch.device("cpu")) == 100


def test_the_limit_is_the_users_or_a_share_of_what_is_left():
    cpu = torch.device("cpu")
    assert memory_limit("6GB", cpu, held_bytes=123) == 6 * 10**9
    assert 123 < memory_limit(None, cpu, held_bytes=123) < 123 + available_bytes(cpu)
    alone, shared = (memory_limit(None, cpu, held_bytes=0, num_sharing=number) for number in (1, 4))
    assert 2 * shared < alone


def gradients(folder, esm_folder, *, token_budget, checkpoint_layers):
    """Gradients of one step over all training pairs, by name, and into how many parts it was cut."""
    options = {"lora_dropout": 0.0, "lora_layers": "all", "lora_matrices": ("key", "feed-forward")}
    settings = settings_for(folder, esm_folder, **options)
    dataset = read_dataset(settings)
    model = build_model(settings, dataset, load_backbone(str(esm_folder), dtype=torch.float32))
    with torch.no_grad():
        for name, parameter in model.model.named_parameters():
            if "lora_B" in name:  # zero when fresh, which would leave the other matrix without gradient
                parameter.add_(0.1)
    encoder = Encoder(model.backbone, model.model, CPU, checkpoint_layers=checkpoint_layers)
    calls = []
    encoder.vectors = (lambda real: lambda proteins: calls.append(len(proteins)) or real(proteins))(encoder.vectors)
    schedule = Schedule(
        epochs=1, batch_examples=64, learning_rate=1e-3, weight_decay=0.0, warmup_fraction=0.0, clip_norm=1.0,
        patience=1, metric="aupr", seed=0,
    )  # fmt: skip
    pieces = model.pieces(dataset.proteins)
    trainer = Trainer(model, encoder, dataset, pieces, schedule, token_budget=token_budget, vectors_PD=None)
    show = TrainingProgress(Console(quiet=True), num_steps=1, metric="aupr", device=CPU.device)
    trainer.gradient(np.arange(len(trainer.train)), 0, show)
    found = {name: p.grad.clone() for name, p in model.model.named_parameters() if p.requires_grad}
    return found, (len(calls) + 1) // 2


def test_a_limit_that_forces_parts_and_checkpoints_gives_the_same_gradient(tmp_path, esm_folder):
    need = counted(tmp_path, esm_folder, lora_layers="all")
    tokens = [8 + 3 * i for i in range(18)]
    least = least_bytes(need, CPU, tokens, held_bytes=0)
    lean = choose_execution(
        need, CPU, tokens, held_bytes=0, limit_bytes=least, checkpoint_layers=False, token_budget=None, must_fit=True
    )
    assert lean.checkpoint_layers == can_free_at_once(CPU.device)
    plain, num_plain_parts = gradients(tmp_path, esm_folder, token_budget=LARGEST_BUDGET, checkpoint_layers=False)
    found, num_parts = gradients(tmp_path, esm_folder, token_budget=lean.token_budget, checkpoint_layers=True)
    assert num_plain_parts == 1
    assert num_parts >= 3
    assert all(torch.allclose(found[name], plain[name], rtol=1e-4, atol=1e-6) for name in plain)
    assert all(gradient.abs().max() > 0 for gradient in found.values())


def test_a_limit_that_nothing_keeps_within_is_refused_before_training_with_what_is_needed(tmp_path, esm_folder):
    settings = settings_for(tmp_path, esm_folder, memory="1MB")
    with pytest.raises(UserError, match=r"lora on .* needs at least .* may hold 1 MiB; take a smaller backbone"):
        run_training(settings, Console(file=io.StringIO()))
    assert not (tmp_path / "bundle" / "run.json").exists()


def test_what_would_fit_is_named_with_the_memory_that_it_needs(tmp_path, esm_folder):
    settings = settings_for(tmp_path, esm_folder, method="full")
    dataset = read_dataset(settings)
    least = least_needed(replace(settings, method="lora"), dataset, CPU, held_bytes=0)
    assert least < least_needed(settings, dataset, CPU, held_bytes=0)
    said = what_would_fit(settings, dataset, CPU, held_bytes=0, limit_bytes=least)
    assert f"--method lora ({gibibytes(least)})" in said
    assert "--method lora --lora-layers all" not in said


def test_layers_that_would_fit_are_among_those_whose_states_are_taken(tmp_path, esm_folder):
    settings = settings_for(tmp_path, esm_folder, lora_layers="1-2", state_layers="2")
    dataset = read_dataset(settings)
    least = least_needed(replace(settings, lora_layers="2"), dataset, CPU, held_bytes=0)
    said = what_would_fit(settings, dataset, CPU, held_bytes=0, limit_bytes=least)
    assert f"what would fit: --lora-layers 2 ({gibibytes(least)})" in said


def test_training_within_a_limit_says_how_it_runs(tmp_path, esm_folder):
    said = io.StringIO()
    run_training(settings_for(tmp_path, esm_folder, memory="60GB", epochs=1), Console(file=said, width=200))
    assert f"{LARGEST_BUDGET:,} tokens at once" in said.getvalue()


PEAK = """
import torch
from peftide.training.resident import free_at_once, give_back, held_bytes, peak_bytes, start_peak

cpu = torch.device("cpu")
free_at_once(cpu)
give_back(cpu)
before = held_bytes(cpu)
assert start_peak(cpu)
block = torch.ones(48 * 2**20, dtype=torch.uint8)
held = held_bytes(cpu)
del block
print(held - before, peak_bytes(cpu) - before, held_bytes(cpu) - before)
"""


@pytest.mark.skipif(not can_free_at_once(CPU.device), reason="needs Linux with glibc")
def test_a_peak_is_seen_after_its_memory_is_gone_and_freed_memory_goes_back():
    """In a process of its own: in one with a history the block may land in a hole, which stays when it is freed."""
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    held, peak, after = (int(number) / MEBIBYTE for number in done.stdout.split())
    assert held >= 40
    assert peak >= 40
    assert after < 24


def test_a_job_of_a_cluster_may_take_what_its_control_group_leaves(tmp_path):
    job = tmp_path / "slurm" / "job_1"
    job.mkdir(parents=True)
    (job / "memory.max").write_text("1000\n")
    (job / "memory.current").write_text("700\n")
    (job / "memory.stat").write_text("anon 500\ninactive_file 100\n")
    (tmp_path / "slurm" / "memory.max").write_text("max\n")
    assert cgroup_rooms("0::/slurm/job_1/task_0\n", tmp_path) == [400]
    assert cgroup_rooms("3:cpuset:/slurm/job_1\n", tmp_path) == []


def test_a_control_group_of_the_first_version_counts_too(tmp_path):
    group = tmp_path / "memory" / "job"
    group.mkdir(parents=True)
    (group / "memory.limit_in_bytes").write_text("1000")
    (group / "memory.usage_in_bytes").write_text("1000")
    (group / "memory.stat").write_text("inactive_file 30\n")
    assert cgroup_rooms("4:memory:/job\n0::/\n", tmp_path) == [30]
