"""Memory and time of `peftide embed` and `peftide predict` against the number of proteins, or of pairs of few proteins.

A tiny backbone of random weights and short random proteins, so that 100,000 of them are embedded in minutes: with a
large one the memory beside the model differs in the width of the vectors alone. Every row is a process of its own.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from rich.console import Console
from transformers import EsmConfig, EsmForMaskedLM

import peftide
from peftide.config import EmbedSettings, PredictSettings, TrainSettings
from peftide.inference.embed_file import embed_file
from peftide.inference.predict_file import predict_file
from peftide.models.backbones import backbone_folder
from peftide.models.machine import choose_machine
from peftide.models.tokens import Vocabulary
from peftide.training.resident import give_back, held_bytes, peak_bytes, start_peak
from results import Column, document, print_table, write_json

PAIRS = "predict pairs to TSV"
COMMANDS = {
    "embed to HDF5": "vectors.h5",
    "embed to Parquet": "vectors.parquet",
    "predict to TSV": "scores.tsv",
    PAIRS: "pairs.tsv",
}
MEANING = {
    "embed to HDF5": "peftide embed, a vector per protein, as HDF5",
    "embed to Parquet": "peftide embed, a vector per protein, as Parquet",
    "predict to TSV": "peftide predict, a yes-or-no label per protein, with the head on the same frozen backbone",
    PAIRS: "peftide predict, a score per pair, with the default head on the same frozen backbone",
}
COLUMNS = (
    Column("proteins", "proteins", ",.0f"),
    Column("pairs", "pairs", ",.0f"),
    Column("peak_memory_bytes", "peak, MB", ",.1f", 1e6),
    Column("growth_bytes", "beyond the model, MB", ",.1f", 1e6),
    Column("seconds", "s", ",.1f"),
    Column("proteins_per_second", "proteins/s", ",.0f"),
    Column("pairs_per_second", "pairs/s", ",.0f"),
    Column("output_bytes", "output, MB", ",.1f", 1e6),
)


def main(words: Sequence[str]) -> dict[str, Any]:
    """Make backbone and proteins, measure each command at each size, print and write the results."""
    arguments = parse(words)
    rows = []
    with TemporaryDirectory(prefix="peftide-streaming-") as name:
        folder = Path(name)
        backbone = write_backbone(folder / "backbone", num_layers=arguments.layers, width=arguments.width)
        bundles = {
            is_pair: train_bundle(folder, backbone, is_pair=is_pair, threads=arguments.threads)
            for is_pair in {command == PAIRS for command in arguments.commands}
        }
        for command in arguments.commands:
            is_pair = command == PAIRS
            model = {"bundle": str(bundles[is_pair])} if command.startswith("predict") else {"backbone": str(backbone)}
            for number in arguments.pairs if is_pair else arguments.proteins:
                num_proteins = arguments.proteins_of_pairs if is_pair else number
                fasta = write_proteins(
                    folder / "p.fasta", num_proteins, residues=arguments.residues, seed=arguments.seed
                )
                given = {"data": str(fasta), "out": str(folder / f"{number}-{COMMANDS[command]}"), **model}
                if is_pair:
                    pairs = write_pairs(folder / "pairs.csv", number, num_proteins, seed=arguments.seed)
                    given |= {"data": str(pairs), "sequences": str(fasta)}
                row = {"variant": command, "meaning": MEANING[command], "proteins": num_proteins}
                row |= measured(given, threads=arguments.threads)
                unit = "pairs" if is_pair else "proteins"
                rows.append(row | {unit: number, f"{unit}_per_second": number / row["seconds"]})
    print_table(rows, COLUMNS)
    machine = choose_machine("cpu", "fp32", arguments.threads)
    results = document("streaming", machine, arguments, rows=rows)
    write_json(arguments.json, results)
    return results


def write_backbone(folder: Path, *, num_layers: int, width: int) -> Path:
    """An ESM-2 of random weights, as a folder."""
    torch.manual_seed(0)
    vocabulary = (backbone_folder() / "vocab.txt").read_text("utf-8").split()
    config = EsmConfig(
        vocab_size=len(vocabulary), hidden_size=width, num_hidden_layers=num_layers, num_attention_heads=4,
        intermediate_size=4 * width, pad_token_id=vocabulary.index("<pad>"),
        mask_token_id=Vocabulary.from_tokens(vocabulary).mask_id, position_embedding_type="rotary", token_dropout=True,
        emb_layer_norm_before=False, max_position_embeddings=1026, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    EsmForMaskedLM(config).save_pretrained(folder)
    shutil.copy(backbone_folder() / "vocab.txt", folder / "vocab.txt")
    return folder


def train_bundle(folder: Path, backbone: Path, *, is_pair: bool, threads: int | None) -> Path:
    """A head trained for an epoch on a handful of examples: it predicts nothing, at the speed of one that does."""
    letters = np.random.default_rng(0).choice(list("ACDEFGHIKLMNPQRSTVWY"), (12, 20))
    sequences = ["".join(row) for row in letters]
    members = [f"{sequences[row]},{sequences[row - 1]}" if is_pair else sequences[row] for row in range(12)]
    lines = [f"{members[row]},{row % 2},{('train', 'val', 'test')[row // 4]}\n" for row in range(12)]
    task, header = ("pair", "sequence_a,sequence_b") if is_pair else ("protein", "sequence")
    (folder / f"{task}.csv").write_text(f"{header},label,split\n" + "".join(lines))
    peftide.train(
        TrainSettings(
            data=str(folder / f"{task}.csv"), task=task, out=str(folder / f"{task}-bundle"), backbone=str(backbone),
            method="head", epochs=1, baselines="none", device="cpu", precision="fp32", threads=threads,
            cache_limit_gb=0.0,
        )
    )  # fmt: skip
    return folder / f"{task}-bundle"


def write_proteins(path: Path, number: int, *, residues: int, seed: int) -> Path:
    """Random proteins of half to one and a half times so many residues, as FASTA."""
    generator = np.random.default_rng(seed)
    letters = np.array(list("ACDEFGHIKLMNPQRSTVWY"))
    with path.open("w") as file:
        for row in range(number):
            length = int(generator.integers(residues // 2, residues + residues // 2 + 1))
            file.write(f">P{row:09d}\n{''.join(letters[generator.integers(0, 20, length)])}\n")
    return path


def write_pairs(path: Path, number: int, num_proteins: int, *, seed: int) -> Path:
    """Random pairs of two proteins of those that `write_proteins` writes, as a table."""
    generator = np.random.default_rng(seed)
    with path.open("w") as file:
        file.write("protein_a,protein_b\n")
        for _ in range(number):
            first, step = int(generator.integers(num_proteins)), int(generator.integers(1, num_proteins))
            file.write(f"P{first:09d},P{(first + step) % num_proteins:09d}\n")
    return path


def measured(given: dict[str, str], *, threads: int | None) -> dict[str, Any]:
    """Time, memory and output of one command, measured in a process of its own; the output is removed."""
    settings = {**given, "device": "cpu", "precision": "fp32", "threads": threads, "cache_limit_gb": 0.0}
    done = subprocess.run(
        [sys.executable, __file__, "--measure", json.dumps(settings)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stderr)
    out = Path(given["out"])
    row = json.loads(done.stdout.splitlines()[-1]) | {"output_bytes": out.stat().st_size}
    out.unlink()
    return row


def measure(settings: dict[str, Any]) -> dict[str, Any]:
    """Run one command in this process, first on a single example, so that all libraries are loaded."""
    out, is_pair = Path(settings["out"]), "sequences" in settings
    single = out.with_name("single.csv" if is_pair else "single.fasta")
    single.write_text("sequence_a,sequence_b\nMKVLA,MKV\n" if is_pair else ">a\nMKVLA\n")
    before = {"data": str(single), "out": str(out.with_name(f"single-{out.name}"))}
    run({name: value for name, value in settings.items() if name != "sequences"} | before)
    Path(before["out"]).unlink()
    device = torch.device("cpu")
    give_back(device)
    is_watched, resident, started = start_peak(device), held_bytes(device), time.perf_counter()
    run(settings)
    seconds = time.perf_counter() - started
    peak = peak_bytes(device) if is_watched else None
    return {
        "seconds": seconds,
        "peak_memory_bytes": peak,
        "growth_bytes": None if peak is None else peak - resident,
    }


def run(settings: dict[str, Any]) -> None:
    """embed or predict, as the commands do."""
    if "bundle" in settings:
        predict_file(PredictSettings(**settings), Console(quiet=True))
    else:
        embed_file(EmbedSettings(**settings), Console(quiet=True))


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--proteins", type=int, nargs="+", default=[10_000, 100_000], help="how many (%(default)s)")
    parser.add_argument("--pairs", type=int, nargs="+", default=[200_000, 2_000_000], help="how many (%(default)s)")
    parser.add_argument("--proteins-of-pairs", type=int, default=300, help="that the pairs are of (%(default)s)")
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS), help="(all)")
    parser.add_argument("--residues", type=int, default=30, help="of a protein, on average (%(default)s)")
    parser.add_argument("--layers", type=int, default=2, help="of the backbone (%(default)s)")
    parser.add_argument("--width", type=int, default=64, help="of the backbone (%(default)s)")
    parser.add_argument("--threads", type=int, help="CPU threads; all cores when absent")
    parser.add_argument("--seed", type=int, default=0, help="of the proteins (%(default)s)")
    parser.add_argument("--json", metavar="OUT", help="file for the results")
    return parser.parse_args(list(words))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(json.loads(sys.argv[2]))))
    else:
        main(sys.argv[1:])
