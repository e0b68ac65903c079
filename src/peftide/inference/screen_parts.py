"""The folder of an unfinished screen, beside its result: what is done stays done when the process is killed.

manifest.json       what is screened, with what, and how: only the same command goes on
vectors-NNNNN.npy   vectors of proteins, in order of falling length
band-NNNNN.parquet  pairs of one band of rows that may be in the result
"""

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from peftide.errors import UserError
from peftide.inference.cache_folder import open_plain
from peftide.inference.screen_selection import Pairs

try:
    import fcntl
except ImportError:  # Windows: there a second process on the same folder is not noticed
    fcntl = None

MANIFEST = "manifest.json"

Content = TypeVar("Content")


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
        _write(self._band(number), lambda path: pyarrow.parquet.write_table(table, path))

    def read_bands(self) -> Iterator[Pairs]:
        """The pairs of each band that is done, in order."""
        for number in range(self.num_bands()):
            table = _read(self._band(number), pyarrow.parquet.read_table)
            yield Pairs(*(table[name].to_numpy().copy() for name in ("row", "column", "logit")))

    def read_vectors(self, number: int, *, shape: tuple[int, int]) -> np.ndarray | None:
        """A part of the vectors, which must have this shape; None where it is not there yet."""

        def load(path: Path) -> np.ndarray:
            vectors_PD = np.load(path, mmap_mode="r", allow_pickle=False)
            if vectors_PD.shape != shape or vectors_PD.dtype != np.float32:
                raise ValueError(f"{vectors_PD.dtype} of shape {vectors_PD.shape}, not float32 of {shape}")
            return np.array(vectors_PD)

        path = self._vectors(number)
        return _read(path, load) if path.is_file() else None

    def write_vectors(self, number: int, vectors_PD: np.ndarray) -> None:
        """Keep a part of the vectors."""

        def save(path: Path) -> None:
            with path.open("wb") as file:
                np.save(file, vectors_PD, allow_pickle=False)

        _write(self._vectors(number), save)

    def remove(self) -> None:
        """Remove the folder, once the result is written and `open_parts` has let go of it."""
        shutil.rmtree(self.folder)

    def _band(self, number: int) -> Path:
        return self.folder / f"band-{number:05d}.parquet"

    def _vectors(self, number: int) -> Path:
        return self.folder / f"vectors-{number:05d}.npy"


@contextmanager
def open_parts(out: Path, manifest: dict[str, Any]) -> Iterator[Parts]:
    """The folder of parts of the result `out`, made where there is none, held against other processes meanwhile.

    Raises UserError where it is of another screen than `manifest` (JSON values) says, is in use, or cannot be made.
    """
    folder = out.with_name(f".{out.name}.parts")
    try:
        folder.mkdir(exist_ok=True)
        descriptor = open_plain(folder / "lock", os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); name another --out") from error
    try:
        if not _lock(descriptor):
            raise UserError(f"{folder}: another process is at work on this screen; wait for it, or name another --out")
        _check_manifest(folder, manifest)
        yield Parts(folder)
    finally:
        os.close(descriptor)


def _check_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    path = folder / MANIFEST
    if not path.is_file():
        _write(path, lambda fresh: fresh.write_text(json.dumps(manifest, indent=2), "utf-8"))
        return
    known = _read(path, lambda file: dict(json.loads(file.read_text("utf-8"))))
    others = [name for name in sorted(known.keys() | manifest.keys()) if known.get(name) != manifest.get(name)]
    if others:
        told = [f"{name} {_told(known.get(name))} there, {_told(manifest.get(name))} here" for name in others]
        raise UserError(
            f"{folder}: holds another screen, unfinished ({'; '.join(told)}); give the command that began it "
            "to go on, name another --out, or remove that folder"
        )


def _told(value: object) -> str:
    return "absent" if value is None else str(value)


def _lock(descriptor: int) -> bool:
    """Take the only lock on an open file; False where another process holds it. Without locks nothing is refused."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    return True


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside its place, then move it there."""
    fresh = path.with_name(f".{path.name}.new")
    try:
        write(fresh)
        os.replace(fresh, path)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path}: cannot be written ({reason}); mend that, and the same command goes on") from error
    finally:
        fresh.unlink(missing_ok=True)


def _read(path: Path, read: Callable[[Path], Content]) -> Content:
    try:
        return read(path)
    except (OSError, ValueError, TypeError, EOFError, pa.ArrowException) as error:
        raise UserError(f"{path}: is damaged ({error}); remove the folder {path.parent} to begin again") from error
