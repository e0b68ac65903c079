"""Embeddings to a file: HDF5 or Parquet, written aside and moved into place when whole.

HDF5: one dataset per protein named by its id, (D,) or (L, D) float32 (the layout of bio_embeddings and D-SCRIPT).
Parquet: columns id and embedding (a list of floats); per residue a row per residue with its 1-based position.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from peftide.data.writers import aside_of, check_place
from peftide.errors import UserError

SUFFIXES = (".h5", ".hdf5", ".parquet")


def check_embedding_path(out: str, ids: Sequence[str]) -> None:
    """Raise UserError for a file or ids that cannot be written, before hours of work."""
    path = Path(out)
    if path.suffix not in SUFFIXES:
        raise UserError(f"{out}: embeddings are written as .h5 or .parquet; give --out such a name")
    check_place(path)
    if path.suffix != ".parquet" and (slashed := [name for name in ids if "/" in name or name in (".", "..")]):
        raise UserError(
            f"{out}: HDF5 cannot hold a dataset named {slashed[0]!r} ({len(slashed)} such ids); write .parquet instead"
        )


def write_embeddings(out: str, embeddings: Iterable[tuple[str, np.ndarray]], attributes: dict[str, str]) -> None:
    """Write (id, vector (D,) or matrix (L, D)) one after another; `attributes` say what made them."""
    path = Path(out)
    with aside_of(path) as fresh:
        if path.suffix == ".parquet":
            _write_parquet(fresh, embeddings, attributes)
        else:
            _write_hdf5(fresh, embeddings, attributes)


def _write_hdf5(path: Path, embeddings: Iterable[tuple[str, np.ndarray]], attributes: dict[str, str]) -> None:
    with h5py.File(path, "w") as file:
        file.attrs.update(attributes)
        for number, (name, values) in enumerate(embeddings):
            file.create_dataset(name, data=values)
            file[name].attrs["position"] = number


def _write_parquet(path: Path, embeddings: Iterable[tuple[str, np.ndarray]], attributes: dict[str, str]) -> None:
    fields = [
        pa.field("id", pa.string()),
        pa.field("residue", pa.int32()),
        pa.field("embedding", pa.list_(pa.float32())),
    ]
    schema = pa.schema(fields, metadata={name.encode(): value.encode() for name, value in attributes.items()})
    with pq.ParquetWriter(path, schema) as writer:
        for name, values in embeddings:
            rows = np.atleast_2d(values)
            residues = range(1, len(rows) + 1) if values.ndim == 2 else [None]
            columns = [[name] * len(rows), list(residues), list(rows)]
            writer.write_table(
                pa.table([pa.array(c, f.type) for c, f in zip(columns, fields, strict=True)], schema=schema)
            )
