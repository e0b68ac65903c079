"""Tables from CSV, TSV, Parquet or FASTA: every cell as text, every row with its place in the file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from peftide.data.files import FileKind
from peftide.data.findings import Findings, counted, repeated
from peftide.data.rows import Header, iterate_rows, place_of, read_header


@dataclass(frozen=True)
class Table:
    """Named columns of text; `lines` holds the line of each row, or its number where the file has no lines."""

    path: str
    kind: FileKind
    cells: Mapping[str, Sequence[str]]
    lines: Sequence[int]

    def __len__(self) -> int:
        return len(self.lines)

    def place(self, row: int) -> str:
        """`file:line` of a row counted from 0 (`file, row 3` in Parquet, which has no lines)."""
        return place_of(self.path, self.kind, self.lines[row])


def read_table(path: str, *, findings: Findings) -> Table:
    """Read a whole file of any supported format; FASTA has the columns `id` and `sequence`.

    Cells are text exactly as written ("NA" stays "NA"; an empty cell and a Parquet null are ""). Rows of the wrong
    width are left out and become problems. Raises UserError where the file cannot be read, has no rows, or has two
    columns of one name.
    """
    header = read_header(path, findings=findings)
    lines, rows = zip(*iterate_rows(header, header.names, findings=findings), strict=True)
    cells = dict(zip(header.names, zip(*rows, strict=True), strict=True))
    return Table(path=path, kind=header.file_format.kind, cells=cells, lines=lines)


def trimmed(table: Table, column: str, *, findings: Findings) -> list[str]:
    """The cells of a column without white space around them; those changed are counted, empty ones are problems."""
    cells = table.cells[column]
    texts = [cell.strip() for cell in cells]
    num_changed = sum(text != cell for text, cell in zip(texts, cells, strict=True))
    if num_changed:
        findings.notes.append(f"{table.path}: white space around {counted(num_changed, 'value')} of {column!r} removed")
    empty = [row for row, text in enumerate(texts) if not text]
    if empty:
        what = "a header without an id" if table.kind == "fasta" else f"no value in column {column!r}"
        findings.add("empty cells", f"{table.place(empty[0])}: {what}{repeated(empty)}; fill it in or remove the row")
    return texts


def rowless_table(header: Header) -> Table:
    """The columns of a file whose rows are not read yet."""
    return Table(header.path, header.file_format.kind, dict.fromkeys(header.names, ()), ())
