"""A file of proteins of any size: read one protein after another, and in windows of consecutive ones."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from peftide.data.columns import MemberColumns
from peftide.data.findings import Findings
from peftide.data.rows import Header, iterate_rows
from peftide.data.sequences import Cleaned, clean_sequence, sequence_id
from peftide.data.windows import Span, Window, record_digest, rows_digest
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
    spans: tuple[Span, ...]
    repeats: np.ndarray

    @property
    def num_proteins(self) -> int:
        """Proteins in the windows."""
        return sum(span.num_rows for span in self.spans) - len(self.repeats)

    def windows(self, *, is_done: Callable[[Span], bool] = lambda span: False) -> Iterator[Window]:
        """Read the file again: the windows that are not done, in order.

        Raises UserError where one of them is not what it was when it was checked.
        """
        rows = self.file.rows(findings=Findings())
        for span in self.spans:
            taken = list(islice(rows, span.num_rows))
            if len(taken) != span.num_rows:
                raise self._changed()
            if not is_done(span):
                yield self._window(span, taken)
        if next(rows, None) is not None:
            raise self._changed()

    def _window(self, span: Span, rows: list[Row]) -> Window:
        proteins = [(name, found.sequence) for name, found in (row.cleaned() for row in rows)]
        if rows_digest(record_digest(name, sequence) for name, sequence in proteins) != span.digest:
            raise self._changed()
        first, last = np.searchsorted(self.repeats, [span.first_row, span.first_row + span.num_rows])
        for row in reversed((self.repeats[first:last] - span.first_row).tolist()):
            del proteins[row]
        return Window(span.number, span.digest, tuple(n for n, _ in proteins), tuple(s for _, s in proteins))

    def _changed(self) -> UserError:
        return UserError(f"{self.file.header.path}: was changed while it was read; run the command again")
