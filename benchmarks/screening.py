"""All pairs of a proteome: `peftide screen` beside the head pair by pair, in pairs a second.

Random vectors and, unless a bundle is given, heads of random weights: the speed does not depend on their values, but
for how many pairs lie close to the limit. A sample of the bands is scored and the whole extrapolated from it.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from peftide.errors import UserError
from peftide.inference.predict import EXAMPLES_AT_ONCE
from peftide.inference.screen_bands import Scorer, estimating_scorer, one_thread_each
from peftide.inference.screen_estimate import has_fast_integers
from peftide.inference.screen_pairs import PairSpace
from peftide.inference.screen_result import Rescoring
from peftide.inference.screen_selection import ROWS_AT_ONCE, Pairs, Selection, TopPairs
from peftide.inference.screen_tiles import tile_function
from peftide.models.bundle import load_bundle
from peftide.models.heads import Head
from peftide.models.machine import Machine, choose_machine
from results import Column, document, print_table, write_json

KINDS = ("mlp", "paper", "linear")
PAIRS_BY_PREDICT = 100_000
GOLDEN_FRACTION = 0.618034
COLUMNS = (
    Column("pairs_per_second", "pairs/s", ",.0f"),
    Column("pairs_per_processor_second", "pairs/s of CPU", ",.0f"),
    Column("predict_pairs_per_second", "by pair, pairs/s", ",.0f"),
    Column("ratio_to_predict", "ratio", ",.1f"),
    Column("seconds_in_all", "all pairs, s", ",.1f"),
)


@dataclass(frozen=True)
class Clock:
    """Seconds that some work took, on the wall and of all processors together."""

    seconds: float
    processor_seconds: float


def timed(work: Callable[[], Any], device: torch.device) -> tuple[Any, Clock]:
    """What the work returns and how long it took."""
    synchronize(device)
    started, processor_started = time.perf_counter(), time.process_time()
    result = work()
    synchronize(device)
    return result, Clock(time.perf_counter() - started, time.process_time() - processor_started)


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main(words: Sequence[str]) -> dict[str, Any]:
    """Time every head, print a table, and return (and write) the results."""
    arguments = parse(words)
    machine = choose_machine(arguments.device, "auto", arguments.threads)
    load_before = os.getloadavg()
    rows = []
    for kind, head in heads(arguments).items():
        head.to(machine.device)
        generator = torch.Generator().manual_seed(arguments.seed)
        standard_PD = torch.randn(arguments.proteins, len(head.center_D), generator=generator).to(machine.device)
        vectors_PD = head.center_D + head.scale_D * standard_PD
        ways = (True, False) if kind == "mlp" and may_estimate(machine) else (False,)
        rows += [measured(kind, head, vectors_PD, arguments, estimate=estimate) for estimate in ways]
    results = document(
        "screening", machine, arguments,
        note="a sample of bands is scored; seconds_in_all is extrapolated from it to all pairs",
        load_average={"before": load_before, "after": os.getloadavg()}, rows=rows,
    )  # fmt: skip
    print_table(rows, COLUMNS)
    write_json(arguments.json, results)
    return results


def may_estimate(machine: Machine) -> bool:
    """Whether `peftide screen` would use estimates here."""
    return machine.device.type == "cpu" and has_fast_integers()


def heads(arguments: argparse.Namespace) -> dict[str, Head]:
    """The heads to time by kind: that of the bundle, or one of each kind with random weights."""
    if arguments.bundle is not None:
        model = load_bundle(Path(arguments.bundle), dtype=torch.float32)
        if model.head_shape.arity != 2 or model.head_shape.num_outputs != 1:
            raise UserError(f"{arguments.bundle}: is no bundle that `peftide screen` takes")
        return {model.head_shape.kind: model.head}
    torch.manual_seed(arguments.seed)
    shape = {"width": arguments.width, "arity": 2, "num_outputs": 1, "hidden_width": arguments.head_width}
    made = {kind: Head(kind, **shape, dropout=0.1).eval().requires_grad_(False) for kind in KINDS}
    return {kind: head for kind, head in made.items() if kind in arguments.heads}


def measured(
    kind: str, head: Head, vectors_PD: Tensor, arguments: argparse.Namespace, *, estimate: bool
) -> dict[str, Any]:
    """One row: the head pair by pair; tiles spread over the screen for the given time; what follows them."""
    num_proteins, device = len(vectors_PD), vectors_PD.device
    space = PairSpace(num_proteins, 0, num_proteins, None, self_pairs=False, both_orders=True)
    pairs = random_pairs(num_proteins, arguments.seed)
    predict_rate = pairs_per_second(partial(by_predict, head, vectors_PD), pairs, device)
    num_workers = torch.get_num_threads() if device.type == "cpu" else 1
    with one_thread_each(device) as pool:
        exact, preparing = timed(partial(tile_function, head, vectors_PD), device)
        scorer = Scorer(exact, None, device)
        if estimate:
            make = partial(estimating_scorer, head, vectors_PD, space, Rescoring(exact, pool))
            scorer, preparing = timed(make, device)
        tiles = timed_tiles(space, scorer, pool, num_workers=num_workers, max_seconds=arguments.seconds_per_variant)
        selecting_seconds, ranking_seconds = timed_selection(space, pool, arguments, device)
        num_rescored, rescoring_seconds = 0.0, 0.0
        if estimate:
            kept = kept_in_the_end(space, scorer, arguments.top_k)
            _, rescoring = timed(partial(Rescoring(exact, pool), kept), device)
            rows_over_sample = num_proteins / ROWS_AT_ONCE
            num_rescored, rescoring_seconds = len(kept) * rows_over_sample, rescoring.seconds * rows_over_sample
    scoring_seconds = space.num_pairs / tiles["pairs_per_second"]
    later_seconds = selecting_seconds + rescoring_seconds + ranking_seconds
    return {
        "variant": f"{kind}, estimated in int8" if estimate else f"{kind}, float32",
        **tiles,
        "predict_pairs_per_second": predict_rate,
        "ratio_to_predict": tiles["pairs_per_second"] / predict_rate,
        "pairs": space.num_pairs,
        "margin": scorer.margin,
        "pairs_rescored": num_rescored,
        "preparing_seconds": preparing.seconds,
        "scoring_seconds": scoring_seconds,
        "selecting_seconds": selecting_seconds,
        "rescoring_seconds": rescoring_seconds,
        "ranking_seconds": ranking_seconds,
        "seconds_in_all": preparing.seconds + scoring_seconds + later_seconds,
    }


def random_pairs(num_proteins: int, seed: int) -> Pairs:
    """Pairs drawn at random."""
    generator = np.random.default_rng(seed)
    rows, columns = (generator.integers(0, num_proteins, PAIRS_BY_PREDICT, dtype=np.int32) for _ in range(2))
    return Pairs(rows, columns, np.zeros(PAIRS_BY_PREDICT, dtype=np.float32))


@torch.inference_mode()
def by_predict(head: Head, vectors_PD: Tensor, pairs: Pairs) -> Tensor:
    """The head pair by pair on all threads, as `peftide predict` runs it."""
    members_N2 = torch.from_numpy(np.stack([pairs.rows, pairs.columns], axis=1)).long().to(vectors_PD.device)
    return torch.cat([head(vectors_PD[part]) for part in members_N2.split(EXAMPLES_AT_ONCE)])


def pairs_per_second(work: Callable[[Pairs], object], pairs: Pairs, device: torch.device) -> float:
    """Speed on some pairs, after a warm-up."""
    work(pairs.where(np.arange(10_000)))
    _, clock = timed(partial(work, pairs), device)
    return len(pairs) / clock.seconds


def timed_tiles(
    space: PairSpace, scorer: Scorer, pool: Executor, *, num_workers: int, max_seconds: float
) -> dict[str, float]:
    """Speed of scoring until the time is over: for each worker a tile, beside each other, at places spread evenly."""
    starts = np.arange(0, space.num_rows, ROWS_AT_ONCE * num_workers)
    starts = starts[np.argsort((np.arange(len(starts)) * GOLDEN_FRACTION) % 1, kind="stable")].tolist()
    num_pairs, seconds, processor_seconds = 0, 0.0, 0.0
    for number, first in enumerate(starts):
        stop = min(first + ROWS_AT_ONCE * num_workers, space.num_rows)
        some = [slice(start, min(start + ROWS_AT_ONCE, stop)) for start in range(first, stop, ROWS_AT_ONCE)]
        _, clock = timed(partial(list, pool.map(partial(filled, space, scorer), some)), scorer.device)
        if number:  # the first ones warm up
            num_pairs += sum((rows.stop - rows.start) * (space.num_rows - rows.start) for rows in some)
            seconds += clock.seconds
            processor_seconds += clock.processor_seconds
        if seconds > max_seconds:
            break
    return {
        "pairs_per_second": num_pairs / seconds,
        "pairs_per_processor_second": num_pairs / max(processor_seconds, 1e-9),
        "pairs_timed": num_pairs,
        "seconds_timed": seconds,
    }


def filled(space: PairSpace, scorer: Scorer, rows: slice) -> Tensor:
    """The logits of some rows against all columns from the first of them on."""
    tile_RC = torch.empty(rows.stop - rows.start, space.num_proteins - rows.start, device=scorer.device)
    scorer.fill(rows, slice(rows.start, space.num_proteins), tile_RC)
    return tile_RC


def timed_selection(
    space: PairSpace, pool: Executor, arguments: argparse.Namespace, device: torch.device
) -> tuple[float, float]:
    """Seconds that selecting among all pairs takes, and ranking the selected ones, from one band of random logits."""
    selection = Selection(
        num_proteins=space.num_proteins, top_k=arguments.top_k, least=-np.inf, margin=0.0, is_symmetric=True,
        device=device,
    )  # fmt: skip
    bands = list(space.bands())[:2]
    generator = torch.Generator().manual_seed(arguments.seed)
    for rows, columns in bands:
        scores_RC = torch.randn(rows.stop - rows.start, columns.stop - columns.start, generator=generator).to(device)
        pairs, selecting = timed(partial(selection.take_band, scores_RC, rows=rows, columns=columns, pool=pool), device)
    top = TopPairs(arguments.top_k)
    top.add(pairs, is_symmetric=True)
    _, ranking = timed(top.ranked, device)
    share = space.num_pairs_of(*bands[-1]) / space.num_pairs
    return selecting.seconds / share, ranking.seconds / max(len(pairs), 1) * arguments.top_k * space.num_proteins


def kept_in_the_end(space: PairSpace, scorer: Scorer, top_k: int) -> Pairs:
    """Pairs that are scored again in the end, of some rows whose lists are complete."""
    tile_RC = filled(space, scorer, slice(0, ROWS_AT_ONCE))
    cuts_R1 = tile_RC.topk(min(top_k, tile_RC.shape[1]), dim=1).values[:, -1:] - (scorer.margin or 0.0)
    rows, columns = (tile_RC >= cuts_R1).nonzero(as_tuple=True)
    return Pairs(rows.int().numpy(), columns.int().numpy(), tile_RC[rows, columns].numpy())


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--proteins", type=int, default=20_000, help="of the proteome (%(default)s)")
    parser.add_argument("--width", type=int, default=320, help="numbers in a vector (%(default)s, swissprot-10m)")
    parser.add_argument("--head-width", type=int, default=512, help="hidden units of the mlp head (%(default)s)")
    parser.add_argument("--top-k", type=int, default=100, help="partners kept for each protein (%(default)s)")
    parser.add_argument("--heads", nargs="+", choices=KINDS, default=KINDS, help="kinds of head (all)")
    parser.add_argument("--bundle", help="time the head of this bundle alone, on vectors like those it was trained on")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="CPU threads; all cores when absent")
    parser.add_argument("--seconds-per-variant", type=float, default=10, help="of scoring (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of vectors, weights and pairs (%(default)s)")
    parser.add_argument("--json", metavar="OUT", help="file for the results")
    return parser.parse_args(list(words))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"error: {error}")
