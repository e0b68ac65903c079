"""The folder of an unfinished screen, beside its result: what is done stays done when the process is killed.

manifest.json          what is screened, with what, and how: only the same command goes on
vectors-NNNNN.parquet  vectors of proteins, in order of falling length
band-NNNNN.parquet     pairs of one band of rows that may be in the result
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from peftide.errors import UserError
from peftide.inference.parts_folder import parts_folder, remove_parts, write_part
from peftide.inference.screen_selection import Pairs


class Parts:
    """The parts of one screen, made and held by `open_parts`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def bands(self) -> list[int]:
        """The numbers of the bands that are done, rising."""
        return sorted(int(path.stem.removeprefix("band-")) for path in self.folder.glob("band-*.parquet"))

    def write_band(self, number: int, pairs: Pairs) -> None:
        """Keep the pairs of a band; from then on it is done."""
        _write_table(self._band(number), {"row": pairs.rows, "column": pairs.columns, "logit": pairs.logits})

    def read_bands(self) -> Iterator[Pairs]:
        """The pairs of each band that is done, in order."""
        for number in self.bands():
            table = _read_table(self._band(number))
            yield Pairs(*(table[name].to_numpy().copy() for name in ("row", "column", "logit")))

    def read_vectors(self, number: int, *, shape: tuple[int, int]) -> np.ndarray | None:
        """A part of the vectors, which must have this shape; None where it is not there yet."""
        path = self._vectors(number)
        return _read_table(path)["value"].to_numpy().reshape(shape) if path.is_file() else None

    def write_vectors(self, number: int, vectors_PD: np.ndarray) -> None:
        """Keep a part of the vectors."""
        _write_table(self._vectors(number), {"value": vectors_PD.ravel()})

    def remove(self) -> None:
        """Remove the folder, once the result is written and `open_parts` has let go of it."""
        remove_parts(self.folder)

    def _band(self, number: int) -> Path:
        return self.folder / f"band-{number:05d}.parquet"

    def _vectors(self, number: int) -> Path:
        return self.folder / f"vectors-{number:05d}.parquet"


def _write_table(path: Path, columns: dict[str, np.ndarray]) -> None:
    table = pa.table(columns)
    write_part(path, lambda fresh: pyarrow.parquet.write_table(table, fresh, write_page_checksum=True))


def _read_table(path: Path) -> pa.Table:
    """A part that is there; UserError where it is not what was written, and then it is removed."""
    try:
        return pyarrow.parquet.read_table(path, page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        path.unlink(missing_ok=True)
        raise UserError(
            f"{path}: was damaged ({error}) and is removed; the same command makes it again and goes on"
        ) from error


@contextmanager
def open_parts(out: Path, manifest: dict[str, Any]) -> Iterator[Parts]:
    """The parts of the result `out`, held against other processes meanwhile; see `parts_folder` for the errors."""
    with parts_folder(out, manifest, what="screen") as folder:
        yield Parts(folder)
