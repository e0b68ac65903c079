"""Embeddings to a file: HDF5 or Parquet, written aside and moved into place when whole.

HDF5: one dataset per protein named by its id, (D,) or (L, D) float32 (the layout of bio_embeddings and D-SCRIPT).
Parquet: columns id and embedding (a list of floats); per residue a row per residue with its 1-based position.
"""

import io
from collections.abc import Iterable
from pathlib import Path

import h5py
import pyarrow as pa
import pyarrow.parquet as pq

from peftide.data.writers import aside_of, check_place, in_groups
from peftide.errors import UserError
from peftide.inference.embedding_tables import SCHEMA, embeddings_of

SUFFIXES = (".h5", ".hdf5", ".parquet")
GROUP_BYTES = 1 << 25  # of a Parquet row group, about


def check_embedding_path(out: str) -> None:
    """Raise UserError for a file that cannot be written, before hours of work."""
    path = Path(out)
    if path.suffix not in SUFFIXES:
        raise UserError(f"{out}: embeddings are written as .h5 or .parquet; give --out such a name")
    check_place(path)


def is_unfit(out: str, name: str) -> bool:
    """Whether the file cannot hold an embedding of this id."""
    return Path(out).suffix != ".parquet" and ("/" in name or name in (".", ".."))


def write_embeddings(out: str, tables: Iterable[pa.Table], attributes: dict[str, str], *, within: Path) -> None:
    """Write tables of embeddings one after another; `attributes` say what made them; within: see `aside_of`."""
    path = Path(out)
    with aside_of(path, within=within) as fresh:
        if path.suffix == ".parquet":
            _write_parquet(fresh, tables, attributes)
        else:
            _write_hdf5(fresh, tables, attributes)


class _Sink:
    """A file for HDF5 that remembers why the first write failed, and takes no further ones.

    The library itself, where the disk is full, can neither go on nor close its file: it prints tracebacks and ends in
    a bus error.
    """

    def __init__(self, stream: io.FileIO) -> None:
        self.seek, self.tell, self.read, self.readinto = stream.seek, stream.tell, stream.read, stream.readinto
        self._stream = stream
        self._error: OSError | None = None

    def write(self, content: memoryview) -> int:
        """Write all of it; the number of bytes."""
        view = memoryview(content).cast("B")
        try:
            while self._error is None and view:
                view = view[self._stream.write(view) :]
        except OSError as error:
            self._error = error
        return memoryview(content).nbytes

    def truncate(self, size: int) -> int:
        """Make it so long."""
        try:
            if self._error is None:
                self._stream.truncate(size)
        except OSError as error:
            self._error = error
        return size

    def flush(self) -> None:
        """Nothing is held back."""

    def check(self) -> None:
        """Raise the OSError of the first write that failed."""
        if self._error is not None:
            raise self._error


def _write_hdf5(path: Path, tables: Iterable[pa.Table], attributes: dict[str, str]) -> None:
    with open(path, "w+b", buffering=0) as stream:
        sink, number = _Sink(stream), 0
        with h5py.File(sink, "w") as file:
            file.attrs.update(attributes)
            for table in tables:
                for name, values in embeddings_of(table):
                    file.create_dataset(name, data=values).attrs["position"] = number
                    number += 1
                sink.check()
        sink.check()


def _write_parquet(path: Path, tables: Iterable[pa.Table], attributes: dict[str, str]) -> None:
    schema = SCHEMA.with_metadata({name.encode(): value.encode() for name, value in attributes.items()})
    with open(path, "wb") as stream, pq.ParquetWriter(stream, schema) as writer:
        for group in in_groups(tables, lambda parts: sum(part.nbytes for part in parts) >= GROUP_BYTES):
            writer.write_table(group.cast(schema), row_group_size=len(group))
