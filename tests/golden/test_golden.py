"""Losses and scores of tiny runs, kept as they were: whoever moves a number must say so.

In float32 on one thread, to a relative 1e-4: matrix products round differently from processor to processor, and so do
the weights after a few steps (between SSE4.2 and AVX-512 the numbers below differ by 2e-6 at most). No dropout, whose
random numbers depend on the processor too. After a change that is meant:
PYTHONPATH=tests python tests/golden/test_golden.py
"""

import csv
import io
import json
import tempfile
from pathlib import Path

import pytest
import torch
from rich.console import Console

from conftest import write_esm, write_examples
from peftide.config import TrainSettings
from peftide.models.bundle import read_run
from peftide.training.run import run_training

GOLDEN = Path(__file__).with_name("golden.json")
RUNS = {
    "pair-lora": ("pair", {"backbone": "swissprot-10m", "method": "lora", "learning_rate": 1e-3}),
    "pair-head-paper": ("pair", {"backbone": "swissprot-10m", "method": "head", "head": "paper"}),
    "multiclass-head": (
        "multiclass",
        {"backbone": "swissprot-10m", "method": "head", "class_weights": "balanced", "max_residues": 30},
    ),
    "symmetry-lora-window": (
        "symmetry",
        {
            "backbone": "random", "method": "lora", "lora_layers": "2-4", "lora_matrices": ("query", "feed-forward"),
            "max_residues": 20, "long_proteins": "window", "pooling": "cls",
        },
    ),
    "regression-full": ("regression", {"backbone": "random", "method": "full", "head": "linear"}),
}  # fmt: skip


def results_of(name: str, folder: Path) -> dict[str, list[float]]:
    """Training losses and validation metric by epoch, and all numbers of predictions.tsv row by row."""
    kind, options = RUNS[name]
    if options["backbone"] == "random":
        (folder / "esm").mkdir()
        options = options | {"backbone": str(write_esm(folder / "esm"))}
    settings = TrainSettings(
        **write_examples(folder, kind), **options, out=str(folder / "bundle"), epochs=3, batch_examples=8,
        head_width=16, head_dropout=0.0, lora_dropout=0.0, device="cpu", precision="fp32", threads=1,
        token_budget=100, cache_dir=str(folder / "cache"), baselines="none",
    )  # fmt: skip
    run_training(settings, Console(file=io.StringIO()))
    history = read_run(folder / "bundle")["training"]["history"]
    with open(folder / "bundle" / "predictions.tsv", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    is_score = {
        name: name.startswith("probability") or (kind == "regression" and name == "prediction") for name in rows[0]
    }
    return {
        "losses": [row["loss"] for row in history],
        "scores": [float(row[name]) for row in rows for name in row if is_score[name]],
    }


@pytest.mark.parametrize("name", RUNS)
def test_losses_and_scores_are_those_of_the_golden_run(name, tmp_path):
    found, expected = results_of(name, tmp_path), json.loads(GOLDEN.read_text())[name]
    assert found["losses"] == pytest.approx(expected["losses"], rel=1e-4)
    assert found["scores"] == pytest.approx(expected["scores"], rel=1e-4)


def write_golden() -> None:
    torch.set_num_threads(1)
    results = {}
    for name in RUNS:
        with tempfile.TemporaryDirectory() as folder:
            results[name] = results_of(name, Path(folder))
    rounded = {
        name: {key: [float(f"{value:.7g}") for value in values] for key, values in result.items()}
        for name, result in results.items()
    }
    lines = [f"{json.dumps(name)}: {json.dumps(result)}" for name, result in rounded.items()]
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    write_golden()
