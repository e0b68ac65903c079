"""Rows of a table or records of FASTA one after another, with memory that does not grow with the file."""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet

from peftide.data.fasta import iterate_fasta
from peftide.data.files import DELIMITERS, LONGEST_LINE, FileKind, Format, iterate_lines, opened, recognise
from peftide.data.findings import Findings, counted, listed, quoted, repeated
from peftide.errors import UserError

Row = tuple[int, tuple[str, ...]]  # its line (in Parquet, which has none, its number from 1) and its cells
ROWS_AT_ONCE = 1024  # of a Parquet file
BUFFER_BYTES = 1 << 20  # of a Parquet column read at once


@dataclass(frozen=True)
class Header:
    """What is known of a file before its first row; names: of the columns that can be read."""

    path: str
    file_format: Format
    names: tuple[str, ...]

    def place(self, line: int) -> str:
        """`file:line`, or `file, row 3` in Parquet."""
        return place_of(self.path, self.file_format.kind, line)


def place_of(path: str, kind: FileKind, line: int) -> str:
    """`file:line`, or `file, row 3` in Parquet."""
    return f"{path}, row {line}" if kind == "parquet" else f"{path}:{line}"


def read_header(path: str, *, findings: Findings) -> Header:
    """The format of a file and the names of its columns; FASTA has `id` and `sequence`.

    Raises UserError where the file cannot be read or has two columns of one name.
    """
    file_format = recognise(path)
    if file_format.kind == "fasta":
        return Header(path, file_format, ("id", "sequence"))
    if file_format.kind == "parquet":
        return Header(path, file_format, _parquet_names(path, file_format, findings=findings))
    _, fields = next(_iterate_records(path, file_format), (0, []))
    names = [name.strip() for name in fields]
    _check_names(path, names)
    return Header(path, file_format, tuple(name for name in names if name))


def iterate_rows(header: Header, names: Sequence[str], *, findings: Findings) -> Iterator[Row]:
    """Yield the line of every row and its cells in the columns `names`.

    Cells are text exactly as written ("NA" stays "NA"; an empty cell and a Parquet null are ""). Rows of the wrong
    width are left out, and are problems in `findings` when the last row has been read. Raises UserError where the file
    cannot be read to its end, has no rows, or has lost a column since its header was read.
    """
    readers = {"fasta": _iterate_fasta, "parquet": _iterate_parquet}
    is_empty = True
    for row in readers.get(header.file_format.kind, _iterate_text)(header, names, findings):
        is_empty = False
        yield row
    if is_empty:
        findings.raise_problems(header.path)
        what = "there are no rows below the header" if header.names else "the file is empty"
        raise UserError(f"{header.path}: {what}")


def _iterate_fasta(header: Header, names: Sequence[str], findings: Findings) -> Iterator[Row]:
    places = _places(header, header.names, names)
    for line, *cells in iterate_fasta(header.path):
        yield line, tuple(cells[place] for place in places)


def _iterate_text(header: Header, names: Sequence[str], findings: Findings) -> Iterator[Row]:
    records = _iterate_records(header.path, header.file_format)
    _, first = next(records, (0, []))
    places = _places(header, [name.strip() for name in first], names)
    ragged: dict[int, tuple[int, int]] = {}  # by number of fields: the first line, and how many
    num_blank = 0
    for line, fields in records:
        if not any(fields):
            num_blank += 1
        elif len(fields) == len(first):
            yield line, tuple([fields[place] for place in places])
        else:
            start, number = ragged.get(len(fields), (line, 0))
            ragged[len(fields)] = start, number + 1
    for width, (line, number) in ragged.items():
        what = f"{counted(width, 'field')} where the header has {len(first)}{repeated(range(number))}"
        findings.add("rows", f"{header.path}:{line}: {what}; quote fields that hold the separator")
    if num_blank:
        findings.notes.append(f"{header.path}: {counted(num_blank, 'row')} without any value left out")


def _places(header: Header, there: Sequence[str], names: Sequence[str]) -> list[int]:
    if missing := [name for name in names if name not in there]:
        raise UserError(f"{header.path}: lost its column {listed(missing)} while it was read; run the command again")
    return [there.index(name) for name in names]


def _swallows_rows(field: str, num_columns: int) -> bool:
    """Whether a quoted cell holds as many tabs as the rows that it runs over have: two stray quotes in one column."""
    num_lines = field.count("\n")
    return num_lines > 0 and num_columns > 1 and field.count("\t") == num_lines * (num_columns - 1)


def _iterate_records(path: str, file_format: Format) -> Iterator[tuple[int, list[str]]]:
    """Yield (line where it starts, fields) of each record that is not blank, quotes as in the csv standard."""
    if csv.field_size_limit() < LONGEST_LINE:
        csv.field_size_limit(LONGEST_LINE)  # the default, 131,072 characters, is shorter than some tables' cells
    lines = (line for _, line in iterate_lines(path, gzipped=file_format.gzipped))
    reader = csv.reader(lines, delimiter=DELIMITERS[file_format.kind], strict=True)
    start = 1
    try:
        for fields in reader:
            if file_format.kind == "tsv" and any(_swallows_rows(field, len(fields)) for field in fields):
                raise UserError(
                    f"{path}:{start}: a cell that begins with a quote runs on to line {reader.line_num}, over the "
                    "columns between; write the quote inside a quoted cell twice, or remove it"
                )
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


def _check_names(path: str, names: Sequence[str]) -> None:
    twice = sorted(name for name, number in Counter(names).items() if name and number > 1)
    if twice:
        raise UserError(f"{path}: more than one column is named {listed(twice)}; rename all but one")


def _parquet_names(path: str, file_format: Format, *, findings: Findings) -> tuple[str, ...]:
    with _parquet(path, file_format) as file:
        schema = file.schema_arrow
    _check_names(path, schema.names)
    names = tuple(field.name for field in schema if field.name and _is_plain(field.type))
    others = [name for name in schema.names if name and name not in names]
    if others:
        what = "columns that hold neither text, numbers nor truth values are not read"
        findings.notes.append(f"{path}: {what}: {listed(others)}")
    return names


def _iterate_parquet(header: Header, names: Sequence[str], findings: Findings) -> Iterator[Row]:
    with _parquet(header.path, header.file_format) as file:
        _places(header, file.schema_arrow.names, names)
        if not names:
            yield from ((number, ()) for number in range(1, file.metadata.num_rows + 1))
            return
        first = 1
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=list(dict.fromkeys(names)), use_threads=False):
            columns = [batch.column(batch.schema.get_field_index(name)).to_pylist() for name in names]
            for line, cells in enumerate(zip(*columns, strict=True), start=first):
                yield line, tuple([_text(cell) for cell in cells])
            first += batch.num_rows


@contextmanager
def _parquet(path: str, file_format: Format) -> Iterator[pyarrow.parquet.ParquetFile]:
    """The open file; gzipped, it is unpacked into memory. What cannot be read of it is a UserError."""
    with opened(path, gzipped=file_format.gzipped) as stream:  # not by its name, which pyarrow wants in UTF-8
        source = pa.BufferReader(stream.read()) if file_format.gzipped else pa.PythonFile(stream, "r")
        try:
            with pyarrow.parquet.ParquetFile(
                source, page_checksum_verification=True, pre_buffer=False, buffer_size=BUFFER_BYTES
            ) as file:
                yield file
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            what = quoted(str(error))
            raise UserError(f"{path}: damaged or unsupported Parquet data {what}; write it again") from error


def _is_plain(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_integer)
    tests += (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    others = (pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal, pa.types.is_null)
    return any(test(kind) for test in tests + others)


def _text(value: object) -> str:
    """A Parquet value as one would type it; whole numbers lose the `.0` that a missing neighbour gives them."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bytes):  # what some programs write for text
        return value.decode("utf-8", errors="backslashreplace")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return str(value)
