"""Tables out: TSV, CSV or Parquet, plain or gzipped, written aside and renamed."""

import csv
import gzip
import io
import json
import os
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from peftide.data.files import DELIMITERS, KINDS
from peftide.errors import UserError, unwritable

GROUP_ROWS = 1 << 16  # of a Parquet row group that is written in chunks, about

Columns = Mapping[str, Sequence[object] | np.ndarray]


def write_table(path: str | Path, columns: Columns) -> None:
    """Write named columns of equal length; the suffix of `path` says the format.

    Text formats write numbers in the fewest digits that read back to the same value, and None as an empty cell. The
    file appears complete or not at all. Raises UserError for an unknown suffix, a missing folder or an unwritable
    place.
    """
    write_rows(path, [columns])


def write_rows(path: str | Path, chunks: Iterable[Columns], *, within: Path | None = None) -> None:
    """As `write_table`, from chunks with the same columns, one at least, which are written one after another.

    within: see `aside_of`.
    """
    path = Path(path)
    kind, gzipped = _table_format(path)
    with _written_aside(path, within=within) as stream:
        # No name and no time inside, so that equal tables make equal files.
        target = gzip.GzipFile(filename="", fileobj=stream, mode="wb", mtime=0) if gzipped else stream
        if kind == "parquet":
            _write_parquet(target, iter(chunks))
        else:
            _write_cells(target, iter(chunks), delimiter=DELIMITERS[kind])
        if gzipped:
            target.close()


def check_table_path(path: str | Path) -> None:
    """Raise the UserError for an unknown suffix or a missing folder that `write_table` would, before the work."""
    _table_format(Path(path))
    check_place(path)


def _table_format(path: Path) -> tuple[Literal["csv", "tsv", "parquet"], bool]:
    """What to write by the suffix of the name, and whether gzipped."""
    gzipped = path.suffix.lower() == ".gz"
    kind = KINDS.get(Path(path.stem if gzipped else path.name).suffix.lower())
    if kind not in ("csv", "tsv", "parquet"):
        raise UserError(f"{path}: name a table to write .tsv, .csv or .parquet, each also with .gz")
    return kind, gzipped


def check_not_input(out: str | Path, *inputs: str | None) -> None:
    """Raise UserError where the file to write is one of those to read."""
    for path in inputs:
        if path is not None and os.path.exists(path) and os.path.exists(out) and os.path.samefile(path, out):
            raise UserError(f"{out}: is a file to be read ({path}), and would be overwritten; name another to write")


def check_names_free(folder: str | Path, names: Iterable[str], *inputs: str | None) -> None:
    """Raise UserError where a file to read is one of those that will be written into the folder."""
    for name in names:
        check_not_input(Path(folder) / name, *inputs)


def check_place(path: str | Path) -> None:
    """Raise UserError where no file of this name can be written, before the work whose result it shall hold."""
    path = Path(path)
    try:
        if not path.parent.is_dir():
            raise UserError(f"{path}: there is no folder {path.parent}; make it first")
        if _is_folder(path):
            raise UserError(f"{path}: is a folder; name a file to write")
        if not os.access(path.parent, os.W_OK):
            raise UserError(f"{path}: the folder {path.parent} cannot be written to; choose another")
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be written ({_reason(error)})") from error


def _is_folder(path: Path) -> bool:
    """As `Path.is_dir`, but for links in a circle, names that are too long and the like an OSError."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except FileNotFoundError:
        return False


def check_folder_place(folder: str | Path) -> None:
    """Raise UserError where no folder of this name is, or can be made, to write into."""
    folder = Path(folder)
    try:
        nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        is_usable = nearest.is_dir() and os.access(nearest, os.W_OK)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: cannot be a folder to write into ({_reason(error)})") from error
    if not is_usable:
        raise UserError(f"{folder}: cannot be a folder to write into, because of {nearest}; choose another")


def make_folder(folder: str | Path) -> Path:
    """The folder, made where it is not there; UserError where that fails."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    return Path(folder)


@contextmanager
def temporary_folder(*, what: str) -> Iterator[Path]:
    """A folder that is gone when the block ends; what: a word for its use ("probe"). UserError where none can be."""
    try:
        folder = tempfile.TemporaryDirectory(prefix=f"peftide-{what}-")
    except OSError as error:
        mend = "make room there, or name another folder in the environment as TMPDIR"
        raise UserError(f"no folder for temporary files can be made ({error}); {mend}") from error
    with folder as path:
        yield Path(path)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def write_json(path: str | Path, document: Mapping[str, object]) -> None:
    """Write a document; the file appears complete or not at all. Raises UserError as `write_table` does."""
    write_text(path, json.dumps(document, indent=2, allow_nan=False))


def write_text(path: str | Path, text: str) -> None:
    """Write a text; the file appears complete or not at all. Raises UserError as `write_table` does."""
    with _written_aside(Path(path)) as stream:
        stream.write(text.encode("utf-8", "backslashreplace"))  # names of files need not be UTF-8


def in_groups(tables: Iterable[pa.Table], is_full: Callable[[list[pa.Table]], bool]) -> Iterator[pa.Table]:
    """The same rows in larger tables, none of them without rows; is_full: whether some tables are enough for one."""
    held: list[pa.Table] = []
    for table in tables:
        if len(table):
            held.append(table)
        if held and is_full(held):
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)


def _write_parquet(stream: IO[bytes] | gzip.GzipFile, chunks: Iterator[Columns]) -> None:
    tables = (pa.table({name: pa.array(column) for name, column in columns.items()}) for columns in chunks)
    first = next(tables)
    with pyarrow.parquet.ParquetWriter(stream, first.schema) as writer:
        for group in in_groups(chain([first], tables), lambda held: sum(map(len, held)) >= GROUP_ROWS):
            writer.write_table(group)


def _write_cells(stream: IO[bytes] | gzip.GzipFile, chunks: Iterator[Columns], *, delimiter: str) -> None:
    text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    for number, columns in enumerate(chunks):
        if number == 0:
            writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    text.flush()
    text.detach()


@contextmanager
def _written_aside(path: Path, *, within: Path | None = None) -> Iterator[IO[bytes]]:
    with aside_of(path, within=within) as fresh, open(fresh, "xb") as stream:
        yield stream


@contextmanager
def aside_of(path: Path, *, within: Path | None = None) -> Iterator[Path]:
    """A name beside `path` to write to, moved to `path` when the block ends well, and removed when it does not.

    within: a folder on the same disk that only this process uses, to write in instead; what a killed process left
    there is removed. Raises UserError where `path` cannot be written.
    """
    check_place(path)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part") if within is None else within / "result"
    try:
        try:
            fresh.unlink(missing_ok=True)
            yield fresh
            os.replace(fresh, path)
        finally:
            if os.path.exists(fresh):
                os.unlink(fresh)
    except OSError as error:
        raise unwritable(path, error, goes_on=within is not None) from error
