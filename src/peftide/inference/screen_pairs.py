"""Which pairs a screen has: all of one set of proteins, or one set against another, cut into bands of rows.

Shapes: R rows and C columns of a band.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from peftide.errors import raise_problems
from peftide.records import Proteins

MOST_ROWS, FEWEST_ROWS = 512, 32  # of a band
MOST_SCORES = 1 << 26  # of a band where that leaves it the fewest rows: 256 MiB


@dataclass(frozen=True)
class PairSpace:
    """The pairs of rows and columns of one table of proteins.

    num_rows, first_column, num_proteins: rows are the first `num_rows`, columns those from `first_column` to the end.
    twins_C: for each column the row of the same protein, -1 where there is none; None where the two sets are one.
    self_pairs: whether a protein is paired with itself.
    both_orders: whether, of two sets that share proteins, a pair of shared ones is taken in both orders.
    """

    num_rows: int
    first_column: int
    num_proteins: int
    twins_C: np.ndarray | None
    self_pairs: bool
    both_orders: bool

    @property
    def is_symmetric(self) -> bool:
        """Whether rows and columns are the same proteins, so that each pair is looked at once for both."""
        return self.twins_C is None

    @property
    def num_pairs(self) -> int:
        """How many pairs there are."""
        if self.twins_C is None:
            return self.num_rows * (self.num_rows - 1) // 2 + self.num_rows * self.self_pairs
        num_shared = int((self.twins_C >= 0).sum())
        left_out = 0 if self.self_pairs else num_shared
        if not self.both_orders:
            left_out += num_shared * (num_shared - 1) // 2
        return self.num_rows * len(self.twins_C) - left_out

    def num_pairs_of(self, rows: slice, columns: slice) -> float:
        """How many pairs a band has; of two sets with shared proteins, its share of them."""
        num_rows, num_columns = rows.stop - rows.start, columns.stop - columns.start
        if self.is_symmetric:
            return num_rows * (num_columns - num_rows) + num_rows * (num_rows - 1) // 2 + num_rows * self.self_pairs
        return self.num_pairs * num_rows / self.num_rows

    def bands(self) -> Iterator[tuple[slice, slice]]:
        """Rows and columns of each band; of one set only the columns from the band's own first row."""
        num_columns = self.num_proteins - self.first_column
        num_rows = min(MOST_ROWS, max(FEWEST_ROWS, MOST_SCORES // num_columns))
        for start in range(0, self.num_rows, num_rows):
            rows = slice(start, min(start + num_rows, self.num_rows))
            yield rows, slice(rows.start if self.is_symmetric else self.first_column, self.num_proteins)

    def leave_out(self, scores_RC: Tensor, rows: slice, columns: slice) -> None:
        """Put -inf where a band has no pair: the other order of one, or a protein with itself."""
        num_rows = len(scores_RC)
        if self.twins_C is None:
            square_RR = scores_RC[:, :num_rows]
            lower = torch.ones_like(square_RR, dtype=torch.bool).tril(-1 if self.self_pairs else 0)
            square_RR.masked_fill_(lower, -torch.inf)
            return
        twins_C = torch.from_numpy(self.twins_C)
        if not self.self_pairs:
            (own,) = torch.nonzero((twins_C >= rows.start) & (twins_C < rows.stop), as_tuple=True)
            scores_RC[twins_C[own] - rows.start, own] = -torch.inf
        if not self.both_orders:
            numbers_R = torch.arange(rows.start, rows.stop)
            (shared,) = torch.nonzero(torch.isin(numbers_R, twins_C), as_tuple=True)
            is_other = (twins_C >= 0) & (twins_C < numbers_R[shared, None])
            scores_RC[shared] = scores_RC[shared].masked_fill(is_other.to(scores_RC.device), -torch.inf)


def pair_space(
    proteins: Proteins, others: Proteins | None, *, self_pairs: bool, both_orders: bool
) -> tuple[PairSpace, Proteins]:
    """The pairs of `proteins`, or of these with `others`, and the one table of proteins that they are rows of.

    Raises UserError that lists the ids that the two sets give to different sequences.
    """
    num_rows = len(proteins)
    if others is None:
        return PairSpace(num_rows, 0, num_rows, None, self_pairs, both_orders), proteins
    row_of = {name: row for row, name in enumerate(proteins.ids)}
    twins_C = np.array([row_of.get(name, -1) for name in others.ids])
    raise_problems(
        "the two sets name different proteins alike",
        [
            f"{name!r} has another sequence in the set to screen against; give each sequence its own id"
            for name, sequence, row in zip(others.ids, others.sequences, twins_C.tolist(), strict=True)
            if row >= 0 and proteins.sequences[row] != sequence
        ],
    )
    table = Proteins(proteins.ids + others.ids, proteins.sequences + others.sequences)
    return PairSpace(num_rows, num_rows, len(table), twins_C, self_pairs, both_orders), table
