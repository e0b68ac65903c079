"""Which pairs are kept: the best of each protein, those from a probability up, or all.

Shapes: P proteins, R rows and C columns of a band, N pairs, K best of a protein.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

Result = TypeVar("Result")

ROWS_AT_ONCE, COLUMNS_AT_ONCE = 32, 1024  # of a band, for one worker
BUFFERED_PAIRS = 4_000_000


@dataclass(frozen=True)
class Pairs:
    """Pairs of rows of the table of proteins, int32, with their logits, float32; each (N,)."""

    rows: np.ndarray
    columns: np.ndarray
    logits: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, is_kept: np.ndarray) -> "Pairs":
        """The pairs that a mask or an order names."""
        return Pairs(self.rows[is_kept], self.columns[is_kept], self.logits[is_kept])


def concatenated(parts: Iterable[Pairs]) -> Pairs:
    """Pairs one after another."""
    found = [Pairs(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float32)), *parts]
    return Pairs(*(np.concatenate([getattr(part, name) for part in found]) for name in ("rows", "columns", "logits")))


class Selection:
    """What is worth keeping of the pairs scored so far.

    best_PK: the best logits of each protein, -inf where there are fewer; None where all from `least` up are kept.
    least: logit from which pairs are kept.
    margin: how far below what it takes a logit may be; above 0 where logits are estimates.
    is_symmetric: whether both proteins of a pair have a list of their best, or the one of the row alone.
    known_cuts_P: what `cuts` of another selection gave, which has seen other pairs of the same screen.
    """

    def __init__(
        self,
        *,
        num_proteins: int,
        top_k: int | None,
        least: float,
        margin: float,
        is_symmetric: bool,
        device: torch.device,
        known_cuts_P: Tensor | None = None,
    ) -> None:
        self.best_PK, self._known_cuts_P = None, known_cuts_P
        if top_k is not None:
            self.best_PK = torch.full((num_proteins, top_k), -torch.inf, device=device)
        self.least, self.margin, self.is_symmetric = least, margin, is_symmetric

    def cuts(self) -> Tensor | None:
        """Logit (P,) from which a pair could be among the best of a protein; None where there are no such lists."""
        if self.best_PK is None:
            return None
        cuts_P = self.best_PK.amin(dim=1) - self.margin
        return cuts_P if self._known_cuts_P is None else torch.maximum(cuts_P, self._known_cuts_P)

    def take_band(self, scores_RC: Tensor, *, rows: slice, columns: slice, pool: Executor) -> Pairs:
        """Learn from the logits of a band (-inf: no pair), and return those of its pairs that may be in the result."""
        num_rows, num_columns = scores_RC.shape
        if self.best_PK is not None:
            best_RK, best_CK = self.best_PK[rows], self.best_PK[columns]
            _in_parallel(pool, lambda part: _merge(best_RK[part], scores_RC[part]), num_rows, ROWS_AT_ONCE)
            if self.is_symmetric:
                take = partial(self._take_columns, best_CK, scores_RC)
                _in_parallel(pool, take, num_columns, COLUMNS_AT_ONCE)
        look = partial(self._kept, scores_RC, self.cuts(), rows, columns)
        return concatenated(_in_parallel(pool, look, num_rows, ROWS_AT_ONCE))

    def _take_columns(self, best_CK: Tensor, scores_RC: Tensor, part: slice) -> None:
        """Columns of a band that begins with its own rows; a protein with itself has been counted with the rows."""
        scores_CR = scores_RC[:, part].T.clone()
        if part.start < len(scores_RC):
            scores_CR.diagonal(offset=part.start).fill_(-torch.inf)
        _merge(best_CK[part], scores_CR)

    def _kept(self, scores_RC: Tensor, cuts_P: Tensor | None, rows: slice, columns: slice, part: slice) -> Pairs:
        scores = scores_RC[part]
        is_kept = scores >= max(self.least - self.margin, -torch.finfo(scores.dtype).max)
        if cuts_P is not None:
            is_best = scores >= cuts_P[rows][part][:, None]
            if self.is_symmetric:
                is_best |= scores >= cuts_P[columns]
            is_kept &= is_best
        places = is_kept.nonzero(as_tuple=True)
        first = (rows.start + part.start, columns.start)
        found, others = ((place.to(torch.int32) + start).cpu() for place, start in zip(places, first, strict=True))
        return Pairs(found.numpy(), others.numpy(), scores[places].cpu().numpy())

    def still_kept(self, pairs: Pairs) -> Pairs:
        """Those pairs that may be in the result by all that is known now."""
        cuts_P = self.cuts()
        if cuts_P is None:
            return pairs
        known_P = cuts_P.cpu().numpy()
        is_best = pairs.logits >= known_P[pairs.rows]
        if self.is_symmetric:
            is_best |= pairs.logits >= known_P[pairs.columns]
        return pairs.where(is_best)

    def learn(self, pairs: Pairs) -> None:
        """Know what was known when `take_band` returned these pairs, here or elsewhere; of each band once."""
        if self.best_PK is None:
            return
        top = TopPairs(self.best_PK.shape[1])
        top.add(pairs, is_symmetric=self.is_symmetric)
        best, ranks = top.ranked()
        proteins, places = np.unique(best.rows, return_inverse=True)
        new_NK = np.full((len(proteins), self.best_PK.shape[1]), -np.inf, dtype=np.float32)
        new_NK[places, ranks - 1] = best.logits
        rows = torch.from_numpy(proteins).long().to(self.best_PK.device)
        best_NK = self.best_PK[rows]
        _merge(best_NK, torch.from_numpy(new_NK).to(self.best_PK.device))
        self.best_PK[rows] = best_NK


class TopPairs:
    """The best pairs of each protein, from pairs added in any order; equal logits go by the partner's place."""

    def __init__(self, top_k: int) -> None:
        self._top_k = top_k
        self._kept: list[Pairs] = []
        self._num_new = 0

    def add(self, pairs: Pairs, *, is_symmetric: bool) -> None:
        """Add pairs to the list of the protein of the row; with `is_symmetric` to that of the column too."""
        self._kept.append(pairs)
        if is_symmetric:
            is_other = pairs.rows != pairs.columns
            self._kept.append(Pairs(pairs.columns, pairs.rows, pairs.logits).where(is_other))
        self._num_new += len(pairs)
        if self._num_new > BUFFERED_PAIRS:
            self._kept, self._num_new = [self.ranked()[0]], 0

    def ranked(self) -> tuple[Pairs, np.ndarray]:
        """The best pairs, protein by protein and best first, and the rank of each, from 1."""
        pairs = concatenated(self._kept)
        pairs = pairs.where(np.lexsort((pairs.columns, -pairs.logits, pairs.rows)))
        starts = np.flatnonzero(np.diff(pairs.rows, prepend=-1))
        sizes = np.diff(starts, append=len(pairs))
        ranks = np.arange(len(pairs)) - np.repeat(starts, sizes) + 1
        is_best = ranks <= self._top_k
        return pairs.where(is_best), ranks[is_best].astype(np.int32)


@torch.no_grad()
def _merge(best_NK: Tensor, scores_NC: Tensor) -> None:
    """Put the best of both in place of the first."""
    best_NK.copy_(torch.cat([best_NK, scores_NC], dim=1).topk(best_NK.shape[1], dim=1, sorted=False).values)


def _in_parallel(pool: Executor, work: Callable[[slice], Result], size: int, size_at_once: int) -> list[Result]:
    parts = [slice(start, min(start + size_at_once, size)) for start in range(0, size, size_at_once)]
    return list(pool.map(work, parts))
