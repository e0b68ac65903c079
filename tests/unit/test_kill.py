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
from rich.console import Console
from safetensors.torch import load_file

import peftide
from conftest import random_sequence, write_examples
from peftide.cli import main
from peftide.config import CompareSettings, SweepSettings, TrainSettings
from peftide.errors import UserError
from peftide.training.checkpoint import alone_in, unfinished_run
from peftide.training.compare import run_compare
from peftide.training.search import mend_journal
from peftide.training.sweep import run_sweep

# Children of one process that has imported everything and computed nothing: a new interpreter takes seconds
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["optuna", "pandas", "pytest", "peftide.api", "peftide.training.compare"])

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


@pytest.mark.slow
def test_a_comparison_killed_again_and_again_ends_as_one_left_in_peace(tmp_path, esm_folder):
    words = [*recipe(tmp_path), "--backbones", str(esm_folder), "--methods", "head", "lora", "--seeds", "1"]
    words += ["--baselines", "none"]

    def done(folder: Path) -> dict[str, int]:
        judged = [path for path in folder.rglob("seed-0/run.json") if json.loads(path.read_text())["assessment"]]
        return {str(path): path.stat().st_mtime_ns for path in judged}

    whole, killed = kill_again_and_again(
        lambda folder: ["compare", *words, "--out", str(folder)], tmp_path, times=3, done=done
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


@pytest.mark.slow
def test_a_search_killed_again_and_again_has_the_trials_of_one_left_in_peace(tmp_path, esm_folder):
    words = [*recipe(tmp_path), "--backbone", str(esm_folder), "--search", "optuna", "--trials", "3"]
    words += ["--vary", "lora_rank=1..8"]

    def done(folder: Path) -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in folder.glob("trials/*/trial.json")}

    whole, killed = kill_again_and_again(
        lambda folder: ["sweep", *words, "--out", str(folder)], tmp_path, times=3, done=done
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
    words = [str(bundle), str(proteins), "--top-k", "100", "--cache-limit-gb", "0", "--device", "cpu"]
    return lambda place: ["screen", *words, "--precision", "fp32", "--threads", "1", "--out", str(place / "o.parquet")]


@pytest.mark.slow
def test_a_screen_killed_again_and_again_ends_as_one_left_in_peace(tmp_path, bundle):
    known: dict[str, int] = {}

    def done(folder: Path) -> dict[str, int]:
        if not (folder / "o.parquet").is_file():
            known.clear()
            for kind in ("vectors", "band"):
                known.update({str(p): p.stat().st_mtime_ns for p in folder.glob(f".o.parquet.parts/{kind}-*")})
        return dict(known)

    whole, killed = kill_again_and_again(screening(tmp_path, bundle), tmp_path, times=3, done=done)
    tables = [pd.read_parquet(folder / "o.parquet") for folder in (whole, killed)]
    pd.testing.assert_frame_equal(*tables)
    assert os.listdir(killed) == ["o.parquet"]


def stopped_by_a_full_disk(words: list[str], folder: Path, *, most_bytes: int) -> str:
    """What a command says that may write no larger file."""
    said = Path(f"{folder}.said")
    before = said.stat().st_size if said.exists() else 0
    assert run(words, folder, most_bytes=most_bytes) == 2, said.read_text()
    return said.read_text()[before:]


@pytest.mark.slow
def test_a_full_disk_stops_training_with_a_message_and_leaves_the_last_checkpoint(tmp_path, esm_folder):
    words = ["train", *recipe(tmp_path), "--backbone", str(esm_folder), "--baselines", "none"]
    words += ["--checkpoint-minutes", "0", "--cache-limit-gb", "0"]
    for name in ("whole", "full"):
        (tmp_path / name).mkdir()
    assert run([*words, "--out", str(tmp_path / "whole")], tmp_path / "whole") == 0
    words, full = [*words, "--out", str(tmp_path / "full")], tmp_path / "full"
    said = stopped_by_a_full_disk(words, full, most_bytes=100_000)
    assert "checkpoints: the checkpoint after step 1: cannot be written (File too large)" in said
    assert "make room there, and the same command goes on" in said
    assert not (full / "run.json").exists()
    assert run(words, full, die_at=16) == -signal.SIGKILL
    [*_, last] = sorted((full / "checkpoints").glob("step-*"))
    assert "the checkpoint after step" in stopped_by_a_full_disk(words, full, most_bytes=100_000)
    assert last.is_dir()
    assert run(words, full) == 0
    assert "going on after step" in Path(f"{full}.said").read_text()
    for name in ("head.safetensors", "adapter/adapter_model.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (full / name).read_bytes()


@pytest.mark.slow
def test_a_full_disk_stops_a_screen_with_a_message_and_leaves_what_is_done(tmp_path, bundle, capsys):
    command = screening(tmp_path, bundle)
    for name in ("whole", "full"):
        (tmp_path / name).mkdir()
    assert run(command(tmp_path / "whole"), tmp_path / "whole") == 0
    full = tmp_path / "full"
    for most_bytes, what in ((50_000, "vectors-00000.parquet"), (150_000, "band-00000.parquet")):
        said = stopped_by_a_full_disk(command(full), full, most_bytes=most_bytes)
        assert f"{what}: cannot be written (" in said
        assert "the same command goes on" in said
    assert len(list(full.glob(".o.parquet.parts/vectors-*"))) == 3
    proteins = tmp_path / "proteins.fasta"
    content = proteins.read_text()
    proteins.write_text(content.replace(">Q7\n", ">Q7\nW"))
    assert main(command(full)) == 2
    assert "holds another screen, unfinished (proteins " in capsys.readouterr().err
    proteins.write_text(content)
    assert run(command(full), full) == 0
    pd.testing.assert_frame_equal(*(pd.read_parquet(tmp_path / name / "o.parquet") for name in ("whole", "full")))


@pytest.mark.slow
def test_a_full_disk_stops_a_comparison_and_not_one_run_after_another(tmp_path, esm_folder):
    out = tmp_path / "out"
    out.mkdir()
    words = ["compare", *recipe(tmp_path), "--backbones", str(esm_folder), "--methods", "head", "lora", "--seeds", "1"]
    said = stopped_by_a_full_disk([*words, "--baselines", "none", "--out", str(out)], out, most_bytes=1500)
    assert "0 of 2 runs are finished; the same command goes on from there" in said
    assert "cannot be written (File too large); make room there" in said
    assert "the others go on" not in said
    assert "Traceback" not in said
    assert [path.name for path in out.glob("*/*")] == ["head"]


def test_a_lock_that_cannot_be_made_is_named_with_the_mend(tmp_path):
    (tmp_path / ".out.lock").mkdir()
    said = r"\.out\.lock, which keeps other processes from --out .*out: cannot be written \(Is a directory\)"
    with pytest.raises(UserError, match=said), alone_in(tmp_path / "out", what="run"):
        pass


@pytest.mark.parametrize(("settings", "work"), [(CompareSettings, run_compare), (SweepSettings, run_sweep)])
def test_a_second_process_is_kept_from_the_same_folder(tmp_path, esm_folder, settings, work):
    backbone = {"backbones": (str(esm_folder),)} if work is run_compare else {"backbone": str(esm_folder)}
    varied = {} if work is run_compare else {"vary": ("lora_rank=1,2",)}
    wanted = settings(**write_examples(tmp_path, "pair"), out=str(tmp_path / "out"), **backbone, **varied)
    (tmp_path / "out").mkdir()
    with alone_in(tmp_path / "out", what="thing"), pytest.raises(UserError, match="another process is writing this"):
        work(wanted, Console(quiet=True))
    assert list((tmp_path / "out").iterdir()) == []


def test_checkpoints_of_which_nobody_knows_whose_they_are_are_not_gone_on_from(tmp_path):
    place = tmp_path / "checkpoints" / "step-000000004"
    place.mkdir(parents=True)
    with unfinished_run(tmp_path, {}, interval_seconds=0, restart=False, differences=lambda kept: []):
        assert not place.exists()


def test_a_run_that_has_no_checkpoint_yet_is_in_nobodys_way(tmp_path):
    def fail(seen):
        with unfinished_run(tmp_path, {}, interval_seconds=0, restart=False, differences=lambda kept: seen):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail([])
    assert (tmp_path / "checkpoints" / "run.json").is_file()
    with pytest.raises(ZeroDivisionError):
        fail(["seed is 0 there and 1 here"])


@pytest.mark.parametrize("damage", ["{", '{"settings": {}}'])
def test_damage_to_what_says_whose_checkpoints_they_are_is_told(tmp_path, damage):
    (tmp_path / "checkpoints" / "step-000000004").mkdir(parents=True)
    (tmp_path / "checkpoints" / "run.json").write_text(damage)
    with (
        pytest.raises(UserError, match=r"run.json: is damaged .*--restart throws it away"),
        unfinished_run(tmp_path, {}, interval_seconds=0, restart=False, differences=lambda kept: kept["sha256"]),
    ):
        pass


def test_a_study_is_mended_where_a_killed_process_left_half_a_line_and_its_lock(tmp_path):
    path = tmp_path / "study.log"
    path.write_bytes(b'{"a": 1}\n{"b": 2}\n{"half')
    path.with_name("study.log.lock").symlink_to(path)
    mend_journal(path)
    assert path.read_bytes() == b'{"a": 1}\n{"b": 2}\n'
    assert os.listdir(tmp_path) == ["study.log"]
