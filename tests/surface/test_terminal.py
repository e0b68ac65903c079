"""Every command on a terminal, where bars and spinners are live: elsewhere they are switched off."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import random_sequence, write_examples

RUN_ALL = "import json, sys; from peftide.cli import main; print([main(words) for words in json.loads(sys.argv[1])])"
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_a_terminal(words: list[str]) -> tuple[int, str]:
    """Exit code of a process that has a pseudo-terminal, and all that it wrote there."""
    terminal, its_side = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "120"}
    process = subprocess.Popen(words, stdin=its_side, stdout=its_side, stderr=its_side, env=environment)
    os.close(its_side)
    written = bytearray()
    while True:
        try:
            piece = os.read(terminal, 1 << 16)
        except OSError:  # Linux's way to say that the other side is closed
            piece = b""
        if not piece:
            break
        written += piece
    os.close(terminal)
    return process.wait(), written.decode("utf-8", "replace")


@pytest.fixture(scope="module")
def commands(esm_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """A small run of every command that works for a while, in an order in which each finds what it needs."""
    folder = tmp_path_factory.mktemp("terminal")
    data = write_examples(folder, "pair")
    fasta = folder / "screened.fasta"
    fasta.write_text("".join(f">S{n}\n{random_sequence(20 + n, seed=n)}\n" for n in range(6)))
    table = [data["data"], "--sequences", data["sequences"]]
    machine = ["--device", "cpu", "--threads", "1", "--cache-dir", str(folder / "cache")]
    backbone, bundle = ["--backbone", str(esm_folder)], str(folder / "bundle")
    quick = ["--epochs", "2", "--batch-examples", "8", *machine]
    return {
        "split": [*table, "--out", str(folder / "split.tsv"), "--threads", "1"],
        "audit": [*table, "--threads", "1"],
        "plan": [*table, "--backbones", str(esm_folder), *quick],
        "train": [*table, *backbone, "--state-layers", "1,4", *quick, "--out", bundle],
        "evaluate": [bundle, *table, *machine],
        "predict": [bundle, *table, *machine, "--out", str(folder / "scores.tsv")],
        "embed": [str(fasta), *backbone, *machine, "--out", str(folder / "vectors.h5")],
        "screen": [bundle, str(fasta), *machine, "--out", str(folder / "screen.parquet")],
        "compare": [*table, "--backbones", str(esm_folder), "--methods", "head", "--seeds", "1", *quick,
                    "--out", str(folder / "compared")],
        "sweep": [*table, *backbone, "--method", "head", "--vary", "head=mlp,linear", *quick,
                  "--out", str(folder / "swept")],
        "report": [bundle],
        "doctor": ["--bundle", bundle, *machine],
    }  # fmt: skip


def test_every_command_ends_well_on_a_terminal(commands: dict[str, list[str]]) -> None:
    words = [[name, *rest] for name, rest in commands.items()]
    code, written = on_a_terminal([sys.executable, "-c", RUN_ALL, json.dumps(words)])
    said = ESCAPES.sub("", written)
    assert "Traceback" not in said, said[-6000:]
    assert said.split()[-len(words) :] == str([0] * len(words)).split(), said[-6000:]
    assert code == 0
    for live in ("encoding", "residues", "scoring", "left"):
        assert live in said
