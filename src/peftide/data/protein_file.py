"""A file of proteins of any size: read one protein after another, and in portions of consecutive ones."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from peftide.data.columns import MemberColumns
from peftide.data.findings import Findings
from peftide.data.portions import Outline, Portion, record_digest, rows_digest
from peftide.data.rows import Header, iterate_rows
from peftide.data.sequences import Cleaned, clean_sequence, sequence_id
from peftide.errors import UserError


@dataclass(frozen=True)
class Row:
    """A protein as it stands in a file. raw_name: its id as written, None where the file has no column of ids."""

    line: int
    raw_name: str | None
    raw_sequence: str

    def cleaned(self) -> tuple[str, Cleaned]:
        """Its name (without a column of ids, one made of its sequence) and its cleaned sequence."""
        found = clean_sequence(self.raw_sequence)
        return sequence_id(found.sequence) if self.raw_name is None else self.raw_name.strip(), found


@dataclass(frozen=True)
class ProteinFile:
    """Where proteins stand: a file, and its columns of ids (None: there is none) and sequences."""

    header: Header
    columns: MemberColumns

    def rows(self, *, findings: Findings) -> Iterator[Row]:
        """Every row; what is wrong with the rows of a table is in the findings at the end."""
        assert self.columns.sequence is not None
        wanted = [self.columns.sequence] if self.columns.id is None else [self.columns.id, self.columns.sequence]
        for line, cells in iterate_rows(self.header, wanted, findings=findings):
            yield Row(line, None if self.columns.id is None else cells[0], cells[-1])


@dataclass(frozen=True)
class CheckedFile:
    """A file in which nothing was wrong when it was checked. repeats: rows to leave out, in rising order."""

    file: ProteinFile
    outlines: tuple[Outline, ...]
    repeats: np.ndarray

    @property
    def num_proteins(self) -> int:
        """Proteins in the portions."""
        return sum(outline.num_rows for outline in self.outlines) - len(self.repeats)

    def portions(self, *, is_done: Callable[[Outline], bool] = lambda outline: False) -> Iterator[Portion]:
        """Read the file again: the portions that are not done, in order.

        Raises UserError where one of them is not what it was when it was checked.
        """
        rows = self.file.rows(findings=Findings())
        for outline in self.outlines:
            taken = list(islice(rows, outline.num_rows))
            if len(taken) != outline.num_rows:
                raise self._changed()
            if not is_done(outline):
                yield self._portion(outline, taken)
        if next(rows, None) is not None:
            raise self._changed()

    def _portion(self, outline: Outline, rows: list[Row]) -> Portion:
        proteins = [(name, found.sequence) for name, found in (row.cleaned() for row in rows)]
        if rows_digest(record_digest(name, sequence) for name, sequence in proteins) != outline.digest:
            raise self._changed()
        first, last = np.searchsorted(self.repeats, [outline.first_row, outline.first_row + outline.num_rows])
        for row in reversed((self.repeats[first:last] - outline.first_row).tolist()):
            del proteins[row]
        return Portion(outline.number, outline.digest, tuple(n for n, _ in proteins), tuple(s for _, s in proteins))

    def _changed(self) -> UserError:
        return UserError(f"{self.file.header.path}: was changed while it was read; run the command again")
