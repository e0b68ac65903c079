"""Embeddings as tables of Arrow: id, residue (1-based; null for the vector of a protein) and embedding.

Shapes: D width, L residues of one protein, R rows of a table.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("residue", pa.int32()),
        pa.field("embedding", pa.list_(pa.float32())),
    ]
)


def vector_table(ids: Sequence[str], vectors_RD: np.ndarray) -> pa.Table:
    """A row for each protein."""
    return _table(pa.array(ids, pa.string()), pa.nulls(len(ids), pa.int32()), vectors_RD)


def residue_table(ids: Sequence[str], states: Sequence[np.ndarray], width: int) -> pa.Table:
    """A row for each residue; states: (L, D) of each protein."""
    lengths = [len(states_LD) for states_LD in states]
    names = pa.array(ids, pa.string()).take(pa.array(np.repeat(np.arange(len(ids)), lengths)))
    residues = [np.arange(1, length + 1, dtype=np.int32) for length in lengths]
    none_RD, none_R = np.zeros((0, width), np.float32), np.zeros(0, np.int32)
    return _table(names, pa.array(np.concatenate([none_R, *residues])), np.concatenate([none_RD, *states]))


def _table(ids: pa.Array, residues: pa.Array, values_RD: np.ndarray) -> pa.Table:
    offsets = np.arange(len(values_RD) + 1, dtype=np.int32) * values_RD.shape[1]
    embeddings = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values_RD.reshape(-1)))
    return pa.table([ids, residues, embeddings], schema=SCHEMA)


def values_of(table: pa.Table) -> np.ndarray:
    """The numbers (R, D) of a table."""
    if not len(table):
        return np.zeros((0, 0), np.float32)
    numbers = table["embedding"].combine_chunks().flatten().to_numpy()
    return numbers.reshape(len(table), -1)


def embeddings_of(table: pa.Table) -> Iterator[tuple[str, np.ndarray]]:
    """Each protein with its vector (D,) or its residues (L, D)."""
    ids, values_RD = table["id"], values_of(table)
    if table["residue"].null_count == len(table):
        yield from zip(ids.to_pylist(), values_RD, strict=True)
        return
    starts = np.flatnonzero(table["residue"].to_numpy() == 1)
    for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(values_RD)], strict=True):
        yield ids[start].as_py(), values_RD[start:end]
