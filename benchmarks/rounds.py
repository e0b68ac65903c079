"""Timing that is fair on a machine that others use too: variants in turn, medians over rounds, slices of an epoch."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from statistics import median

import numpy as np
import torch

from peftide.training.resident import give_back, held_bytes, peak_bytes, start_peak

GOLDEN_FRACTION = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Unit:
    """A part of an epoch that is timed as a whole: a micro-batch of a peer, a step of peftide, a batch to embed.

    rows: of the examples; cost: floating-point operations of the layers, padding included, up to a factor that is the
    same for all units of a variant; num_tokens: through the encoder, padding included.
    """

    rows: np.ndarray
    cost: float
    num_tokens: int


@dataclass(frozen=True)
class Variant:
    """One way to do the work of an epoch.

    meaning: in words; units: the whole epoch; run: the timed work of a unit; check: numbers that every variant must
    get right; resident_bytes: weights, and states held in memory; is_exact: computed in float32; prepare: untimed work
    before a unit.
    """

    name: str
    meaning: str
    units: Sequence[Unit]
    run: Callable[[Unit], object]
    check: Callable[[], np.ndarray]
    resident_bytes: int
    is_exact: bool
    prepare: Callable[[Unit], object] = lambda unit: None


@dataclass(frozen=True)
class Timing:
    """epoch_seconds: median over the rounds, each extrapolated from its slice; peak_growth_bytes: see `peak_growth`."""

    epoch_seconds: float
    rounds_seconds: tuple[float, ...]
    num_units: int
    peak_growth_bytes: int | None


def spread_order(costs: Sequence[float]) -> np.ndarray:
    """An order of the units of which every stretch samples cheap and dear units evenly (a golden-ratio sequence)."""
    fractions = (0.5 + np.arange(len(costs)) * GOLDEN_FRACTION) % 1
    return np.argsort(costs, kind="stable")[np.argsort(np.argsort(fractions))]


def time_in_turn(
    variants: Sequence[Variant], *, seconds_per_variant: float, num_rounds: int, device: torch.device
) -> dict[str, Timing]:
    """Time all variants, A B C A B C, by name.

    Each round of a variant takes units spread over its epoch for its share of the seconds, one at least. The time of
    the epoch is the slice's, times the ratio of their costs. The dearest unit comes first, untimed: it warms up and
    gives the peak memory; on a GPU the cheapest and the median one come before it, for what is compiled or tuned.
    """
    started = time.perf_counter()
    growth = {variant.name: _warm_up(variant, device) for variant in variants}
    _say("warm", started)
    orders = {v.name: cycle(spread_order([unit.cost for unit in v.units]).tolist()) for v in variants}
    rounds: dict[str, list[float]] = {variant.name: [] for variant in variants}
    num_units = dict.fromkeys(rounds, 0)
    for number in range(1, num_rounds + 1):
        for variant in variants:
            seconds, cost = 0.0, 0.0
            while seconds < seconds_per_variant / num_rounds:
                unit = variant.units[next(orders[variant.name])]
                seconds += _timed(variant, unit, device)
                cost += unit.cost
                num_units[variant.name] += 1
            rounds[variant.name].append(seconds * sum(unit.cost for unit in variant.units) / cost)
        _say(f"round {number} of {num_rounds} done", started)
    return {
        name: Timing(median(values), tuple(values), num_units[name], growth[name]) for name, values in rounds.items()
    }


def _say(what: str, started: float) -> None:
    print(f"{what} after {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)


def _warm_up(variant: Variant, device: torch.device) -> int | None:
    by_cost = sorted(variant.units, key=lambda unit: unit.cost)
    dearest = by_cost[-1]
    if device.type == "cuda":
        for unit in (by_cost[0], by_cost[len(by_cost) // 2]):
            _timed(variant, unit, device)
    variant.prepare(dearest)
    return peak_growth(lambda: variant.run(dearest), device)


def _timed(variant: Variant, unit: Unit, device: torch.device) -> float:
    variant.prepare(unit)
    synchronize(device)
    started = time.perf_counter()
    variant.run(unit)
    synchronize(device)
    return time.perf_counter() - started


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_growth(work: Callable[[], object], device: torch.device) -> int | None:
    """Bytes by which memory rises above its level at the start while `work` runs.

    CUDA: allocated memory. Linux: resident memory of the process, after freed memory has gone back to the system.
    None where the system cannot tell (its peak would be that of all variants so far).
    """
    if device.type != "cuda":
        give_back(device)
    if not start_peak(device):
        work()
        return None
    before = held_bytes(device)
    work()
    synchronize(device)
    return max(0, peak_bytes(device) - before)
