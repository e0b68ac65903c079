"""Runs that are killed, and the state they leave."""

import io
import json
import os
import random
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from filelock import FileLock
from rich.console import Console
from safetensors.torch import load_file

from conftest import write_examples
from peftide.config import TrainSettings
from peftide.errors import UserError
from peftide.training import baselines as training_baselines
from peftide.training import demo
from peftide.training.checkpoint import Checkpoints, Snapshot, unfinished_run
from peftide.training.loop import Trainer
from peftide.training.run import run_training
from peftide.training.state import INTERRUPTED

# Ends the process without warning after so many optimiser steps of the run that it begins
DIES = """
import os, signal, sys
from peftide.training import loop
num_steps, plain = int(sys.argv[1]), loop.Trainer.step
def step(self, *arguments):
    global num_steps
    if num_steps == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    num_steps -= 1
    return plain(self, *arguments)
loop.Trainer.step = step
from peftide.cli import main
sys.exit(main(sys.argv[2:]))
"""


def settings_of(folder, esm_folder, out, **options):
    given = {
        "backbone": str(esm_folder), "method": "lora", "device": "cpu", "precision": "fp32", "epochs": 3,
        "batch_examples": 8, "cache_dir": str(folder / "cache"), "baselines": "none", "checkpoint_minutes": 0.0,
        "patience": 9, "lora_dropout": 0.1,
    }  # fmt: skip
    return TrainSettings(**write_examples(folder, "pair"), out=str(out), **(given | options))


def command(settings):
    words = ["train", settings.data]
    for name, value in asdict(settings).items():
        if name != "data" and value is not None and not isinstance(value, bool) and value != ():
            words += [f"--{name.replace('_', '-')}", *(map(str, value) if isinstance(value, tuple) else [str(value)])]
    return words


def run(settings):
    said = io.StringIO()
    run_training(settings, Console(file=said, width=200))
    return said.getvalue()


def weights(folder):
    return load_file(folder / "head.safetensors") | load_file(folder / "adapter" / "adapter_model.safetensors")


def history(folder):
    rows = json.loads((folder / "run.json").read_text())["training"]["history"]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def assert_same_run(one, other):
    assert history(one) == history(other)
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def kill_after(settings, num_steps):
    done = subprocess.run(
        [sys.executable, "-c", DIES, str(num_steps), *command(settings)],
        capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_a_run_killed_again_and_again_ends_with_the_losses_and_weights_of_one_that_was_not(tmp_path, esm_folder):
    whole = settings_of(tmp_path, esm_folder, tmp_path / "whole", threads=1)
    run(whole)
    killed = settings_of(tmp_path, esm_folder, tmp_path / "killed", threads=1)
    generator = random.Random(0)
    for _ in range(3):
        kill_after(killed, generator.randint(1, 3))
        assert not (tmp_path / "killed" / "run.json").exists()
    said = run(killed)
    assert "going on after step" in said
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    assert not (tmp_path / "killed" / "checkpoints").exists()


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(tmp_path, esm_folder):
    run(settings_of(tmp_path, esm_folder, tmp_path / "whole", threads=1))
    settings = settings_of(tmp_path, esm_folder, tmp_path / "killed", threads=1)
    kill_after(settings, 4)
    places = sorted((tmp_path / "killed" / "checkpoints").glob("step-*"))
    assert [int(place.name[5:]) for place in places] == [3, 4]
    content = (places[-1] / "state.safetensors").read_bytes()
    (places[-1] / "state.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    said = run(settings)
    assert f"checkpoint {places[-1]} is damaged" in said
    assert "going on after step 3" in said
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.parametrize("damage", ["truncate", "no digest", "no tensors", "empty"])
def test_no_damage_is_taken_for_a_checkpoint(tmp_path, damage):
    checkpoints = Checkpoints(tmp_path, interval_seconds=0)
    for step in (1, 2):
        checkpoints.save(step, Snapshot({"step": step}, {"x": torch.full((100,), float(step))}))
    place = tmp_path / "step-000000002"
    tensors = place / "state.safetensors"
    match damage:
        case "truncate":
            tensors.write_bytes(tensors.read_bytes()[:-40])
        case "no digest":
            (place / "sha256").unlink()
        case "no tensors":
            tensors.unlink()
        case "empty":
            tensors.write_bytes(b"")
    said = []
    found = checkpoints.latest(said.append)
    assert found.position == {"step": 1}
    assert len(said) == 1
    assert "damaged" in said[0]


def test_only_the_last_two_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, interval_seconds=0)
    for step in range(5):
        checkpoints.save(step, Snapshot({"step": step}, {"x": torch.ones(1)}))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000003", "step-000000004"]


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path):
    checkpoints = Checkpoints(tmp_path, interval_seconds=0)
    checkpoints.save(1, Snapshot({"step": 1}, {"x": torch.ones(1)}))
    tmp_path.joinpath(f".step-000000002.{os.getpid()}.new").write_text("in the way")
    with pytest.raises(UserError, match=r"the checkpoint after step 2: cannot be written .*the same command goes on"):
        checkpoints.save(2, Snapshot({"step": 2}, {"x": torch.ones(1)}))
    assert checkpoints.latest(pytest.fail).position == {"step": 1}


def test_a_second_process_on_the_same_folder_is_refused(tmp_path, esm_folder):
    settings = settings_of(tmp_path, esm_folder, tmp_path / "run")
    with FileLock(tmp_path / ".run.lock"), pytest.raises(UserError, match="another process is writing this run"):
        run(settings)


def test_an_unfinished_run_of_other_settings_is_refused_until_it_is_thrown_away(tmp_path, esm_folder):
    settings = settings_of(tmp_path, esm_folder, tmp_path / "run", threads=1)
    kill_after(settings, 2)
    other = settings_of(tmp_path, esm_folder, tmp_path / "run", threads=1, lora_rank=4)
    with pytest.raises(UserError, match=r"an unfinished run of other settings is there .*lora_rank is 8 there and 4"):
        run(other)
    said = run(settings_of(tmp_path, esm_folder, tmp_path / "run", threads=1, lora_rank=4, restart=True))
    assert "going on" not in said
    assert json.loads((tmp_path / "run" / "run.json").read_text())["settings"]["lora_rank"] == 4


def interrupt_after(monkeypatch, num_steps):
    """Press Ctrl-C, once, in the step after so many."""
    plain, done = Trainer.step, []

    def step(self, *arguments):
        done.append(arguments)
        if len(done) == num_steps + 1:
            signal.raise_signal(signal.SIGINT)
        return plain(self, *arguments)

    monkeypatch.setattr(Trainer, "step", step)


def test_ctrl_c_keeps_the_best_weights_and_the_same_command_goes_on(tmp_path, esm_folder, monkeypatch):
    whole = settings_of(tmp_path, esm_folder, tmp_path / "whole")
    run(whole)
    settings = settings_of(tmp_path, esm_folder, tmp_path / "stopped")
    interrupt_after(monkeypatch, 2 * 3 + 1)  # three steps an epoch
    said = run(settings)
    assert "interrupted: keeping the weights of epoch" in said
    assert "the same command goes on from the last checkpoint" in said
    assert len(history(tmp_path / "stopped")) == 2
    assert weights(tmp_path / "stopped").keys() == weights(tmp_path / "whole").keys()
    assert "going on after step 7 of 9" in run(settings)
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")
    assert not (tmp_path / "stopped" / "checkpoints").exists()


@pytest.mark.parametrize("has_checkpoint", [True, False])
def test_ctrl_c_in_the_first_epoch_writes_no_model_that_nobody_trained(
    tmp_path, esm_folder, monkeypatch, has_checkpoint
):
    options = {} if has_checkpoint else {"checkpoint_minutes": 5.0}
    settings = settings_of(tmp_path, esm_folder, tmp_path / "out", **options)
    interrupt_after(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        run(settings)
    assert not (tmp_path / "out" / "run.json").exists()
    assert (tmp_path / "out" / "checkpoints").exists() == has_checkpoint
    said = run(replace(settings, lora_rank=8 if has_checkpoint else 4))
    assert ("going on after step 2 of 9" in said) == has_checkpoint


def test_ctrl_c_while_a_baseline_trains_ends_the_run_without_that_baseline(tmp_path, esm_folder, monkeypatch):
    class Interrupted(Trainer):
        def fit(self, *arguments):
            fit = super().fit(*arguments)
            fit.ended = f"{INTERRUPTED} 2"
            return fit

    monkeypatch.setattr(training_baselines, "Trainer", Interrupted)
    settings = settings_of(tmp_path, esm_folder, tmp_path / "run", baselines="all", epochs=1)
    with pytest.raises(KeyboardInterrupt):
        run(settings)
    assert "assessment" not in json.loads((tmp_path / "run" / "run.json").read_text())


def test_ctrl_c_ends_the_demo_and_not_only_the_model_that_trains(tmp_path, monkeypatch):
    begun = []

    def interrupted(settings, console):
        begun.append(settings.out)
        return SimpleNamespace(is_interrupted=True)

    monkeypatch.setattr(demo, "run_training", interrupted)
    with pytest.raises(KeyboardInterrupt):
        demo.run_demo(str(tmp_path / "demo"), Console(quiet=True))
    assert len(begun) == 1


def test_an_error_leaves_the_checkpoints_and_an_end_removes_them(tmp_path):
    def begin():
        return unfinished_run(tmp_path, {}, interval_seconds=0, restart=False, differences=lambda kept: [])

    def fail():
        with begin() as checkpoints:
            checkpoints.save(1, Snapshot({"step": 1}, {"x": torch.ones(1)}))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with begin() as checkpoints:
        assert checkpoints.latest(pytest.fail).position == {"step": 1}
    assert not Path(tmp_path / "checkpoints").exists()
