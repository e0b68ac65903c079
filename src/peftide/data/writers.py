"""Tables out: TSV, CSV or Parquet, plain or gzipped, written aside and renamed."""

import csv
import gzip
import io
import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from peftide.data.files import DELIMITERS, KINDS
from peftide.errors import UserError


def write_table(path: str | Path, columns: Mapping[str, Sequence[object] | np.ndarray]) -> None:
    """Write named columns of equal length; the suffix of `path` says the format.

    Text formats write numbers in the fewest digits that read back to the same value, and None as an empty cell. The
    file appears complete or not at all. Raises UserError for an unknown suffix, a missing folder or an unwritable
    place.
    """
    path = Path(path)
    assert len({len(column) for column in columns.values()}) <= 1, "columns of different lengths"
    kind, gzipped = _table_format(path)
    with _written_aside(path) as stream:
        # No name and no time inside, so that equal tables make equal files.
        target = gzip.GzipFile(filename="", fileobj=stream, mode="wb", mtime=0) if gzipped else stream
        if kind == "parquet":
            pyarrow.parquet.write_table(pa.table({name: pa.array(column) for name, column in columns.items()}), target)
        else:
            _write_cells(target, columns, delimiter=DELIMITERS[kind])
        if gzipped:
            target.close()


def check_table_path(path: str | Path) -> None:
    """Raise the UserError for an unknown suffix or a missing folder that `write_table` would, before the work."""
    _table_format(Path(path))
    _check_place(Path(path))


def _table_format(path: Path) -> tuple[Literal["csv", "tsv", "parquet"], bool]:
    """What to write by the suffix of the name, and whether gzipped."""
    gzipped = path.suffix.lower() == ".gz"
    kind = KINDS.get(Path(path.stem if gzipped else path.name).suffix.lower())
    if kind not in ("csv", "tsv", "parquet"):
        raise UserError(f"{path}: name a table to write .tsv, .csv or .parquet, each also with .gz")
    return kind, gzipped


def _check_place(path: Path) -> None:
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name a file to write")
    if not path.parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}; make it first")


def write_json(path: str | Path, document: Mapping[str, object]) -> None:
    """Write a document; the file appears complete or not at all. Raises UserError as `write_table` does."""
    write_text(path, json.dumps(document, indent=2, allow_nan=False))


def write_text(path: str | Path, text: str) -> None:
    """Write a text; the file appears complete or not at all. Raises UserError as `write_table` does."""
    with _written_aside(Path(path)) as stream:
        stream.write(text.encode())


def _write_cells(
    stream: IO[bytes] | gzip.GzipFile, columns: Mapping[str, Sequence[object] | np.ndarray], *, delimiter: str
) -> None:
    text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    text.flush()
    text.detach()


@contextmanager
def _written_aside(path: Path) -> Iterator[IO[bytes]]:
    """A new file beside `path`, renamed to it when the block ends well and removed when it does not."""
    _check_place(path)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(aside, "xb") as stream:
            yield stream
        os.replace(aside, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        if os.path.exists(aside):
            os.unlink(aside)
