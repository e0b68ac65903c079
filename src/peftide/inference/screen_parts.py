"""The folder of an unfinished screen, beside its result: what is done stays done when the process is killed.

manifest.json       what is screened, with what, and how: only the same command goes on
vectors-NNNNN.npy   vectors of proteins, in order of falling length
band-NNNNN.parquet  pairs of one band of rows that may be in the result
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from peftide.inference.parts_folder import parts_folder, read_part, write_part
from peftide.inference.screen_selection import Pairs


class Parts:
    """The parts of one screen, made and held by `open_parts`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def num_bands(self) -> int:
        """How many bands are done, counted from the first."""
        number = 0
        while self._band(number).is_file():
            number += 1
        return number

    def write_band(self, number: int, pairs: Pairs) -> None:
        """Keep the pairs of a band; from then on it is done."""
        table = pa.table({"row": pairs.rows, "column": pairs.columns, "logit": pairs.logits})
        write_part(self._band(number), lambda path: pyarrow.parquet.write_table(table, path))

    def read_bands(self) -> Iterator[Pairs]:
        """The pairs of each band that is done, in order."""
        for number in range(self.num_bands()):
            table = read_part(self._band(number), pyarrow.parquet.read_table)
            yield Pairs(*(table[name].to_numpy().copy() for name in ("row", "column", "logit")))

    def read_vectors(self, number: int, *, shape: tuple[int, int]) -> np.ndarray | None:
        """A part of the vectors, which must have this shape; None where it is not there yet."""

        def load(path: Path) -> np.ndarray:
            vectors_PD = np.load(path, mmap_mode="r", allow_pickle=False)
            if vectors_PD.shape != shape or vectors_PD.dtype != np.float32:
                raise ValueError(f"{vectors_PD.dtype} of shape {vectors_PD.shape}, not float32 of {shape}")
            return np.array(vectors_PD)

        path = self._vectors(number)
        return read_part(path, load) if path.is_file() else None

    def write_vectors(self, number: int, vectors_PD: np.ndarray) -> None:
        """Keep a part of the vectors."""

        def save(path: Path) -> None:
            with path.open("wb") as file:
                np.save(file, vectors_PD, allow_pickle=False)

        write_part(self._vectors(number), save)

    def remove(self) -> None:
        """Remove the folder, once the result is written and `open_parts` has let go of it."""
        shutil.rmtree(self.folder)

    def _band(self, number: int) -> Path:
        return self.folder / f"band-{number:05d}.parquet"

    def _vectors(self, number: int) -> Path:
        return self.folder / f"vectors-{number:05d}.npy"


@contextmanager
def open_parts(out: Path, manifest: dict[str, Any]) -> Iterator[Parts]:
    """The parts of the result `out`, held against other processes meanwhile; see `parts_folder` for the errors."""
    with parts_folder(out, manifest, what="screen") as folder:
        yield Parts(folder)
