"""Several processes that train together: the same model as from one, on every rank, and written once."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from rank_worker import CASES, run_case
from safetensors.torch import load_file

from conftest import write_examples
from peftide.cli import main
from peftide.errors import UserError
from peftide.models.bundle import load_bundle
from peftide.training.ranks import ALONE, Ranks, device_of, launched, threads_of
from peftide.training.shares import dealt_examples, dealt_proteins

TESTS = Path(__file__).parents[1]
ALIKE = [
    name
    for name, case in CASES.items()
    if case.is_summed
    and not case.with_dropout
    and case.short_at is None
    and case.checkpoints is None
    and "precision" not in case.options
]


def launch(words):
    """Two processes as a launcher starts them: the exit codes and what each said, by rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    paths = [str(TESTS), str(TESTS / "unit"), os.environ.get("PYTHONPATH", "")]
    shared = os.environ | {
        "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths),
    }  # fmt: skip
    started = [
        subprocess.Popen(
            [sys.executable, *words], env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=300) for process in started]
    return [process.returncode for process in started], said


@pytest.fixture(scope="module")
def runs(tmp_path_factory, esm_folder):
    """Every case run by two processes, and those without dropout by one: their folder."""
    folder = tmp_path_factory.mktemp("ranks")
    codes, said = launch([str(TESTS / "unit" / "rank_worker.py"), str(folder), str(esm_folder)])
    assert codes == [0, 0], said
    for name in [*ALIKE, "sharded-bf16"]:
        run_case(name, folder, esm_folder)
    return folder


def state(folder, name, count, rank):
    return load_file(folder / f"{name}-{count}-{rank}" / "state.safetensors")


def fit(folder, name, count, rank):
    return json.loads((folder / f"{name}-{count}-{rank}" / "fit.json").read_text())


def differences(one, other):
    assert one.keys() == other.keys()
    return {name: (one[name] - other[name]).abs().max().item() for name in one}


@pytest.mark.parametrize("name", ALIKE)
def test_two_processes_end_with_the_weights_and_vectors_of_one_with_the_same_batches(runs, name):
    alone, together = state(runs, name, 1, 0), state(runs, name, 2, 0)
    assert max(differences(alone, together).values()) < 1e-5
    for row, other in zip(fit(runs, name, 1, 0)["history"], fit(runs, name, 2, 0)["history"], strict=True):
        assert row == pytest.approx(other, rel=1e-4)


@pytest.mark.parametrize("name", [name for name in CASES if name != "unsummed"])
def test_the_ranks_are_equal_to_the_last_bit(runs, name):
    first, second = state(runs, name, 2, 0), state(runs, name, 2, 1)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert fit(runs, name, 2, 0) == fit(runs, name, 2, 1)


def test_without_the_sum_of_the_gradients_the_ranks_would_drift_apart(runs):
    apart = differences(state(runs, "unsummed", 2, 0), state(runs, "unsummed", 2, 1))
    assert max(value for name, value in apart.items() if "lora_B" in name) > 1e-3
    from_one = differences(state(runs, "unsummed", 2, 0), state(runs, "lora-pair", 1, 0))
    assert max(value for name, value in from_one.items() if "lora_B" in name) > 1e-3


def test_dropout_changes_the_result_of_two_processes_and_leaves_it_repeatable(runs):
    assert max(differences(state(runs, "dropout", 2, 0), state(runs, "lora-pair", 2, 0)).values()) > 1e-3


@pytest.mark.parametrize("name", ["short-forward", "short-backward"])
def test_where_one_rank_runs_out_of_memory_all_go_on_with_smaller_parts(runs, name):
    assert max(differences(state(runs, "lora-pair", 1, 0), state(runs, name, 2, 0)).values()) < 1e-5


def test_ctrl_c_on_one_rank_stops_all_after_the_same_step_and_the_resumed_run_is_that_without(runs):
    assert [fit(runs, "stopped", 2, rank)["ended"] for rank in (0, 1)] == ["interrupted in epoch 2"] * 2
    assert fit(runs, "resumed", 2, 0) == fit(runs, "dropout", 2, 0)
    resumed, whole = state(runs, "resumed", 2, 0), state(runs, "dropout", 2, 0)
    assert all(torch.equal(resumed[key], whole[key]) for key in whole)


def test_weights_that_travel_in_bfloat16_give_the_losses_of_weights_rounded_to_it(runs):
    alone, together = ([row["loss"] for row in fit(runs, "sharded-bf16", count, 0)["history"]] for count in (1, 2))
    exact = [row["loss"] for row in fit(runs, "sharded-pair", 1, 0)["history"]]
    assert together == pytest.approx(alone, rel=0.02)
    assert alone != exact


def test_a_run_whose_weights_are_shared_out_goes_on_from_its_checkpoint(runs):
    assert fit(runs, "sharded-stopped", 2, 0)["ended"] == "interrupted in epoch 2"
    assert fit(runs, "sharded-resumed", 2, 0) == fit(runs, "sharded-pair", 2, 0)
    resumed, whole = state(runs, "sharded-resumed", 2, 0), state(runs, "sharded-pair", 2, 0)
    assert all(torch.equal(resumed[key], whole[key]) for key in whole)


def test_the_cache_holds_each_piece_that_the_ranks_filled_in_once_or_twice(runs):
    alone, together = (
        sum(file.stat().st_size for file in (runs / f"cache-{count}").rglob("*.states")) for count in (1, 2)
    )
    assert alone <= together < 1.5 * alone


def train_words(folder, esm_folder, out, **options):
    given = {
        "backbone": esm_folder, "out": out, "device": "cpu", "precision": "fp32", "epochs": 2, "batch-examples": 8,
        "lora-dropout": 0, "head-dropout": 0, "baselines": "none", "audit": "none", "threads": 1,
        "cache-dir": folder / "cache",
    }  # fmt: skip
    files = write_examples(folder, "pair")
    flags = {"sequences": files["sequences"], "task": "pair"} | given | options
    return ["train", files["data"], *(word for name, value in flags.items() for word in (f"--{name}", str(value)))]


def test_torchrun_trains_with_weights_shared_out_and_writes_one_whole_bundle(tmp_path, esm_folder, capsys):
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "peftide"]
    given = {"method": "full", "learning-rate": 1e-3}
    done = subprocess.run(
        [sys.executable, *words, *train_words(tmp_path, esm_folder, tmp_path / "two", **given), "--shard"],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch   1") == done.stdout.count("bundle written to") == 1
    assert "the first of 2 processes" in done.stdout
    assert main(train_words(tmp_path, esm_folder, tmp_path / "one", **given)) == 0
    assert "processes" not in capsys.readouterr().out
    listed = [
        sorted(path.relative_to(tmp_path / out) for path in (tmp_path / out).rglob("*")) for out in ("one", "two")
    ]
    assert listed[0] == listed[1]
    documents = [json.loads((tmp_path / out / "run.json").read_text()) for out in ("one", "two")]
    assert documents[1]["metrics"]["test"] == pytest.approx(documents[0]["metrics"]["test"], rel=1e-3)
    assert documents[1]["model"]["trained_parameters"] == documents[0]["model"]["trained_parameters"]
    assert documents[1]["machine"]["processes"] == 2
    one, two = (load_file(tmp_path / out / "backbone" / "model.safetensors") for out in ("one", "two"))
    assert max(differences(one, two).values()) < 1e-5
    assert load_bundle(tmp_path / "two", dtype=torch.float32).method == "full"


def test_a_users_mistake_is_told_once_and_ends_all(tmp_path, esm_folder):
    codes, said = launch(["-m", "peftide", *train_words(tmp_path, esm_folder, tmp_path / "out", metric="rmse")])
    assert codes == [2, 2]
    assert [stderr.count("error: --metric rmse") for _, stderr in said] == [1, 0]
    assert "Traceback" not in said[0][1] + said[1][1]
    assert not (tmp_path / "out" / "run.json").exists()


def test_every_protein_and_every_example_is_dealt_to_one_rank_and_the_tokens_are_even():
    tokens_P = np.random.default_rng(0).integers(40, 1024, 101)
    ranks = [Ranks(rank, 4, rank, 4) for rank in range(4)]
    proteins = dealt_proteins(tokens_P, 4)
    assert sorted(np.concatenate(proteins)) == list(range(101))
    loads = [tokens_P[own].sum() for own in proteins]
    assert max(loads) - min(loads) < 100
    examples = [dealt_examples(np.arange(10), one) for one in ranks]
    assert [len(own) for own in examples] == [3, 3, 2, 2]
    assert np.concatenate(examples).tolist() == list(range(10))
    assert [len(own) for own in dealt_proteins(tokens_P[:1], 4)] == [1, 0, 0, 0]


def test_the_launchers_variables_say_which_rank_this_is_and_incomplete_ones_are_refused():
    given = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    place = {"MASTER_ADDR": "node0", "MASTER_PORT": "29500"}
    assert launched(given | place) == Ranks(3, 4, 1, 2)
    assert launched({}) == launched({"WORLD_SIZE": "4"}) == launched(given | place | {"WORLD_SIZE": "1"}) == ALONE
    for wrong in (given, given | place | {"RANK": "x"}, {"RANK": "0", "WORLD_SIZE": "2"} | place):
        with pytest.raises(UserError, match=r"speaks of several processes .* start with torchrun"):
            launched(wrong)


def test_ranks_share_the_cores_of_a_node_and_none_takes_the_gpu_of_another():
    two = Ranks(1, 2, 1, 2)
    assert threads_of(ALONE, None) is None
    assert threads_of(two, 3) == 3
    assert 1 <= threads_of(two, None) <= max(1, os.cpu_count() // 2)
    assert device_of(ALONE, "cuda:1") == "cuda:1"
    assert device_of(two, "cpu") == "cpu"
    for wanted in ("cuda:1", "mps"):
        with pytest.raises(UserError, match=f"--device {wanted}: 2 processes train together; choose auto, cuda or cpu"):
            device_of(two, wanted)


def test_only_training_is_shared(tmp_path, monkeypatch, capsys):
    place = {"MASTER_ADDR": "node0", "MASTER_PORT": "29500"}
    for name, value in (place | {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}).items():
        monkeypatch.setenv(name, value)
    assert main(["embed", str(tmp_path / "absent.fasta"), "--out", str(tmp_path / "x.h5")]) == 2
    assert "2 processes were started, and only train shares its work" in capsys.readouterr().err


def test_one_process_or_another_method_cannot_share_its_weights_out(tmp_path, esm_folder, capsys):
    words = [*train_words(tmp_path, esm_folder, tmp_path / "out"), "--shard"]
    assert main(words) == 2
    assert "shard: needs method full, without compile; method is lora" in capsys.readouterr().err
    assert main([*words, "--method", "full"]) == 2
    assert "--shard: one process has nobody to share with; start several, as torchrun does" in capsys.readouterr().err
