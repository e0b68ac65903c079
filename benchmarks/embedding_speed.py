"""Embedding proteins: peftide beside stock transformers, padded, sorted and one at a time; outputs compared.

On CUDA the bfloat16 matrix-product rate is measured in the same run, and each row says what fraction of it it reaches.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch

from pairs import add_data_options, read_pairs
from peers import mean_vectors
from peftide.errors import UserError
from peftide.inference.embed import embed_proteins, length_batches
from peftide.inference.encoder import Encoder, place
from peftide.inference.score import TOKENS_AT_ONCE
from peftide.models.backbones import Backbone
from peftide.models.machine import Machine, choose_machine
from peftide.models.tokens import Pieces
from results import Column, document, print_table, write_json
from rounds import Timing, Unit, Variant, synchronize, time_in_turn
from subjects import add_common_options, cut_all, encoding_cost, load_subject, weight_bytes

NUM_CHECKED = 6  # proteins whose vectors every variant must get right
LEAST_COSINE = 0.999
MATRIX_SIZE = 8192
COLUMNS = (
    Column("residues_per_second", "residues/s", ",.0f"),
    Column("ratio_to_stock", "x stock", ",.2f"),
    Column("operations_per_second", "TFLOP/s", ",.3f", 1e12),
    Column("fraction_of_matrix_product", "of matmul", ".3f"),
    Column("peak_memory_bytes", "peak GiB", ".2f", 2**30),
    Column("least_cosine", "cosine", ".6f"),
)


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_common_options(parser, seconds_per_variant=9)
    add_data_options(parser)
    parser.add_argument("--proteins", type=int, default=2000, help="proteins to embed, at most (%(default)s)")
    parser.add_argument("--token-budget", type=int, help="tokens peftide encodes at once; its own choice when absent")
    parser.add_argument("--no-compile", action="store_true", help="leave out the compiled row (CUDA)")
    return parser.parse_args(words)


@dataclass(frozen=True)
class Task:
    """Proteins to embed; exact, fast: the backbone in float32 and in the machine's best arithmetic (or the same)."""

    machine: Machine
    exact: Backbone
    fast: Backbone
    proteins: list[Pieces]
    lengths_P: np.ndarray

    @property
    def checked(self) -> np.ndarray:
        """Rows of a few proteins from the shortest to rather long ones."""
        by_length = np.argsort(self.lengths_P, kind="stable")
        return by_length[np.linspace(0, 0.8 * (len(by_length) - 1), NUM_CHECKED).astype(int)]


def main(words: Sequence[str]) -> dict[str, Any]:
    """Run the benchmark; returns what it writes."""
    arguments = parse(words)
    machine = choose_machine(arguments.device, "auto", arguments.threads)
    task = make_task(arguments, machine)
    variants = [*stock_variants(task), *product_variants(task, arguments)]
    cosines = least_cosines(variants)
    matrix_product = matrix_product_rate(machine.device) if machine.device.type == "cuda" else None
    timings = time_in_turn(
        variants,
        seconds_per_variant=arguments.seconds_per_variant,
        num_rounds=arguments.rounds,
        device=machine.device,
    )
    operations = task.exact.num_layers * encoding_cost(task.exact, task.lengths_P)
    num_residues = [protein.num_residues for protein in task.proteins]
    rows = []
    for variant in variants:
        timing = timings[variant.name]
        rate = operations / timing.epoch_seconds
        growth = timing.peak_growth_bytes
        row = {
            "variant": variant.name,
            "meaning": variant.meaning,
            "residues_per_second": sum(num_residues) / timing.epoch_seconds,
            "ratio_to_stock": timings["stock"].epoch_seconds / timing.epoch_seconds,
            "operations_per_second": rate,
            "fraction_of_matrix_product": None if matrix_product is None else rate / matrix_product,
            "peak_memory_bytes": None if growth is None else growth + variant.resident_bytes,
            "least_cosine": cosines[variant.name],
            "seconds": timing.epoch_seconds,
            "seconds_by_round": list(timing.rounds_seconds),
            "units_timed": timing.num_units,
        }
        rows.append(row)
    data = {"proteins": len(num_residues), "mean_residues": float(np.mean(num_residues))}
    results = document(
        "embedding_speed", machine, arguments, data=data, **ratios(timings),
        matrix_product_operations_per_second=matrix_product, rows=rows,
    )  # fmt: skip
    print_table(rows, COLUMNS)
    write_json(arguments.json, results)
    return results


def make_task(arguments: argparse.Namespace, machine: Machine) -> Task:
    """The proteins of the source that the options name, at most as many as they say, and the backbones."""
    sequences = read_pairs(arguments).sequences
    chosen = np.random.default_rng(arguments.seed).permutation(len(sequences))[: arguments.proteins]
    exact = fast = load_subject(arguments.backbone, machine.device)
    if machine.dtype != torch.float32:
        fast = load_subject(arguments.backbone, machine.device)
        place(fast.model, machine)
    proteins = cut_all([sequences[row] for row in chosen], exact, max_residues=arguments.max_residues)
    return Task(machine, exact, fast, proteins, np.array([protein.num_tokens for protein in proteins]))


def stock_variants(task: Task) -> list[Variant]:
    """Stock transformers: padded as the proteins come, one at a time, and with care."""
    size = 32 if task.machine.device.type == "cuda" else 8
    arithmetic = "bf16" if task.fast is not task.exact else "fp32"
    in_order, by_length = np.arange(len(task.proteins)), np.argsort(task.lengths_P, kind="stable")
    return [
        _stock_variant(task, "stock", f"EsmModel, float32, padded batches of {size}", batches_of(in_order, size)),
        _stock_variant(task, "stock-one-at-a-time", "EsmModel, float32", batches_of(in_order, 1)),
        _stock_variant(
            task,
            f"stock-{arithmetic}-sorted",
            f"EsmModel, {arithmetic}, padded batches of {size} of similar length",
            batches_of(by_length, size),
            is_exact=task.fast is task.exact,
        ),
    ]


def batches_of(order: np.ndarray, size: int) -> list[np.ndarray]:
    """Rows in this order, `size` at a time."""
    return [order[start : start + size] for start in range(0, len(order), size)]


def _stock_variant(task: Task, name: str, meaning: str, batches: list[np.ndarray], *, is_exact: bool = True) -> Variant:
    model = (task.exact if is_exact else task.fast).model
    size = len(batches[0])

    def embed(rows: np.ndarray) -> np.ndarray:
        tokens = [task.proteins[row].tokens[0] for row in rows]
        pad_id = model.config.pad_token_id
        with torch.inference_mode():
            return mean_vectors(model, tokens, pad_id=pad_id, device=task.machine.device).cpu().numpy()

    return Variant(
        name,
        meaning,
        [_unit(task, rows, padded=True) for rows in batches],
        run=lambda unit: embed(unit.rows),
        check=lambda: np.concatenate([embed(rows) for rows in batches_of(task.checked, size)]),
        resident_bytes=weight_bytes(model),
        is_exact=is_exact,
    )


def product_variants(task: Task, arguments: argparse.Namespace) -> list[Variant]:
    """peftide in float32, in the machine's best arithmetic, and on CUDA compiled."""
    exact_machine = Machine(task.machine.device, torch.float32)
    budget = arguments.token_budget or TOKENS_AT_ONCE[task.machine.device.type]
    variants = [_product_variant("peftide-fp32", Encoder(task.exact, task.exact.model, exact_machine), task, budget)]
    if task.fast is not task.exact:
        encoder = Encoder(task.fast, task.fast.model, task.machine)
        variants.append(_product_variant("peftide-bf16", encoder, task, budget))
    if task.machine.device.type == "cuda" and not arguments.no_compile:
        encoder = Encoder(task.fast, task.fast.model, task.machine, compile_layers=True)
        variants.append(_product_variant("peftide-compiled", encoder, task, budget))
    return variants


def _product_variant(name: str, encoder: Encoder, task: Task, token_budget: int) -> Variant:
    def embed(rows: np.ndarray) -> np.ndarray:
        return embed_proteins(encoder, [task.proteins[row] for row in rows], token_budget=token_budget)

    return Variant(
        name,
        f"peftide embed, {encoder.machine.precision}, {token_budget:,} tokens at once",
        [_unit(task, rows, padded=False) for rows in length_batches(task.lengths_P.tolist(), token_budget)],
        run=lambda unit: embed(unit.rows),
        check=lambda: embed(task.checked),
        resident_bytes=weight_bytes(encoder.model),
        is_exact=encoder.machine.dtype == torch.float32,
    )


def _unit(task: Task, rows: np.ndarray, *, padded: bool) -> Unit:
    lengths = task.lengths_P[rows]
    if padded:
        lengths = np.full(len(rows), lengths.max())
    return Unit(rows, encoding_cost(task.exact, lengths), int(lengths.sum()))


def least_cosines(variants: Sequence[Variant]) -> dict[str, float]:
    """Least cosine of the checked proteins' vectors with those of stock float32, one protein at a time.

    Raises AssertionError where one is below 0.999.
    """
    vectors = {variant.name: variant.check().astype(np.float64) for variant in variants}
    expected_CD = vectors["stock-one-at-a-time"]
    cosines = {}
    for name, found_CD in vectors.items():
        norms_C = np.linalg.norm(found_CD, axis=1) * np.linalg.norm(expected_CD, axis=1)
        cosines[name] = float(((found_CD * expected_CD).sum(axis=1) / norms_C).min())
        assert cosines[name] > LEAST_COSINE, f"{name}: cosine {cosines[name]} with stock float32"
    return cosines


def ratios(timings: Mapping[str, Timing]) -> dict[str, float]:
    """The fastest of peftide over each way of the stock tools, in residues a second."""
    best = min(timing.epoch_seconds for name, timing in timings.items() if name.startswith("peftide"))
    stock = {name: timing for name, timing in timings.items() if name.startswith("stock")}
    return {f"ratio_to_{name.replace('-', '_')}": timing.epoch_seconds / best for name, timing in stock.items()}


def matrix_product_rate(device: torch.device) -> float:
    """Operations a second of a bfloat16 product of two 8192 x 8192 matrices of random numbers, median of 10."""
    left, right = (torch.randn(MATRIX_SIZE, MATRIX_SIZE, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(13):
        synchronize(device)
        started = time.perf_counter()
        left @ right
        synchronize(device)
        seconds.append(time.perf_counter() - started)
    return 2 * MATRIX_SIZE**3 / median(seconds[3:])


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"error: {error}")
