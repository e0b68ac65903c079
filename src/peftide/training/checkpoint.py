"""An unfinished run on disk: what is needed to go on as if nothing had happened, whatever moment it was killed at.

A checkpoint is one safetensors file of tensors and, as its metadata, the position in the run; beside it lies the
SHA-256 of the whole. Both are written into a folder aside, flushed to the disk, and the folder is renamed: a checkpoint
is there whole or not at all, and one that was altered since is seen. The last two are kept.

Nothing random needs to be kept: batches are drawn from the seed and the epoch, dropout from the seed and the step.
"""

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from peftide.data.files import file_digest
from peftide.data.writers import make_folder, write_json
from peftide.errors import UserError, unwritable

FOLDER = "checkpoints"
TENSORS, DIGEST, STATE_KEY = "state.safetensors", "sha256", "peftide"
NAME = re.compile(r"step-(\d{9})")
NUM_KEPT = 2
LEFTOVER = re.compile(r"\..+\.(\d+\.new|[0-9a-f]{8}\.part)")  # the name of a file or folder while it is written

Say = Callable[[str], None]


@dataclass(frozen=True)
class Snapshot:
    """A moment of a run. position: what the loop counts with, ready for JSON; tensors: by name, on the CPU."""

    position: dict[str, Any]
    tensors: dict[str, Tensor]


class Checkpoints:
    """The checkpoints of one run in `folder`, made when `interval_seconds` have passed since the last."""

    def __init__(self, folder: Path, *, interval_seconds: float):
        self.folder = folder
        self.interval_seconds = interval_seconds
        self.last = time.monotonic()
        self.are_kept = False

    def are_there(self) -> bool:
        """Whether there is one, whole or not."""
        return bool(self._places())

    def keep(self) -> bool:
        """Leave what is there when the run ends, so that it can still go on; False where there is nothing to leave."""
        self.are_kept = self.are_there()
        return self.are_kept

    def is_due(self) -> bool:
        """Whether it is time for the next."""
        return time.monotonic() - self.last >= self.interval_seconds

    def save(self, step: int, snapshot: Snapshot) -> None:
        """Write the state after so many steps, and drop all but the last two.

        Raises UserError where the disk is full or refuses; the checkpoints before stay.
        """
        place = self.folder / f"step-{step:09d}"
        aside = self.folder / f".{place.name}.{os.getpid()}.new"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir()
            metadata = {STATE_KEY: json.dumps(snapshot.position)}
            save_file(snapshot.tensors, aside / TENSORS, metadata=metadata)
            (aside / DIGEST).write_text(file_digest(aside / TENSORS), "utf-8")
            _flush(aside)
            shutil.rmtree(place, ignore_errors=True)
            os.replace(aside, place)
            _flush_entry(self.folder)
            for old in self._places()[:-NUM_KEPT]:
                shutil.rmtree(old)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(aside, ignore_errors=True)
            raise unwritable(f"{self.folder}: the checkpoint after step {step}", error, goes_on=True) from error
        self.last = time.monotonic()

    def latest(self, say: Say) -> Snapshot | None:
        """The last whole checkpoint, None where there is none; those that are damaged are named by `say`."""
        for place in reversed(self._places()):
            try:
                return _read(place)
            except (OSError, ValueError, SafetensorError) as error:
                say(f"checkpoint {place} is damaged ({error}); looking for the one before")
        return None

    def _places(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if NAME.fullmatch(path.name))


def _read(place: Path) -> Snapshot:
    stored, found = (place / DIGEST).read_text("utf-8"), file_digest(place / TENSORS)
    if stored != found:
        raise ValueError("its content is not what was written")
    with safe_open(place / TENSORS, framework="pt") as file:
        position = json.loads(file.metadata()[STATE_KEY])
        return Snapshot(position, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118


def _flush(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    _flush_entry(folder)


def _flush_entry(folder: Path) -> None:
    """Make what the folder lists outlive a power cut, where the system lets a folder be flushed (not Windows)."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def unfinished_run(
    folder: Path,
    identity: Mapping[str, Any],
    *,
    interval_seconds: float,
    restart: bool,
    differences: Callable[[dict[str, Any]], list[str]],
) -> Iterator[Checkpoints]:
    """The checkpoints of the run in `folder`, which no other process may have in hand; gone when the run has ended
    (unless they are to be kept) or Ctrl-C came before there was one. An error leaves them.

    identity: what makes it this run, kept as JSON; differences: in words, how the identity kept by an unfinished run
    differs from this one. restart: throw an unfinished run away.
    Raises UserError where another process works in the folder, or an unfinished run there is another one.
    """
    place = folder / FOLDER
    known = place / "run.json"
    with alone_in(folder, what="run"):
        checkpoints = Checkpoints(place, interval_seconds=interval_seconds)
        if (
            restart or not known.is_file() or not checkpoints.are_there()
        ):  # nobody knows whose, or nothing to go on with
            shutil.rmtree(place, ignore_errors=True)
        if known.is_file() and (found := _compared(known, differences)):
            raise UserError(
                f"--out {folder}: an unfinished run of other settings is there ({'; '.join(found)}); use those to go "
                f"on with it, throw it away (--restart of train, or remove {place}), or choose another folder"
            )
        make_folder(place)
        write_json(known, identity)
        try:
            yield checkpoints
        except KeyboardInterrupt:
            if not checkpoints.keep():
                remove_checkpoints(folder)
            raise
        if not checkpoints.are_kept:
            remove_checkpoints(folder)


def _compared(known: Path, differences: Callable[[dict[str, Any]], list[str]]) -> list[str]:
    try:
        return differences(json.loads(known.read_text("utf-8")))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{known}: is damaged ({error}), so nobody can tell what unfinished run this is; --restart throws it away"
        ) from error


def remove_checkpoints(folder: Path) -> None:
    """Remove the checkpoints of a run that has ended, first what says whose they are: then nobody goes on from them."""
    place = folder / FOLDER
    try:
        (place / "run.json").unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(place, error, goes_on=True) from error
    shutil.rmtree(place, ignore_errors=True)


@contextmanager
def alone_in(folder: Path, *, what: str) -> Iterator[None]:
    """Keep other processes from the same `folder`, and remove what one that was killed was about to write in it.

    what: a word for the work ("run"). Raises UserError where another process is at work there.
    """
    place = folder.resolve()
    lock = FileLock(place.with_name(f".{place.name}.lock"), timeout=0)  # beside it: a bundle is to be sent away
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(
            f"--out {folder}: another process is writing this {what} now; wait for it, or choose another folder"
        ) from error
    except OSError as error:
        raise unwritable(f"{lock.lock_file}, which keeps other processes from --out {folder}", error) from error
    try:
        remove_leftovers(folder)
        yield
    finally:
        lock.release()


def remove_leftovers(folder: Path) -> None:
    """Remove files and folders that a killed process had begun to write; no other process may be at work here."""
    try:
        for path in folder.iterdir() if folder.is_dir() else []:
            if LEFTOVER.fullmatch(path.name):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    except OSError as error:
        raise unwritable(folder, error) from error
