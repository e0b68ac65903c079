"""Scoring the pairs of a screen band by band, on all threads, with what is done kept on the way.

Shapes: P proteins, R rows and C columns of a band, D width.
"""

from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from peftide.errors import UserError
from peftide.inference.embed import Advance
from peftide.inference.screen_estimate import EstimateFunction, coarseness, estimated_tiles, trial_pairs
from peftide.inference.screen_pairs import PairSpace
from peftide.inference.screen_parts import Parts
from peftide.inference.screen_result import Rescoring
from peftide.inference.screen_selection import ROWS_AT_ONCE, Pairs, Selection
from peftide.inference.screen_tiles import TileFunction
from peftide.inference.work import Compute
from peftide.models.heads import Head

# A pair is looked at again where its estimate is at most this times the largest error seen in a trial below what it
# takes to be in the result.
ERROR_MARGIN = 3
# A protein whose estimates would be coarser than the median by more than this is scored exactly against all others.
MOST_COARSE = 4


@dataclass(frozen=True)
class Band:
    """A task: some rows against their columns.

    cuts_P: for a worker elsewhere, the logit from which a pair could be among the best of a protein by what was known
        when the task was given; None where there are no such lists.
    """

    number: int
    rows: slice
    columns: slice
    cuts_P: np.ndarray | None = None


@dataclass(frozen=True)
class Scorer:
    """How tiles are scored.

    margin: how far below the limit an estimated logit may be; None where the logits are those of the head itself.
    """

    fill: EstimateFunction
    margin: float | None
    device: torch.device


def estimating_function(head: Head, vectors_PD: Tensor, exact: TileFunction) -> tuple[EstimateFunction, Tensor]:
    """Fast estimates of the logits of an mlp head on a CPU; of proteins unlike all others the logits themselves.

    Also how coarse the estimates of each protein are (P,), 0 where they are none.
    """
    estimate, coarse_P = estimated_tiles(head, vectors_PD), coarseness(head, vectors_PD)
    is_too_coarse_P = coarse_P > MOST_COARSE * coarse_P.median()

    def fill(rows: slice, columns: slice, out_RC: Tensor) -> None:
        estimate(rows, columns, out_RC)
        for number in is_too_coarse_P[rows].nonzero()[:, 0].tolist():
            row = rows.start + number
            exact(slice(row, row + 1), columns, out_RC[number : number + 1])

    return fill, coarse_P.masked_fill(is_too_coarse_P, 0)


def estimating_scorer(head: Head, vectors_PD: Tensor, space: PairSpace, rescoring: Rescoring) -> Scorer:
    """Estimates of `estimating_function`, and the margin that they need, from a trial."""
    fill, coarse_P = estimating_function(head, vectors_PD, rescoring.exact)
    columns = range(space.first_column, space.num_proteins)
    rescoring(trial_pairs(fill, coarse_R=coarse_P[: space.num_rows].numpy(), columns=columns))
    return Scorer(fill, ERROR_MARGIN * rescoring.largest_error, vectors_PD.device)


def score_bands(
    space: PairSpace, selection: Selection, parts: Parts, compute: Compute[Band, Pairs], *, advance: Advance
) -> None:
    """Have every band scored that is not done yet and keep its part; `advance` is told of pairs, those done before too.

    `selection` knows those done before, and what `compute` lets it know of the others.
    """
    done = set(parts.bands())
    for pairs in parts.read_bands():
        selection.learn(pairs)
    bands = [Band(number, *band) for number, band in enumerate(space.bands())]
    advance(round(sum(space.num_pairs_of(band.rows, band.columns) for band in bands if band.number in done)))
    for number, pairs in compute((band for band in bands if band.number not in done), advance):
        parts.write_band(number, pairs)


def one_by_one(space: PairSpace, scorer: Scorer, selection: Selection, pool: Executor) -> Compute[Band, Pairs]:
    """Has bands scored by this process; `selection` learns of each."""

    def compute(bands: Iterator[Band], advance: Advance) -> Iterator[tuple[int, Pairs]]:
        for band in bands:
            scores_RC = score_band(space, scorer, band, pool=pool, advance=advance)
            yield band.number, selection.take_band(scores_RC, rows=band.rows, columns=band.columns, pool=pool)

    return compute


def score_band(space: PairSpace, scorer: Scorer, band: Band, *, pool: Executor, advance: Advance) -> Tensor:
    """Logits (R, C) of a band, -inf where there is no pair. Raises UserError where one is not a number."""
    rows, columns = band.rows, band.columns
    scores_RC = torch.empty(rows.stop - rows.start, columns.stop - columns.start, device=scorer.device)
    num_pairs, num_rows, told = space.num_pairs_of(rows, columns), 0, 0
    for done in as_completed(_fill(pool, space, scorer.fill, rows, columns, scores_RC)):
        num_rows += done.result()
        now = round(num_pairs * num_rows / len(scores_RC))
        advance(now - told)
        told = now
    space.leave_out(scores_RC, rows, columns)
    if bool(scores_RC.isnan().any()):
        raise UserError("a pair's score is not a number: the weights of the head are too large; train it again")
    return scores_RC


def _fill(
    pool: Executor, space: PairSpace, fill: EstimateFunction, rows: slice, columns: slice, scores_RC: Tensor
) -> Iterator[Future[int]]:
    """Start to score a band, some rows in each task, which gives their number.

    Of one set of proteins, what lies left of a task's own first row is no pair and stays as it is.
    """
    for start in range(0, len(scores_RC), ROWS_AT_ONCE):
        part_RC = scores_RC[start : start + ROWS_AT_ONCE]
        chosen = slice(rows.start + start, rows.start + start + len(part_RC))
        skipped = start if space.is_symmetric else 0
        yield pool.submit(_filled, fill, chosen, slice(columns.start + skipped, columns.stop), part_RC[:, skipped:])


def _filled(fill: EstimateFunction, rows: slice, columns: slice, part_RC: Tensor) -> int:
    fill(rows, columns, part_RC)
    return len(part_RC)


@contextmanager
def one_thread_each(device: torch.device) -> Iterator[Executor]:
    """As many workers as PyTorch has threads (on a CPU), each of one thread: tiles are too small to be shared.

    Tasks that have not begun are dropped where the block ends early.
    """
    num_threads = torch.get_num_threads()
    pool = single_threads(device)
    torch.set_num_threads(1)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(num_threads)


def single_threads(device: torch.device) -> ThreadPoolExecutor:
    """The workers of `one_thread_each`."""
    num_workers = torch.get_num_threads() if device.type == "cpu" else 1
    return ThreadPoolExecutor(num_workers, initializer=torch.set_num_threads, initargs=(1,))
