"""Tables from CSV, TSV, Parquet or FASTA: every cell as text, every row with its place in the file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from peftide.data.files import FileKind
from peftide.data.findings import Findings
from peftide.data.rows import Header, iterate_rows, place_of, read_header
from peftide.data.trimming import Trimming


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
    trimming = Trimming(column)
    texts = [trimming.trim(line, cell) for line, cell in zip(table.lines, table.cells[column], strict=True)]
    trimming.tell(table.path, table.kind, findings=findings)
    return texts


def rowless_table(header: Header) -> Table:
    """The columns of a file whose rows are not read yet."""
    return Table(header.path, header.file_format.kind, dict.fromkeys(header.names, ()), ())
