"""Training on pairs: the paper's recipe, a careful use of the stock tools, and peftide's techniques one by one.

All variants train the same adapters and head on the same pairs in one process, in turn; README.md says what each is.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from contest import Contest, check_agreement, open_contest, stock_variants
from pairs import add_data_options, choose_pairs, read_pairs
from peftide.config import TrainSettings
from peftide.errors import UserError
from peftide.models.machine import choose_machine
from results import Column, Row, document, print_table, write_json
from rounds import Timing, Variant, time_in_turn
from subjects import add_common_options
from techniques import Technique, product_variant, technique_table

DEFAULT_STEP = TrainSettings(data="", out="").batch_examples
CPU_PAIRS_ALONE = 8  # of a step where no protein is shared: enough for a CPU, and seconds instead of minutes
EPOCHS_TO_SPREAD = 10  # over which the filling of the cache is spread
COLUMNS = (
    Column("pairs_per_second", "pairs/s", ",.2f"),
    Column("ratio_to_paper", "x paper"),
    Column("residues_per_second", "residues/s", ",.0f"),
    Column("tokens_encoded_per_second", "tokens/s", ",.0f"),
    Column("peak_memory_bytes", "peak GiB", ".2f", 2**30),
    Column("loss", "loss", ".5f"),
)


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_common_options(parser, seconds_per_variant=12)
    add_data_options(parser)
    parser.add_argument("--layers", default="last-quarter", help="adapted layers, as in `peftide train` (%(default)s)")
    parser.add_argument("--pairs", type=int, default=2000, help="pairs of an epoch (%(default)s)")
    parser.add_argument("--proteins", type=int, help="proteins they are among; 0.3 a pair when absent")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--no-shared-proteins", action="store_true", help="no two pairs share a protein")
    choice.add_argument(
        "--bernett-slices", action="store_true",
        help="all pairs of --bernett; without it, random pairs over the proteins at hand, 76 a protein",
    )  # fmt: skip
    parser.add_argument(
        "--batch-examples", default=f"{DEFAULT_STEP},256,1024", help="pairs in peftide's steps (%(default)s)"
    )
    parser.add_argument("--token-budget", type=int, help="tokens peftide encodes at once; its own choice when absent")
    parser.add_argument("--variants", help="only these rows beside the paper's, such as blocks-64,blocks-256")
    parser.add_argument("--no-compile", action="store_true", help="leave out the compiled rows (CUDA)")
    parser.add_argument("--cache-limit-gb", type=float, default=40.0, help="largest cache, in a temporary folder")
    return parser.parse_args(words)


def main(words: Sequence[str]) -> dict[str, Any]:
    """Run the benchmark; returns what it writes."""
    arguments = parse(words)
    machine = choose_machine(arguments.device, "auto", arguments.threads)
    pairs = choose_pairs(read_pairs(arguments), arguments, np.random.default_rng(arguments.seed))
    print(", ".join(f"{name} {value}" for name, value in pairs.facts(max_residues=arguments.max_residues).items()))
    settings = TrainSettings(
        data="", out="", head="paper", backbone=arguments.backbone, lora_layers=arguments.layers, seed=arguments.seed,
        max_residues=arguments.max_residues, token_budget=arguments.token_budget,
        cache_limit_gb=arguments.cache_limit_gb,
    )  # fmt: skip
    with open_contest(settings, machine, pairs) as contest:
        print(contest.cache_note)
        results = _measure(contest, arguments)
    print_table(results["rows"], COLUMNS)
    for name, value in results.items():
        if name.startswith("ratio"):
            print(name, value)
    write_json(arguments.json, results)
    return results


def _measure(contest: Contest, arguments: argparse.Namespace) -> dict[str, Any]:
    is_gpu = contest.machine.device.type == "cuda"
    sizes = [int(size) for size in arguments.batch_examples.split(",")]
    table = technique_table(
        sizes,
        pairs_alone=sizes[0] if is_gpu else min(sizes[0], CPU_PAIRS_ALONE),
        has_bf16=contest.has_bf16,
        has_cache=contest.cache is not None,
        compiles=is_gpu and not arguments.no_compile,
    )
    stock = stock_variants(contest)
    table, stock = _chosen(table, stock, arguments.variants)
    variants = stock + [_product_variant(technique, contest) for technique in table]
    checks = check_agreement(contest, variants)
    filling_seconds = None
    if contest.cache is not None:
        filling_seconds = contest.cache.seconds_to_fill(
            contest.fast.encoder(), contest.fast.pieces, seconds=arguments.seconds_per_variant
        )
    timings = time_in_turn(
        variants,
        seconds_per_variant=arguments.seconds_per_variant,
        num_rounds=arguments.rounds,
        device=contest.machine.device,
    )
    rows = _rows(contest, variants, timings, checks)
    return document(
        "training_speed", contest.machine, arguments,
        data=contest.pairs.facts(max_residues=arguments.max_residues),
        **_ratios(table, timings, filling_seconds),
        cache_filling_seconds=filling_seconds,
        cache=contest.cache_note,
        checks=checks,
        rows=rows,
    )  # fmt: skip


def _chosen(table: list[Technique], stock: list[Variant], names: str | None) -> tuple[list[Technique], list[Variant]]:
    """The rows asked for; the paper's in any case."""
    if names is None:
        return table, stock
    wanted = {"paper", *names.split(",")}
    known = {item.name for item in [*table, *stock]}
    if not wanted <= known:
        raise UserError(f"--variants: no row {', '.join(sorted(wanted - known))}; there are {', '.join(sorted(known))}")
    return [row for row in table if row.name in wanted], [row for row in stock if row.name in wanted]


def _product_variant(technique: Technique, contest: Contest) -> Variant:
    product = contest.exact if technique.is_exact else contest.fast
    return product_variant(technique, product, contest.cache, contest.check_rows)


def _rows(
    contest: Contest,
    variants: Sequence[Variant],
    timings: Mapping[str, Timing],
    checks: Mapping[str, Mapping[str, float]],
) -> list[Row]:
    members_N2 = contest.pairs.members_N2
    num_residues = int(np.array([protein.num_residues for protein in contest.exact.pieces])[members_N2].sum())
    rows = []
    for variant in variants:
        timing = timings[variant.name]
        growth = timing.peak_growth_bytes
        row = {
            "variant": variant.name,
            "meaning": variant.meaning,
            "pairs_per_second": len(members_N2) / timing.epoch_seconds,
            "ratio_to_paper": timings["paper"].epoch_seconds / timing.epoch_seconds,
            "residues_per_second": num_residues / timing.epoch_seconds,
            "tokens_encoded_per_second": sum(unit.num_tokens for unit in variant.units) / timing.epoch_seconds,
            "peak_memory_bytes": None if growth is None else growth + variant.resident_bytes,
            "resident_bytes": variant.resident_bytes,
            "epoch_seconds": timing.epoch_seconds,
            "epoch_seconds_by_round": list(timing.rounds_seconds),
            "units_timed": timing.num_units,
            "units_of_epoch": len(variant.units),
        }
        rows.append({**row, **checks[variant.name]})
    return rows


def _ratios(
    table: Sequence[Technique], timings: Mapping[str, Timing], filling_seconds: float | None
) -> dict[str, float | str | None]:
    """peftide over the paper's recipe, in pairs a second.

    The first two are of the fastest row at the product's default number of pairs a step, cache warm where there is
    one; `ratio_without_cache` likewise without; `ratio_fastest` of the fastest row of any step.
    """
    paper_seconds = timings["paper"].epoch_seconds
    sizes = {technique.batch_examples for technique in table}
    default = [t for t in table if t.batch_examples == DEFAULT_STEP] if DEFAULT_STEP in sizes else list(table)
    best = _fastest([t for t in default if t.is_cached] or default, timings)
    cold = _fastest([t for t in default if not t.is_cached], timings)
    fastest = _fastest(table, timings)
    if best is None or fastest is None:
        return {"ratio_pairs_per_second": None}
    seconds = timings[best].epoch_seconds
    spread = None
    if filling_seconds is not None:
        spread = paper_seconds / (seconds + filling_seconds / EPOCHS_TO_SPREAD)
    return {
        "ratio_pairs_per_second": paper_seconds / seconds,
        "ratio_variant": best,
        f"ratio_with_cache_filling_over_{EPOCHS_TO_SPREAD}_epochs": spread,
        "ratio_without_cache": None if cold is None else paper_seconds / timings[cold].epoch_seconds,
        "ratio_fastest": paper_seconds / timings[fastest].epoch_seconds,
        "ratio_fastest_variant": fastest,
    }


def _fastest(table: Sequence[Technique], timings: Mapping[str, Timing]) -> str | None:
    return min((t.name for t in table), key=lambda name: timings[name].epoch_seconds, default=None)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"error: {error}")
