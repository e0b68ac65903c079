"""The hidden folder of unfinished work beside its result: what is done stays done when the process is killed.

manifest.json says what is made, from what and how: only the same command goes on. One process at a time holds `lock`.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
from rich.console import Console

from peftide.errors import UserError, unwritable
from peftide.inference.locks import lock_at_once, open_plain

MANIFEST, LOCK = "manifest.json", "lock"
Content = TypeVar("Content")


@contextmanager
def parts_folder(out: Path, manifest: Mapping[str, Any], *, what: str) -> Iterator[Path]:
    """The folder of parts of the result `out`, made where there is none, held against other processes meanwhile.

    Where the block fails before a part is done, the folder goes again, so that the command can be given otherwise.
    what: a word for the work ("screen"). Raises UserError where the folder is of other work than `manifest` (JSON
    values) says, is in use, or cannot be made.
    """
    folder = out.with_name(f".{out.name}.parts")
    try:
        folder.mkdir(exist_ok=True)
        descriptor = open_plain(folder / LOCK, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise unwritable(folder, error) from error
    is_unused = False
    try:
        if lock_at_once(descriptor) == "held":
            raise UserError(f"{folder}: another process is at work on this {what}; wait for it, or name another --out")
        _check_manifest(folder, manifest, what=what)
        try:
            yield folder
        except BaseException:
            is_unused = _holds_nothing(folder)
            raise
    finally:
        os.close(descriptor)
        if is_unused:
            remove_parts(folder)


def _holds_nothing(folder: Path) -> bool:
    """Whether no part is done: of a process that was killed so early, too."""
    return {path.name for path in folder.iterdir()} <= {MANIFEST, LOCK}


def _check_manifest(folder: Path, manifest: Mapping[str, Any], *, what: str) -> None:
    path = folder / MANIFEST
    if not path.is_file() or _holds_nothing(folder):
        write_part(path, lambda fresh: fresh.write_text(json.dumps(manifest, indent=2), "utf-8"))
        return
    known = read_part(path, lambda file: dict(json.loads(file.read_text("utf-8"))))
    others = [name for name in sorted(known.keys() | manifest.keys()) if known.get(name) != manifest.get(name)]
    if others:
        told = [f"{name} {_told(known.get(name))} there, {_told(manifest.get(name))} here" for name in others]
        raise UserError(
            f"{folder}: holds another {what}, unfinished ({'; '.join(told)}); give the command that began it "
            "to go on, name another --out, or remove that folder"
        )


def _told(value: object) -> str:
    return "absent" if value is None else str(value)


def write_part(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside its place, then move it there. Raises UserError where that fails; what was there stays."""
    fresh = path.with_name(f".{path.name}.new")
    try:
        try:
            write(fresh)
            os.replace(fresh, path)
        finally:
            fresh.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path, error, goes_on=True) from error


def read_part(path: Path, read: Callable[[Path], Content]) -> Content:
    """What `read` makes of a file; UserError where it is damaged."""
    try:
        return read(path)
    except (OSError, ValueError, TypeError, EOFError, pa.ArrowException) as error:
        raise UserError(f"{path}: is damaged ({error}); remove the folder {path.parent} to begin again") from error


def remove_parts(folder: Path) -> None:
    """Remove the folder of a result that is written, once `parts_folder` has let go of it.

    It gets another name first: parts whose manifest was removed before them could be taken for those of other work.
    """
    done = folder.with_name(f"{folder.name}.done")
    shutil.rmtree(done, ignore_errors=True)  # of a process that was killed just here
    os.replace(folder, done)
    shutil.rmtree(done)


@contextmanager
def interruptible(folder: Path, console: Console) -> Iterator[None]:
    """Say on Ctrl-C what becomes of the work."""
    try:
        yield
    except KeyboardInterrupt:
        if not _holds_nothing(folder):
            console.print(f"what is done is kept in {folder}: the same command goes on", highlight=False)
        raise
