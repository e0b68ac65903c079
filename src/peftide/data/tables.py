"""Tables from CSV, TSV, Parquet or FASTA: every cell as text, every row with its place in the file."""

import csv
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet

from peftide.data.fasta import iterate_fasta
from peftide.data.files import DELIMITERS, LONGEST_LINE, FileKind, Format, iterate_lines, opened, recognise
from peftide.data.findings import Findings, counted, listed, quoted, repeated
from peftide.errors import UserError


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
        return f"{self.path}, row {self.lines[row]}" if self.kind == "parquet" else f"{self.path}:{self.lines[row]}"


def read_table(path: str, *, findings: Findings) -> Table:
    """Read a whole file of any supported format; FASTA has the columns `id` and `sequence`.

    Cells are text exactly as written ("NA" stays "NA"; an empty cell and a Parquet null are ""). Rows of the wrong
    width are left out and become problems. Raises UserError where the file cannot be read, has no rows, or has two
    columns of one name.
    """
    file_format = recognise(path)
    if file_format.kind == "fasta":
        table = _read_fasta(path)
    elif file_format.kind == "parquet":
        table = _read_parquet(path, gzipped=file_format.gzipped, findings=findings)
    else:
        table = _read_text(path, file_format, findings=findings)
    if not len(table):
        findings.raise_problems(path)
        raise UserError(f"{path}: there are no rows below the header" if table.cells else f"{path}: the file is empty")
    return table


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


def _read_fasta(path: str) -> Table:
    lines, ids, sequences = zip(*iterate_fasta(path), strict=True)  # a recognised FASTA file has at least one header
    return Table(path=path, kind="fasta", cells={"id": ids, "sequence": sequences}, lines=lines)


def _iterate_records(path: str, file_format: Format) -> Iterator[tuple[int, list[str]]]:
    """Yield (line where it starts, fields) of each record that is not blank, quotes as in the csv standard."""
    if csv.field_size_limit() < LONGEST_LINE:
        csv.field_size_limit(LONGEST_LINE)  # the default, 131,072 characters, is shorter than some tables' cells
    lines = (line for _, line in iterate_lines(path, gzipped=file_format.gzipped))
    reader = csv.reader(lines, delimiter=DELIMITERS[file_format.kind], strict=True)
    start = 1
    try:
        for fields in reader:
            if fields:
                yield start, fields
            start = reader.line_num + 1
    except csv.Error as error:
        reasons = {
            "unexpected end": "a quote that is opened is never closed",
            "expected after": "text after a closing quote",
        }
        what = next((reason for words, reason in reasons.items() if words in str(error)), str(error))
        raise UserError(f"{path}:{start}: {what}; write a quote inside a quoted field twice") from error


def _read_text(path: str, file_format: Format, *, findings: Findings) -> Table:
    records = _iterate_records(path, file_format)
    _, header = next(records, (0, []))
    names = [name.strip() for name in header]
    _check_names(path, names)
    rows: list[list[str]] = []
    lines: list[int] = []
    ragged: dict[int, list[int]] = {}
    num_blank = 0
    for line, fields in records:
        if not any(fields):
            num_blank += 1
        elif len(fields) == len(names):
            rows.append(fields)
            lines.append(line)
        else:
            ragged.setdefault(len(fields), []).append(line)
    for number, where in ragged.items():
        what = f"{counted(number, 'field')} where the header has {len(names)}{repeated(where)}"
        findings.add("rows", f"{path}:{where[0]}: {what}; quote fields that hold the separator")
    if num_blank:
        findings.notes.append(f"{path}: {counted(num_blank, 'row')} without any value left out")
    columns = zip(*rows, strict=True) if rows else ((),) * len(names)
    cells = {name: column for name, column in zip(names, columns, strict=True) if name}
    return Table(path=path, kind=file_format.kind, cells=cells, lines=lines)


def _check_names(path: str, names: list[str]) -> None:
    twice = sorted(name for name, number in Counter(names).items() if name and number > 1)
    if twice:
        raise UserError(f"{path}: more than one column is named {listed(twice)}; rename all but one")


def _read_parquet(path: str, *, gzipped: bool, findings: Findings) -> Table:
    with opened(path, gzipped=gzipped) as stream:
        content = stream.read()
    try:
        frame = pyarrow.parquet.ParquetFile(pa.BufferReader(content), page_checksum_verification=True).read()
        _check_names(path, frame.column_names)
        columns = zip(frame.column_names, frame.columns, strict=True)
        cells = {name: _texts(column) for name, column in columns if name and _is_plain(column.type)}
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: damaged or unsupported Parquet data {quoted(str(error))}; write it again") from error
    others = [name for name in frame.column_names if name and name not in cells]
    if others:
        what = "columns that hold neither text, numbers nor truth values are not read"
        findings.notes.append(f"{path}: {what}: {listed(others)}")
    return Table(path=path, kind="parquet", cells=cells, lines=range(1, frame.num_rows + 1))


def _is_plain(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_integer)
    others = (pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal, pa.types.is_null)
    return any(test(kind) for test in tests + others)


def _texts(column: pa.ChunkedArray) -> list[str]:
    return [_text(value) for value in column.to_pylist()]


def _text(value: object) -> str:
    """A Parquet value as one would type it; whole numbers lose the `.0` that a missing neighbour gives them."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return str(value)
