"""The cache folder: where it is, how full it is, which of its stores are in use, and which to drop first."""

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from peftide.inference.locks import lock_at_once, open_plain, wait_for_lock

LOCK_NAME = "in-use.lock"  # every open store holds a shared lock on it; the system drops it when a process dies
STORE_NAME = re.compile(r"[a-z]+-[A-Za-z0-9]*-layer\d+-\d+-(bf16|fp32)-[0-9a-f]{12}")
SEGMENT_NAME = re.compile(r"([0-9a-f]{16}-[0-9a-f]{8})\.(states|index|new)")
SPARE_BYTES = 1 << 30  # disk left free for checkpoints and whatever else the user does


@dataclass(frozen=True)
class StoreKey:
    """What the values of one store are; two runs share a store exactly when their keys are equal.

    fingerprint: of the frozen weights and of all else that changes the values (windows of long proteins, ...).
    layer: the hidden states are those after this layer.  width: numbers in a row.
    kind: lower-case word: `states` (a row per token), `mean`, `cls` (one row).
    precision: arithmetic that made them, e.g. `bf16`.  stored: their form on disk.
    """

    fingerprint: str
    layer: int
    width: int
    kind: str
    precision: str
    stored: Literal["bf16", "fp32"]

    @property
    def digest(self) -> bytes:
        """16 bytes that stand for the whole key."""
        return hashlib.blake2b(repr(astuple(self)).encode(), digest_size=16).digest()

    @property
    def folder_name(self) -> str:
        """Name of the store's folder, e.g. `states-esm2650m-layer25-1280-bf16-0f3a...`."""
        model = re.sub(r"[^A-Za-z0-9]", "", self.fingerprint)[:16]
        name = f"{self.kind}-{model}-layer{self.layer}-{self.width}-{self.stored}-{self.digest.hex()[:12]}"
        assert STORE_NAME.fullmatch(name), f"not the name of a store: {name}"
        return name

    @property
    def dtype(self) -> np.dtype:
        """float32, or uint16 with the bits of bfloat16, which numpy does not know."""
        return np.dtype("<u2" if self.stored == "bf16" else "<f4")

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.width * self.dtype.itemsize

    def size_bytes(self, *, num_rows: int, num_pieces: int) -> int:
        """Bytes on disk of `num_pieces` pieces with `num_rows` rows together."""
        return num_rows * self.row_bytes + 32 * (num_pieces + 1)


@dataclass(frozen=True)
class StoreUse:
    """One store in the cache folder: its size and when it was last opened or closed (seconds since 1970)."""

    path: Path
    num_bytes: int
    last_used_seconds: float


@dataclass(frozen=True)
class Room:
    """Whether so many bytes can be kept, and why, in words for the user."""

    fits: bool
    reason: str


def default_cache_folder() -> Path:
    """`$PEFTIDE_CACHE`, or `~/.cache/peftide`."""
    return Path(os.environ.get("PEFTIDE_CACHE") or "~/.cache/peftide").expanduser()


def readable_size(num_bytes: int) -> str:
    """`3.25 GB`, `310 MB` or `48 kB`."""
    for unit, name in ((10**9, "GB"), (10**6, "MB")):
        if num_bytes >= unit:
            return f"{num_bytes / unit:.3g} {name}"
    return f"{num_bytes / 1000:.3g} kB"


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Keep other processes from measuring and growing the cache meanwhile."""
    descriptor = open_plain(folder / "limit.lock", os.O_RDWR | os.O_CREAT)
    try:
        wait_for_lock(descriptor, exclusive=True)
        yield
    finally:
        os.close(descriptor)


def hold(store: Path) -> int:
    """Create a store's folder (0700) and mark it as in use until the descriptor is closed or the process dies."""
    store.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    while True:
        store.mkdir(mode=0o700, exist_ok=True)
        try:
            descriptor = open_plain(store / LOCK_NAME, os.O_RDWR | os.O_CREAT)
        except FileNotFoundError:
            continue  # evicted since the line before
        wait_for_lock(descriptor, exclusive=False)
        try:
            if os.path.samestat(os.stat(store / LOCK_NAME), os.fstat(descriptor)):
                os.utime(store / LOCK_NAME)
                return descriptor
        except FileNotFoundError:
            pass  # evicted while we waited for the lock: make it anew
        os.close(descriptor)


def release(store: Path, descriptor: int) -> None:
    """Undo `hold`: other processes may evict the store from now on, after all stores used before it."""
    with suppress(OSError):  # the cache was removed meanwhile, or cannot be written any more; its order alone suffers
        os.utime(store / LOCK_NAME)
    os.close(descriptor)


def stores(folder: Path) -> list[StoreUse]:
    """The stores under `folder`, least recently used first; other files and folders do not count."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else []:
        try:
            if STORE_NAME.fullmatch(path.name) and not path.is_symlink():
                sizes = [file.lstat().st_size for file in _segment_files(path)]
                found.append(StoreUse(path, sum(sizes), (path / LOCK_NAME).lstat().st_mtime))
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):  # just evicted by another process, or never a store
                raise
    return sorted(found, key=lambda store: (store.last_used_seconds, store.path.name))


def _segment_files(store: Path) -> list[Path]:
    with os.scandir(store) as entries:
        found = [entry for entry in entries if SEGMENT_NAME.fullmatch(entry.name)]
    return [Path(entry.path) for entry in found if not entry.is_dir(follow_symlinks=False)]


@contextmanager
def _idle(store: Path) -> Iterator[bool]:
    """Whether nobody has the store open; if so, nobody can open it until the block ends."""
    try:
        descriptor = open_plain(store / LOCK_NAME, os.O_RDWR)
    except OSError:  # evicted by another process, or not ours to write
        yield False
        return
    try:
        yield lock_at_once(descriptor) == "taken"
    finally:
        os.close(descriptor)


def _remove(store: Path) -> None:
    """Remove the files of an idle store; its folder too, if it holds nothing else.

    The lock goes last: a process killed on the way leaves a smaller store that can still be read and evicted.
    """
    for file in sorted(_segment_files(store)):
        file.unlink(missing_ok=True)
    (store / LOCK_NAME).unlink(missing_ok=True)
    try:
        store.rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):  # holds other files, or just made anew
            raise


def _excess_bytes(folder: Path, used: list[StoreUse], *, needed_bytes: int, limit_bytes: int) -> tuple[int, str]:
    """By how many bytes (0 or less: none) the limit, or the disk less its spare, is passed; and which, in words."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free_bytes = shutil.disk_usage(existing).free
    over_limit = sum(store.num_bytes for store in used) + needed_bytes - limit_bytes
    over_disk = needed_bytes + SPARE_BYTES - free_bytes
    if over_disk > over_limit:
        spare = readable_size(SPARE_BYTES)
        return over_disk, f"the disk of {folder} has {readable_size(free_bytes)} left, of which {spare} are kept free"
    return over_limit, f"the cache {folder} may hold {readable_size(limit_bytes)}"


def make_room(folder: Path, *, needed_bytes: int, limit_bytes: int) -> tuple[list[StoreUse], str | None]:
    """`evict` within `one_at_a_time`; also the reason, in words, where `needed_bytes` do not fit even so."""
    used = stores(folder)
    excess, bound = _excess_bytes(folder, used, needed_bytes=needed_bytes, limit_bytes=limit_bytes)
    idle = [store for store in used if excess > 0 and _is_idle(store.path)]
    removed: list[StoreUse] = []
    for store in idle if sum(store.num_bytes for store in idle) >= excess else []:
        with _idle(store.path) as still_idle:
            if excess > 0 and still_idle:
                _remove(store.path)
                removed.append(store)
                excess -= store.num_bytes
    if excess <= 0:
        return removed, None
    return removed, f"{readable_size(needed_bytes)} more do not fit: {bound}; what is not kept is computed again"


def _is_idle(store: Path) -> bool:
    with _idle(store) as idle:
        return idle


def evict(folder: Path, *, needed_bytes: int, limit_bytes: int) -> list[StoreUse]:
    """Remove stores, least recently used first, until `needed_bytes` more fit; what was removed.

    A store that a live process has open stays. Where removing all others would not be enough, nothing is removed.
    """
    if not folder.is_dir():
        return []
    with one_at_a_time(folder):
        return make_room(folder, needed_bytes=needed_bytes, limit_bytes=limit_bytes)[0]


def room_for(folder: Path, key: StoreKey, *, needed_bytes: int, limit_bytes: int) -> Room:
    """Whether the store of `key` may grow by `needed_bytes`, if need be in place of other idle ones.

    Removes nothing. `needed_bytes` are those to add to what the store holds.
    """
    try:
        used = stores(folder)
        excess, bound = _excess_bytes(folder, used, needed_bytes=needed_bytes, limit_bytes=limit_bytes)
        idle_bytes = 0
        if excess > 0 and used:
            with one_at_a_time(folder):
                others = [store for store in used if store.path.name != key.folder_name]
                idle_bytes = sum(store.num_bytes for store in others if _is_idle(store.path))
    except OSError as error:
        return Room(False, f"nothing will be kept: {folder} cannot be used ({error.strerror})")
    needed = readable_size(needed_bytes)
    if excess > idle_bytes:
        return Room(False, f"{needed} do not fit: {bound}; they will be computed again each time")
    if excess > 0:
        return Room(True, f"{needed} will be kept in place of older stores: {bound}")
    return Room(True, f"{needed} will be kept: {bound}")
