"""Scoring the pairs of a screen band by band, on all threads, with what is done kept on the way.

Shapes: P proteins, R rows and C columns of a band, D width.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from peftide.errors import UserError
from peftide.inference.screen_estimate import EstimateFunction, coarseness, estimated_tiles, trial_pairs
from peftide.inference.screen_pairs import PairSpace
from peftide.inference.screen_parts import Parts
from peftide.inference.screen_result import Rescoring
from peftide.inference.screen_selection import ROWS_AT_ONCE, Selection
from peftide.models.heads import Head

# A pair is looked at again where its estimate is at most this times the largest error seen in a trial below what it
# takes to be in the result.
ERROR_MARGIN = 3
# A protein whose estimates would be coarser than the median by more than this is scored exactly against all others.
MOST_COARSE = 4


@dataclass(frozen=True)
class Scorer:
    """How tiles are scored.

    margin: how far below the limit an estimated logit may be; None where the logits are those of the head itself.
    """

    fill: EstimateFunction
    margin: float | None
    device: torch.device


def estimating_scorer(head: Head, vectors_PD: Tensor, space: PairSpace, rescoring: Rescoring) -> Scorer:
    """Fast estimates of the logits of an mlp head on a CPU, and the margin that they need, from a trial."""
    estimate, coarse_P = estimated_tiles(head, vectors_PD), coarseness(head, vectors_PD)
    is_too_coarse_P = coarse_P > MOST_COARSE * coarse_P.median()

    def fill(rows: slice, columns: slice, out_RC: Tensor) -> None:
        estimate(rows, columns, out_RC)
        for number in is_too_coarse_P[rows].nonzero()[:, 0].tolist():
            row = rows.start + number
            rescoring.exact(slice(row, row + 1), columns, out_RC[number : number + 1])

    columns = range(space.first_column, space.num_proteins)
    coarse_R = coarse_P.masked_fill(is_too_coarse_P, 0)[: space.num_rows]
    rescoring(trial_pairs(fill, coarse_R=coarse_R.numpy(), columns=columns))
    return Scorer(fill, ERROR_MARGIN * rescoring.largest_error, vectors_PD.device)


def score_bands(
    space: PairSpace,
    scorer: Scorer,
    selection: Selection,
    parts: Parts,
    *,
    pool: Executor,
    advance: Callable[[float], None],
) -> None:
    """Score every band that is not done yet and keep its part; `advance` is told of pairs, those done before too."""
    num_done = parts.num_bands()
    selection.recall(parts.read_bands())
    for number, (rows, columns) in enumerate(space.bands()):
        if number < num_done:
            advance(space.num_pairs_of(rows, columns))
            continue
        scores_RC = torch.empty(rows.stop - rows.start, columns.stop - columns.start, device=scorer.device)
        for done in as_completed(_fill(pool, space, scorer.fill, rows, columns, scores_RC)):
            advance(space.num_pairs_of(rows, columns) * done.result() / len(scores_RC))
        space.leave_out(scores_RC, rows, columns)
        if bool(scores_RC.isnan().any()):
            raise UserError("a pair's score is not a number: the weights of the head are too large; train it again")
        parts.write_band(number, selection.take_band(scores_RC, rows=rows, columns=columns, pool=pool))


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
    num_workers = num_threads if device.type == "cpu" else 1
    pool = ThreadPoolExecutor(num_workers, initializer=torch.set_num_threads, initargs=(1,))
    torch.set_num_threads(1)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(num_threads)
