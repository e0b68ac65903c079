"""White space around the cells of a column, and values that are missing: taken away and counted as the cells come."""

from peftide.data.files import FileKind
from peftide.data.findings import Findings, counted, repeated
from peftide.data.rows import place_of


class Trimming:
    """One column of a file while its cells are read; `tell` says what was found."""

    def __init__(self, column: str) -> None:
        self._column = column
        self._num_changed = self._num_empty = self._first_empty = 0

    def trim(self, line: int, cell: str) -> str:
        """The cell of a line (from 1) without white space around it."""
        text = cell.strip()
        if len(text) != len(cell):
            self._num_changed += 1
        if not text:
            self._first_empty = self._first_empty or line
            self._num_empty += 1
        return text

    def tell(self, path: str, kind: FileKind, *, findings: Findings) -> None:
        """The cells that were changed are counted in a note, the empty ones are a problem."""
        if self._num_changed:
            what = f"white space around {counted(self._num_changed, 'value')} of {self._column!r} removed"
            findings.notes.append(f"{path}: {what}")
        if self._num_empty:
            what = "a header without an id" if kind == "fasta" else f"no value in column {self._column!r}"
            what += f"{repeated(range(self._num_empty))}; fill it in or remove the row"
            findings.add("empty cells", f"{place_of(path, kind, self._first_empty)}: {what}")
