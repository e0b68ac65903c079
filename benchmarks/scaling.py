"""How time and memory of training grow with residues, with pairs per protein, and with the layers adapted.

Random sequences of one length each, so that only the quantity of the sweep changes and nothing is lost in padding.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from contest import open_contest, stock_variants
from pairs import PairSet, random_graph, without_shared_proteins
from peftide.config import TrainSettings
from peftide.errors import UserError
from peftide.models.machine import Machine, choose_machine
from results import Column, Row, document, print_table, write_json
from rounds import time_in_turn
from subjects import add_common_options, load_subject
from techniques import Technique, product_variant

USUAL_RESIDUES = 256  # where residues are not what is swept
RESIDUES = (64, 128, 256, 512, 1022)
PAIRS_PER_PROTEIN = (1, 4, 16, 64)
NUM_PROTEINS = 128
STEP_PAIRS = {"cpu": 4, "cuda": 64, "mps": 16}  # of a step where no protein is shared, enough to fill the device
SHARING_STEP_PAIRS = 64
SERIES = {"paper": "the paper's recipe", "peftide": "peftide, no cache", "peftide-cached": "peftide, cache warm"}
COLUMNS = (
    Column("value", "value", ",.0f"),
    Column("seconds_per_1000_pairs", "s/1,000 pairs", ",.1f"),
    Column("peak_memory_bytes", "peak MiB", ",.0f", 2**20),
)


@dataclass(frozen=True)
class Point:
    """One value of a sweep: the quantity, its value, and what is trained there."""

    quantity: str
    value: int
    pairs: PairSet
    layers: str
    step_pairs: int


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_common_options(parser, seconds_per_variant=3)
    parser.add_argument("--layers", default="last-quarter", help="adapted layers, where they are not swept")
    parser.add_argument("--figure", metavar="OUT", help="picture of the curves (.png, .svg or .pdf)")
    return parser.parse_args(words)


def main(words: Sequence[str]) -> dict[str, Any]:
    """Run the benchmark; returns what it writes."""
    arguments = parse(words)
    machine = choose_machine(arguments.device, "auto", arguments.threads)
    num_layers = load_subject(arguments.backbone, machine.device).num_layers
    rows = []
    for point in points(arguments, num_layers, STEP_PAIRS[machine.device.type]):
        print(f"{point.quantity}: {point.value}", file=sys.stderr, flush=True)
        rows += measure(point, machine, arguments)
    for quantity in dict.fromkeys(row["quantity"] for row in rows):
        print(f"\n{quantity}")
        print_table([row for row in rows if row["quantity"] == quantity], COLUMNS)
    results = document("scaling", machine, arguments, rows=rows)
    write_json(arguments.json, results)
    if arguments.figure:
        draw(rows, f"{arguments.backbone}, {results['machine']['device_name']}", Path(arguments.figure))
    return results


def points(arguments: argparse.Namespace, num_layers: int, step_pairs: int) -> list[Point]:
    """The three sweeps."""
    generator = np.random.default_rng(arguments.seed)

    def apart(num_residues: int) -> PairSet:
        pairs = random_graph(random_proteins(num_residues, generator), pairs_per_protein=64, generator=generator)
        return without_shared_proteins(pairs, num_pairs=len(pairs), generator=generator)

    lengths = [length for length in RESIDUES if length <= arguments.max_residues]
    depths = sorted({1, *(max(1, num_layers * share // 4) for share in (1, 2, 3, 4))})
    usual = random_proteins(min(USUAL_RESIDUES, arguments.max_residues), generator)
    return [
        *(Point("residues", n, apart(n), arguments.layers, step_pairs) for n in lengths),
        *(
            Point(
                "pairs per protein", n, random_graph(usual, pairs_per_protein=n, generator=generator),
                arguments.layers, SHARING_STEP_PAIRS,
            )
            for n in PAIRS_PER_PROTEIN
        ),
        *(Point("layers adapted", n, apart(len(usual[0])), f"last:{n}", step_pairs) for n in depths),
    ]  # fmt: skip


def random_proteins(num_residues: int, generator: np.random.Generator) -> tuple[str, ...]:
    """Proteins of one length."""
    letters = generator.choice(list("ACDEFGHIKLMNPQRSTVWY"), (NUM_PROTEINS, num_residues))
    return tuple("".join(row) for row in letters)


def measure(point: Point, machine: Machine, arguments: argparse.Namespace) -> list[Row]:
    """The paper's recipe, and peftide without and with the cache."""
    settings = TrainSettings(
        data="", out="", head="paper", backbone=arguments.backbone, lora_layers=point.layers, seed=arguments.seed,
        max_residues=arguments.max_residues,
    )  # fmt: skip
    with open_contest(settings, machine, point.pairs) as contest:
        on = {"batch_examples": point.step_pairs, "is_exact": not contest.has_bf16, "is_once": True, "is_around": True}
        table = [Technique("peftide", SERIES["peftide"], **on)]
        if contest.cache is not None:
            table.append(Technique("peftide-cached", SERIES["peftide-cached"], is_cached=True, **on))
        variants = [variant for variant in stock_variants(contest) if variant.name == "paper"] + [
            product_variant(technique, contest.fast, contest.cache, contest.check_rows) for technique in table
        ]
        timings = time_in_turn(
            variants,
            seconds_per_variant=arguments.seconds_per_variant,
            num_rounds=arguments.rounds,
            device=machine.device,
        )
    rows = []
    for variant in variants:
        timing = timings[variant.name]
        growth = timing.peak_growth_bytes
        row = {
            "quantity": point.quantity,
            "value": point.value,
            "variant": variant.name,
            "seconds_per_1000_pairs": 1000 * timing.epoch_seconds / len(point.pairs),
            "peak_memory_bytes": None if growth is None else growth + variant.resident_bytes,
        }
        rows.append(row)
    return rows


def draw(rows: Sequence[Row], title: str, path: Path) -> None:
    """Time above memory, a column for each sweep."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter

    quantities = list(dict.fromkeys(row["quantity"] for row in rows))
    measures = (("seconds_per_1000_pairs", "seconds per 1,000 pairs", 1), ("peak_memory_bytes", "peak GiB", 2**30))
    figure, axes = plt.subplots(len(measures), len(quantities), figsize=(11, 6), sharex="col", layout="constrained")
    for column, quantity in enumerate(quantities):
        for line, (key, heading, divisor) in enumerate(measures):
            axis = axes[line, column]
            for variant, label in SERIES.items():
                own = [row for row in rows if (row["quantity"], row["variant"]) == (quantity, variant)]
                known = [row for row in own if row[key] is not None]
                axis.plot([r["value"] for r in known], [r[key] / divisor for r in known], marker="o", label=label)
            axis.set_xscale("log", base=2)
            axis.xaxis.set_major_formatter("{x:g}")
            axis.set_yscale("log")
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter(NullFormatter())
            axis.tick_params(axis="y", labelsize="small")
            axis.grid(visible=True, which="major", alpha=0.3)
            if column == 0:
                axis.set_ylabel(heading)
        axes[-1, column].set_xlabel(quantity)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(SERIES), frameon=False)
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{os.getpid()}.{path.name}")
    figure.savefig(fresh, dpi=150)
    plt.close(figure)
    os.replace(fresh, path)
    print(f"figure written to {path}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"error: {error}")
