"""What `peftide plan` predicts against what `peftide train` then takes: memory, time of an epoch and to the end.

Plan and run each have a process of their own, so that neither sees the other's memory, and caches of their own, empty
at the start. `--clock cpu` measures the processor's time in both instead of the wall's, for machines that others use
too (with `--threads 1`; meaningless on a GPU).

    python benchmarks/plan_accuracy.py --backbones swissprot-10m random:35m --methods lora full --json OUT
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from rich.console import Console

from pairs import PairSet, add_data_options, neighbourhood, read_pairs
from peftide.config import PlanSettings, TrainSettings
from peftide.models.bundle import read_run, save_backbone
from peftide.models.machine import choose_machine
from results import Column, Row, document, print_table, write_json
from subjects import load_subject

PAIRS_PER_PROTEIN = 2.5
PARTS = {"train": 0.8, "val": 0.1, "test": 0.1}
COLUMNS = (
    Column("predicted_peak_bytes", "peak, GiB", ".2f", 2**30),
    Column("measured_peak_bytes", "measured", ".2f", 2**30),
    Column("ratio_peak", "ratio", ".2f"),
    Column("predicted_epoch_seconds", "epoch, s", ".2f"),
    Column("measured_epoch_seconds", "measured", ".2f"),
    Column("ratio_epoch", "ratio", ".2f"),
    Column("predicted_total_seconds", "total, s", ".1f"),
    Column("measured_total_seconds", "measured", ".1f"),
    Column("ratio_total", "ratio", ".2f"),
    Column("plan_seconds", "planning, s", ".0f"),
)


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data_options(parser)
    parser.add_argument("--backbones", nargs="+", default=["swissprot-10m"], help="as in train, or random:35m, ...")
    parser.add_argument("--methods", nargs="+", default=["head", "lora", "full"])
    parser.add_argument("--layers", default="last-quarter", help="--lora-layers of train (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=375, help="labelled pairs, four fifths to train on (%(default)s)")
    parser.add_argument("--batch-examples", type=int, default=64)
    parser.add_argument("--max-residues", type=int, default=1022)
    parser.add_argument(
        "--epochs", type=int, default=2, help="the last one has the cache filled (default: %(default)s)"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--memory", help="--memory of plan and train")
    parser.add_argument("--checkpoint-layers", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of pairs (default: %(default)s)")
    parser.add_argument("--json", metavar="OUT", help="file for the results")
    return parser.parse_args(words)


def main(words: Sequence[str]) -> dict[str, Any]:
    """Plan and run every backbone and method; print and write predicted over measured."""
    arguments = parse(words)
    pairs = read_pairs(arguments)
    generator = np.random.default_rng(arguments.seed)
    num_proteins = round(arguments.pairs / PAIRS_PER_PROTEIN)
    pairs = neighbourhood(pairs, num_pairs=arguments.pairs, num_proteins=num_proteins, generator=generator)
    rows: list[Row] = []
    with TemporaryDirectory(prefix="peftide-accuracy-") as name:
        folder = Path(name)
        shared = write_data(pairs, folder) | shared_settings(arguments)
        for backbone in arguments.backbones:
            source = backbone_source(backbone, folder)
            for method in arguments.methods:
                print(f"{method} on {backbone}", file=sys.stderr, flush=True)
                rows.append(
                    compare(f"{method}, {backbone}", shared | {"backbone": source, "method": method}, arguments)
                )
    print_table(rows, COLUMNS)
    machine = choose_machine(arguments.device, arguments.precision, arguments.threads)
    results = document("plan_accuracy", machine, arguments, data=pairs.facts(max_residues=arguments.max_residues))
    results |= {"rows": rows}
    write_json(arguments.json, results)
    return results


def shared_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings that plan and train have in common."""
    names = ("batch_examples", "max_residues", "epochs", "device", "precision", "threads", "memory", "compile")
    given = {name: getattr(arguments, name) for name in names}
    layers = {"lora_layers": arguments.layers, "checkpoint_layers": arguments.checkpoint_layers}
    return given | layers | {"allow_self_pairs": True}


def write_data(pairs: PairSet, folder: Path) -> dict[str, Any]:
    """Write the pairs, each label once, as a table and a FASTA; the settings that read them."""
    fasta, table = folder / "proteins.fasta", folder / "pairs.tsv"
    fasta.write_text("".join(f">P{row}\n{sequence}\n" for row, sequence in enumerate(pairs.sequences)), "ascii")
    labelled = zip(pairs.members_N2.tolist(), pairs.targets_N.tolist(), strict=True)
    labels = {tuple(sorted(pair)): int(label) for pair, label in labelled}
    splits = np.repeat(list(PARTS), np.diff(np.round(np.cumsum([0, *PARTS.values()]) * len(labels)).astype(int)))
    lines = [f"P{a}\tP{b}\t{y}\t{split}" for ((a, b), y), split in zip(labels.items(), splits, strict=True)]
    table.write_text("\n".join(["protein_a\tprotein_b\tlabel\tsplit", *lines]) + "\n", "ascii")
    return {"data": str(table), "sequences": str(fasta)}


def backbone_source(name: str, folder: Path) -> str:
    """What to give as `--backbone`: random weights are written to a folder first."""
    if not name.startswith("random:"):
        return name
    target = folder / name.replace(":", "-")
    target.mkdir()
    backbone = load_subject(name, torch.device("cpu"))
    save_backbone(backbone, backbone.model, target)
    return str(target)


def compare(name: str, settings: dict[str, Any], arguments: argparse.Namespace) -> Row:
    """Plan, then run, and set the one over the other."""
    plan = in_own_process("plan", settings, arguments.clock)
    row: Row = {"variant": name, "plan_seconds": plan["seconds"], **plan["row"]}
    if plan["row"]["fits"] is not True:
        print(f"{name}: {plan['row']['reason']}", file=sys.stderr, flush=True)
        return row
    run = in_own_process("train", settings, arguments.clock)
    found = plan["row"]["forecast"]
    row |= {
        "predicted_peak_bytes": found["peak_memory_bytes"],
        "measured_peak_bytes": run["peak_memory_bytes"],
        "predicted_epoch_seconds": found["epoch_seconds"],
        "measured_epoch_seconds": run["epoch_seconds"][-1],
        "predicted_total_seconds": found["total_seconds"],
        "measured_total_seconds": run["seconds"],
        "epochs_seconds": run["epoch_seconds"],
    }
    for what in ("peak_bytes", "epoch_seconds", "total_seconds"):
        row[f"ratio_{what.split('_')[0]}"] = row[f"predicted_{what}"] / row[f"measured_{what}"]
    return row


def in_own_process(what: str, settings: dict[str, Any], clock: str) -> dict[str, Any]:
    """Run this script as a child that plans or trains, and return what it found."""
    with TemporaryDirectory(prefix="peftide-child-") as folder:
        spec = {"what": what, "clock": clock, "folder": folder, "settings": settings | {"cache_dir": f"{folder}/cache"}}
        Path(folder, "spec.json").write_text(json.dumps(spec), "utf-8")
        subprocess.run([sys.executable, __file__, "--child", folder], check=True, stdout=sys.stderr)
        return json.loads(Path(folder, "found.json").read_text("utf-8").replace(folder, "a temporary folder"))


def child(folder: str) -> None:
    """Plan or train as the specification in the folder says, and leave what was found there."""
    spec = json.loads(Path(folder, "spec.json").read_text("utf-8"))
    settings = spec["settings"]
    if spec["clock"] == "cpu":
        time.perf_counter = time.process_time
    found = plan_once(settings) if spec["what"] == "plan" else train_once(settings, folder)
    Path(folder, "found.json").write_text(json.dumps(found), "utf-8")


def plan_once(settings: dict[str, Any]) -> dict[str, Any]:
    """The only row of a plan, and how long planning took."""
    from peftide.training.plan import run_plan

    named = {"backbones": (settings.pop("backbone"),), "methods": (settings.pop("method"),)}
    started = time.perf_counter()
    plan = run_plan(PlanSettings(**settings, **named), Console(soft_wrap=True))
    return {"row": asdict(plan.rows[0]), "seconds": time.perf_counter() - started}


def train_once(settings: dict[str, Any], folder: str) -> dict[str, Any]:
    """Peak memory and seconds of a run that no early stop ends."""
    from peftide.training.run import run_training

    run = run_training(
        TrainSettings(**settings, patience=settings["epochs"], audit="none", baselines="none", out=f"{folder}/bundle"),
        Console(soft_wrap=True),
    )
    history = read_run(run.folder)["training"]["history"]
    seconds = [epoch["seconds"] for epoch in history]
    return {"seconds": run.seconds, "peak_memory_bytes": run.peak_memory_bytes, "epoch_seconds": seconds}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2])
    else:
        main(sys.argv[1:])
