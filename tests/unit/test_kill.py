"""compare, sweep and screen killed again and again: the same command goes on, to the result of one left in peace."""

import json
import multiprocessing
import os
import random
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import peftide
from conftest import random_sequence, write_examples
from peftide.cli import main
from peftide.config import TrainSettings

# Children of one process that has imported everything and computed nothing: a new interpreter takes seconds
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["optuna", "pandas", "pytest", "peftide.training.sweep", "peftide.inference.screen"])

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}


def changes_a_file(event: str, arguments: tuple, folder: str) -> bool:
    """Whether the process is about to change something under a folder."""
    if event == "open":
        path, _, flags = arguments
        return isinstance(path, str) and path.startswith(folder) and bool(flags & (os.O_WRONLY | os.O_RDWR))
    return event in CHANGES and str(arguments[0]).startswith(folder)


def child(words: list[str], folder: str, die_at: int | None, most_bytes: int | None) -> None:
    """A command that kills itself before it changes a file for the so manieth time, or may write no larger files."""
    num_changes = 0

    def watch(event: str, arguments: tuple) -> None:
        nonlocal num_changes
        if changes_a_file(event, arguments, folder):
            if num_changes == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            num_changes += 1

    torch.set_num_threads(1)
    if most_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    sys.addaudithook(watch)
    with open(f"{folder}.said", "a") as said, redirect_stdout(said), redirect_stderr(said):
        code = main(words)
    Path(f"{folder}.changes").write_text(str(num_changes))
    sys.exit(code)


def run(words: list[str], folder: Path, *, die_at: int | None = None, most_bytes: int | None = None) -> int | None:
    """The exit code of a command in a process of its own."""
    process = FORKS.Process(target=child, args=(words, str(folder), die_at, most_bytes))
    process.start()
    process.join()
    return process.exitcode


def kill_again_and_again(
    command: Callable[[Path], list[str]], tmp_path: Path, *, times: int, done: Callable[[Path], dict[str, int]]
) -> tuple[Path, Path]:
    """The folders of a command left in peace and of one killed so many times; done: what a folder has, with stamps."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    assert run(command(whole), whole) == 0, Path(f"{whole}.said").read_text()
    num_changes = int(Path(f"{whole}.changes").read_text())
    generator, stamps = random.Random(3), {}
    for _ in range(times):
        code = run(command(killed), killed, die_at=generator.randrange(num_changes))
        assert code in (-signal.SIGKILL, 0), Path(f"{killed}.said").read_text()
        assert stamps.items() <= done(killed).items()
        stamps = done(killed)
    assert run(command(killed), killed) == 0, Path(f"{killed}.said").read_text()
    assert stamps.items() <= done(killed).items()
    assert "Traceback" not in Path(f"{killed}.said").read_text()
    return whole, killed


def same(document: object) -> object:
    """A JSON document without what differs between two runs: times, memory, places."""
    if isinstance(document, dict):
        left_out = {"seconds", "peak_memory_bytes", "folder", "out", "bundle_bytes", "machine"}
        return {name: same(value) for name, value in document.items() if name not in left_out}
    return [same(value) for value in document] if isinstance(document, list) else document


def recipe(folder: Path) -> list[str]:
    examples = write_examples(folder, "pair")
    return [
        examples["data"], "--sequences", examples["sequences"], "--task", "pair", "--cache-dir", str(folder / "cache"),
        "--epochs", "2", "--batch-examples", "8", "--device", "cpu", "--precision", "fp32", "--threads", "1",
        "--audit", "none",
    ]  # fmt: skip


def test_a_comparison_killed_again_and_again_ends_as_one_left_in_peace(tmp_path, esm_folder):
    words = [*recipe(tmp_path), "--backbones", str(esm_folder), "--methods", "head", "lora", "--seeds", "1"]
    words += ["--baselines", "none"]

    def done(folder: Path) -> dict[str, int]:
        judged = [path for path in folder.rglob("seed-0/run.json") if json.loads(path.read_text())["assessment"]]
        return {str(path): path.stat().st_mtime_ns for path in judged}

    whole, killed = kill_again_and_again(
        lambda folder: ["compare", *words, "--out", str(folder)], tmp_path, times=4, done=done
    )
    documents = [json.loads((folder / "compare.json").read_text()) for folder in (whole, killed)]
    assert same(documents[0]) == same(documents[1])
    files = {str(path.relative_to(whole)) for path in whole.rglob("*") if path.is_file()}
    assert files == {str(path.relative_to(killed)) for path in killed.rglob("*") if path.is_file()}
    weights = [name for name in files if name.endswith(".safetensors")]
    assert len(weights) == 3
    for name in weights:
        first, second = (load_file(folder / name) for folder in (whole, killed))
        assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(
    "how", [["--vary", "lora_rank=1,2"], ["--search", "optuna", "--trials", "4", "--vary", "lora_rank=1..8"]]
)
def test_a_sweep_killed_again_and_again_has_the_trials_of_one_left_in_peace(tmp_path, esm_folder, how):
    words = [*recipe(tmp_path), "--backbone", str(esm_folder), *how]

    def done(folder: Path) -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in folder.glob("trials/*/trial.json")}

    whole, killed = kill_again_and_again(
        lambda folder: ["sweep", *words, "--out", str(folder)], tmp_path, times=4, done=done
    )
    documents = [same(json.loads((folder / "sweep.json").read_text())) for folder in (whole, killed)]
    assert documents[0] == documents[1]
    files = [{path.name for path in folder.rglob("*")} for folder in (whole, killed)]
    assert files[0] == files[1]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, esm_folder) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    peftide.train(
        TrainSettings(
            **write_examples(folder, "pair"), out=str(folder / "bundle"), backbone=str(esm_folder), method="head",
            epochs=1, batch_examples=8, device="cpu", precision="fp32", threads=1, baselines="none", audit="none",
        )
    )  # fmt: skip
    return folder / "bundle"


def screening(folder: Path, bundle: Path) -> Callable[[Path], list[str]]:
    """A screen of 1,100 proteins: three parts of vectors and three bands."""
    proteins = folder / "proteins.fasta"
    proteins.write_text("".join(f">Q{n}\n{random_sequence(4 + n % 20, seed=n)}\n" for n in range(1100)))
    words = [str(bundle), str(proteins), "--top-k", "3", "--cache-limit-gb", "0", "--device", "cpu"]
    return lambda place: ["screen", *words, "--precision", "fp32", "--threads", "1", "--out", str(place / "o.parquet")]


def test_a_screen_killed_again_and_again_ends_as_one_left_in_peace(tmp_path, bundle):
    def done(folder: Path) -> dict[str, int]:
        parts = [*folder.glob(".o.parquet.parts/band-*"), *folder.glob(".o.parquet.parts/vectors-*")]
        is_done = (folder / "o.parquet").is_file()
        return {} if is_done else {str(path): path.stat().st_mtime_ns for path in parts}

    whole, killed = kill_again_and_again(screening(tmp_path, bundle), tmp_path, times=4, done=done)
    tables = [pd.read_parquet(folder / "o.parquet") for folder in (whole, killed)]
    pd.testing.assert_frame_equal(*tables)
    assert os.listdir(killed) == ["o.parquet"]
