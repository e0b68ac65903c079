"""Bands of a screen scored by the workers of a Ray cluster, which have the vectors and know what is kept so far.

Shapes: P proteins, D width.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from peftide.config import ScreenSettings
from peftide.inference.embed import Advance
from peftide.inference.ray_workers import ray_workers
from peftide.inference.screen_bands import Band, Scorer, estimating_function, score_band, single_threads
from peftide.inference.screen_estimate import has_fast_integers
from peftide.inference.screen_pairs import PairSpace
from peftide.inference.screen_selection import Pairs, Selection
from peftide.inference.screen_tiles import tile_function
from peftide.inference.work import Compute, Identity, Loaded
from peftide.models.bundle import bundle_digest, load_bundle
from peftide.models.machine import Machine, choose_machine


@dataclass(frozen=True)
class Screening:
    """What a worker has to know beside the settings.

    margin: that of the estimates; None where the logits are those of the head itself.
    new_selection: an empty `Selection` when it is told of the device and of what is known.
    """

    vectors_PD: np.ndarray
    space: PairSpace
    margin: float | None
    new_selection: Callable[..., Selection]


@contextmanager
def band_workers(
    settings: ScreenSettings, screening: Screening, selection: Selection, *, machine: Machine, console: Console
) -> Iterator[Compute[Band, Pairs]]:
    """Yield what has bands scored by a cluster; `selection` learns of each as it comes. Errors as in `ray_workers`."""
    identity = _identity(settings, machine, estimate=screening.margin is not None)
    load, device = partial(load_bands, screening), machine.device.type
    with ray_workers(settings, load, identity=identity, device=device, doing="scoring", console=console) as spread:

        def knowing(band: Band) -> Band:
            cuts_P = selection.cuts()
            return replace(band, cuts_P=None if cuts_P is None else cuts_P.cpu().numpy())

        def compute(bands: Iterator[Band], advance: Advance) -> Iterator[tuple[int, Pairs]]:
            for number, pairs in spread(map(knowing, bands), advance):
                selection.learn(pairs)
                yield number, pairs

        yield compute


def load_bands(screening: Screening, settings: ScreenSettings) -> Loaded[Band, Pairs]:
    """What `peftide screen` does to bands, for any process. Raises UserError where the bundle cannot be had."""
    machine = choose_machine(settings.device, settings.precision, settings.threads)
    head = load_bundle(Path(settings.bundle), dtype=machine.dtype).head.to(machine.device)
    vectors_PD = torch.tensor(screening.vectors_PD, device=machine.device)
    fill = tile_function(head, vectors_PD)
    estimate = screening.margin is not None and has_fast_integers()
    if estimate:
        fill, _ = estimating_function(head, vectors_PD, fill)
    scorer = Scorer(fill, screening.margin, machine.device)
    work = partial(screen_band, screening, scorer, single_threads(machine.device))
    torch.set_num_threads(1)
    return Loaded(_identity(settings, machine, estimate=estimate), work)


def screen_band(
    screening: Screening,
    scorer: Scorer,
    pool: Executor,
    band: Band,
    /,
    *,
    advance: Advance = lambda pairs: None,
) -> Pairs:
    """The pairs of a band that may be in the result, by its own scores and by what was known when it was given."""
    known_cuts_P = None if band.cuts_P is None else torch.tensor(band.cuts_P, device=scorer.device)
    selection = screening.new_selection(device=scorer.device, known_cuts_P=known_cuts_P)
    scores_RC = score_band(screening.space, scorer, band, pool=pool, advance=advance)
    return selection.take_band(scores_RC, rows=band.rows, columns=band.columns, pool=pool)


def _identity(settings: ScreenSettings, machine: Machine, *, estimate: bool) -> Identity:
    return {
        "bundle": bundle_digest(Path(settings.bundle)),
        "arithmetic": f"{machine.precision} on {machine.device.type}",
        "scores": "estimated" if estimate else "exact",
    }
