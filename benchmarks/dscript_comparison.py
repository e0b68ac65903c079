"""All pairs of a proteome with peftide's default head and with D-SCRIPT's interaction model, on one CPU in turn.

A sample of each is timed and all pairs are extrapolated from it. Weights are random on both sides: the speed does not
depend on their values. Embedding is in neither; what it adds for peftide is measured apart.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import screening
from peftide.data.proteins import read_proteins
from peftide.errors import UserError
from peftide.inference.embed import embed_proteins
from peftide.inference.encoder import Encoder
from peftide.inference.score import TOKENS_AT_ONCE
from peftide.models.backbones import load_backbone
from peftide.models.machine import choose_machine
from results import Column, document, print_table, write_json
from subjects import cut_all

MAX_RESIDUES = 1022  # longer proteins are cropped, on both sides
MANY_PAIRS = 10_000  # drawn for D-SCRIPT; time ends before they do
EMBEDDED_PROTEINS = 60
COLUMNS = (
    Column("threads", "threads", ".0f"),
    Column("pairs_per_second", "pairs/s", ",.4g"),
    Column("all_pairs_days", "all pairs, days", ",.4g"),
    Column("processor_days", "days of processor time", ",.4g"),
)


def main(words: Sequence[str]) -> dict[str, Any]:
    """Time both with each number of threads, print a table, and return (and write) the results."""
    arguments = parse(words)
    proteins, _ = read_proteins(arguments.data)
    sequences = [sequence[:MAX_RESIDUES] for sequence in proteins.sequences]
    lengths_P = np.array([len(sequence) for sequence in sequences])
    num_pairs = arguments.proteins * (arguments.proteins - 1) // 2
    load_before = os.getloadavg()
    rows = []
    for threads in arguments.threads:
        rows.append(peftide_row(arguments, threads, num_pairs))
        rows += dscript_rows(arguments, lengths_P, threads, num_pairs)
    machine = choose_machine("cpu", "fp32", max(arguments.threads))
    results = document(
        "dscript_comparison", machine, arguments, load_average={"before": load_before, "after": os.getloadavg()},
        pairs=num_pairs, mean_residues=float(lengths_P.mean()), rows=rows,
        embedding=embedding(sequences, arguments, max(arguments.threads)),
    )  # fmt: skip
    write_json(arguments.json, results)
    print_table(rows, COLUMNS)
    return results


def peftide_row(arguments: argparse.Namespace, threads: int, num_pairs: int) -> dict[str, Any]:
    """The default head as `peftide screen` runs it, selection and ranking included (see screening.py)."""
    words = ["--proteins", arguments.proteins, "--threads", threads, "--seconds-per-variant", arguments.seconds]
    timed = screening.main([*map(str, words), "--heads", "mlp", "--device", "cpu"])["rows"][0]
    later = timed["seconds_in_all"] - timed["scoring_seconds"]
    processor_seconds = num_pairs / timed["pairs_per_processor_second"] + later * threads
    told = row(f"peftide screen, {timed['variant']}", threads, num_pairs, timed["seconds_in_all"], processor_seconds)
    return told | {"sample": timed}


def dscript_rows(
    arguments: argparse.Namespace, lengths_P: np.ndarray, threads: int, num_pairs: int
) -> list[dict[str, Any]]:
    """D-SCRIPT pair by pair: as its commands do it, and as if each protein had been projected once beforehand.

    The time of a pair goes with the product of the two lengths, so the seconds for a product of one, over the sample,
    are applied to the mean product of all pairs.
    """
    generator = np.random.default_rng(0)
    drawn = lengths_P[generator.integers(0, len(lengths_P), (MANY_PAIRS, 2))].tolist()
    asked = json.dumps({"lengths": drawn, "seconds": arguments.seconds, "threads": threads})
    peer = Path(__file__).with_name("dscript_peer.py")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["OMP_NUM_THREADS"] = str(threads)
    done = subprocess.run(
        [arguments.dscript_python, str(peer)], input=asked + "\n", capture_output=True, text=True, env=environment
    )
    if done.returncode:
        raise UserError(f"--dscript-python {arguments.dscript_python}: {done.stderr.strip().splitlines()[-1]}")
    sample = json.loads(done.stdout)
    product = np.prod(sample["lengths"], axis=1).sum() / len(sample["lengths"])
    scale = lengths_P.mean() ** 2 / product * num_pairs
    rows = []
    for what, key in (("as its commands", "whole"), ("proteins projected before", "projected")):
        seconds, processor_seconds = (float(total) for total in np.mean(sample[key], axis=0) * scale)
        told = {"pairs_timed": len(sample[key]), "mean_product_of_lengths": float(product), "torch": sample["torch"]}
        told |= {"seconds_timed": float(np.sum(sample[key], axis=0)[0])}
        rows.append(row(f"D-SCRIPT, {what}", threads, num_pairs, seconds, processor_seconds) | {"sample": told})
    return rows


def row(variant: str, threads: int, num_pairs: int, seconds: float, processor_seconds: float) -> dict[str, Any]:
    """A row from the seconds that all pairs take, on the wall and of all processors together."""
    return {
        "variant": variant,
        "threads": threads,
        "pairs_per_second": num_pairs / seconds,
        "all_pairs_days": seconds / 86_400,
        "processor_days": processor_seconds / 86_400,
    }


def embedding(sequences: list[str], arguments: argparse.Namespace, threads: int) -> dict[str, Any]:
    """What encoding all proteins takes with the shipped backbone, from a sample of them."""
    machine = choose_machine("cpu", "auto", threads)
    backbone = load_backbone(arguments.backbone, dtype=machine.dtype)
    encoder = Encoder(backbone, backbone.model, machine)
    chosen = np.random.default_rng(1).choice(len(sequences), min(EMBEDDED_PROTEINS, len(sequences)), replace=False)
    pieces = cut_all([sequences[number] for number in chosen], backbone, max_residues=MAX_RESIDUES)
    embed_proteins(encoder, pieces[:4], token_budget=TOKENS_AT_ONCE["cpu"])
    started = time.perf_counter()
    embed_proteins(encoder, pieces, token_budget=TOKENS_AT_ONCE["cpu"])
    seconds = time.perf_counter() - started
    return {
        "backbone": backbone.name,
        "threads": torch.get_num_threads(),
        "proteins_timed": len(pieces),
        "seconds_timed": seconds,
        "all_proteins_seconds": seconds / len(pieces) * arguments.proteins,
    }


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="FASTA or table of proteins whose lengths are taken")
    parser.add_argument("--dscript-python", required=True, help="interpreter of an environment with dscript")
    parser.add_argument("--proteins", type=int, default=20_000, help="of the proteome (%(default)s)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="CPU threads (%(default)s)")
    parser.add_argument("--seconds", type=float, default=30, help="of each timing (%(default)s)")
    parser.add_argument("--backbone", default="swissprot-10m", help="whose encoding is timed (%(default)s)")
    parser.add_argument("--json", metavar="OUT", help="file for the results")
    return parser.parse_args(list(words))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"error: {error}")
