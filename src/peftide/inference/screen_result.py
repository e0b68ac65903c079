"""From the pairs that may be in the result to the result: scored exactly, ranked, calibrated, written as Parquet."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import torch
from scipy.special import expit

from peftide.data.writers import aside_of
from peftide.evaluation.assessment import correct
from peftide.evaluation.calibration import Calibration
from peftide.inference.screen_selection import Pairs, TopPairs
from peftide.inference.screen_tiles import TileFunction

ROWS_IN_GROUP = 1 << 20  # of a Parquet row group
PAIRS_AT_ONCE = 1 << 16  # of one row, whose partners' vectors are gathered to be scored again


class Rescoring:
    """Exact logits in the place of estimates; remembers by how much those were wrong."""

    def __init__(self, exact: TileFunction, pool: Executor) -> None:
        self.exact, self._pool = exact, pool
        self.largest_error = 0.0

    def __call__(self, pairs: Pairs) -> Pairs:
        """The same pairs, which are in the order of their rows, with the logits of the head."""
        is_start = np.diff(pairs.rows, prepend=-1) != 0
        is_start[::PAIRS_AT_ONCE] = True
        starts = np.flatnonzero(is_start)
        found = self._pool.map(self._of_row, pairs.rows[starts], np.split(pairs.columns, starts[1:]))
        logits = np.concatenate([pairs.logits[:0], *found])
        self.largest_error = max(self.largest_error, float(np.abs(logits - pairs.logits).max(initial=0)))
        return Pairs(pairs.rows, pairs.columns, logits)

    def _of_row(self, row: int, columns: np.ndarray) -> np.ndarray:
        logits_1C = torch.empty(1, len(columns))
        self.exact(slice(row, row + 1), torch.from_numpy(columns).long(), logits_1C)
        return logits_1C[0].numpy()


def probabilities_of(logits: np.ndarray, calibration: Calibration | None) -> np.ndarray:
    """Calibrated probabilities (N,) of logits (N,), as `predict` has them.

    Equal logits have equal probabilities; with PyTorch's sigmoid the last digit depends on the place in the array.
    """
    return correct(expit(logits), calibration)


def least_logit(probability: float, calibration: Calibration | None) -> float:
    """A logit just below the lowest whose calibrated probability is this high or higher; infinity where none is.

    A calibration rises, so that it changes no order: halving finds the place.
    """
    low, high = -100.0, 100.0
    ends = probabilities_of(np.array([low, high], dtype=np.float32), calibration)
    if ends[0] >= probability:
        return -np.inf
    if ends[1] < probability:
        return np.inf
    while high - low > 1e-5:
        middle = (low + high) / 2
        reached = probabilities_of(np.array([middle], dtype=np.float32), calibration)[0] >= probability
        low, high = (low, middle) if reached else (middle, high)
    return low - 1e-5


def ranked_rows(kept: Iterable[Pairs], *, top_k: int, is_symmetric: bool) -> tuple[Pairs, np.ndarray]:
    """The best pairs of each protein with their ranks from 1, best first, the row's protein being whose list it is."""
    top = TopPairs(top_k)
    for pairs in kept:
        top.add(pairs, is_symmetric=is_symmetric)
    return top.ranked()


def in_groups(rows: Iterable[tuple[Pairs, np.ndarray | None]]) -> Iterator[tuple[Pairs, np.ndarray | None]]:
    """The same rows, at most so many at once that their names fit in memory."""
    for pairs, ranks in rows:
        for start in range(0, len(pairs), ROWS_IN_GROUP):
            part = np.arange(start, min(start + ROWS_IN_GROUP, len(pairs)))
            yield pairs.where(part), None if ranks is None else ranks[part]


def write_result(
    out: Path,
    rows: Iterable[tuple[Pairs, np.ndarray | None]],
    *,
    ids: tuple[str, ...],
    probabilities: Callable[[np.ndarray], np.ndarray],
    min_probability: float,
    with_rank: bool,
    within: Path,
) -> int:
    """Write pairs and ranks, those of at least `min_probability`, and return how many; the file appears whole or not.

    Columns protein_a, protein_b, probability (float32) and, `with_rank`, rank. within: folder on the same disk, of this
    screen alone, to write in until then.
    """
    names = pa.array(ids, pa.string())
    fields = [("protein_a", pa.string()), ("protein_b", pa.string()), ("probability", pa.float32())]
    schema = pa.schema([*fields, ("rank", pa.int32())] if with_rank else fields)
    num_written = 0
    with aside_of(out, within=within) as fresh, pyarrow.parquet.ParquetWriter(fresh, schema) as writer:
        for pairs, ranks in in_groups(rows):
            found = probabilities(pairs.logits)
            is_likely = found >= min_probability
            if not is_likely.any():
                continue
            columns = [names.take(pa.array(pairs.rows[is_likely])), names.take(pa.array(pairs.columns[is_likely]))]
            columns.append(pa.array(found[is_likely].astype(np.float32)))
            if ranks is not None:
                columns.append(pa.array(ranks[is_likely]))
            writer.write_table(pa.table(columns, schema=schema), row_group_size=ROWS_IN_GROUP)
            num_written += int(is_likely.sum())
    return num_written
