"""Embeddings to a file: HDF5 or Parquet, written aside and moved into place when whole.

HDF5: one dataset per protein named by its id, (D,) or (L, D) float32 (the layout of bio_embeddings and D-SCRIPT).
Parquet: columns id and embedding (a list of floats); per residue a row per residue with its 1-based position.
"""

from collections.abc import Iterable
from pathlib import Path

import h5py
import pyarrow as pa
import pyarrow.parquet as pq

from peftide.data.writers import aside_of, check_place
from peftide.errors import UserError
from peftide.inference.embedding_tables import SCHEMA, embeddings_of
from peftide.inference.table_parts import in_groups

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


def write_embeddings(out: str, tables: Iterable[pa.Table], attributes: dict[str, str]) -> None:
    """Write tables of embeddings one after another; `attributes` say what made them."""
    path = Path(out)
    with aside_of(path) as fresh:
        if path.suffix == ".parquet":
            _write_parquet(fresh, tables, attributes)
        else:
            _write_hdf5(fresh, tables, attributes)


def _write_hdf5(path: Path, tables: Iterable[pa.Table], attributes: dict[str, str]) -> None:
    with h5py.File(path, "w") as file:
        file.attrs.update(attributes)
        embeddings = (embedding for table in tables for embedding in embeddings_of(table))
        for number, (name, values) in enumerate(embeddings):
            file.create_dataset(name, data=values).attrs["position"] = number


def _write_parquet(path: Path, tables: Iterable[pa.Table], attributes: dict[str, str]) -> None:
    schema = SCHEMA.with_metadata({name.encode(): value.encode() for name, value in attributes.items()})
    with pq.ParquetWriter(path, schema) as writer:
        for group in in_groups(tables, lambda parts: sum(part.nbytes for part in parts) >= GROUP_BYTES):
            writer.write_table(group.cast(schema), row_group_size=len(group))
