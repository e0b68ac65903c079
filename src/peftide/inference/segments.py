"""Segments: the files of a store, appended to by one process at a time and read by all.

A segment is `<name>.states`, the rows of its pieces one after another, and `<name>.index`, a header and then one
record per piece, written only when its rows are. So a process may be killed at any moment: what the index names is
there. Against all else (power cuts, bad disks) each record has a checksum.
"""

import os
import struct
import threading
import time
import uuid
import zlib
from pathlib import Path

import numpy as np

from peftide.inference.cache_folder import SEGMENT_NAME, StoreKey
from peftide.inference.locks import lock_at_once, open_plain

RECORD = np.dtype([("digest", "V16"), ("offset", "<u8"), ("rows", "<u4"), ("checksum", "<u4")])
HEADER = struct.Struct("<8s16sQ")  # magic, digest of the key, bytes of a row: as long as a record
MAGIC = b"peftide1"
CHUNK_RECORDS = 1 << 15  # of an index read at once, so that a forged length takes no memory
_SEEKING = threading.Lock()  # for Windows, which cannot read by position


def checksum(digest: bytes, rows: memoryview) -> int:
    """CRC-32 over digest and rows: a record that names the wrong piece is found out as well."""
    return zlib.crc32(rows, zlib.crc32(digest))


def segment_names(store: Path) -> list[str]:
    """Names of the segments in a store's folder, oldest first."""
    matches = map(SEGMENT_NAME.fullmatch, os.listdir(store) if store.is_dir() else [])
    return sorted(match[1] for match in matches if match and match[2] == "index")


class Segment:
    """One segment, as far as this process has read it. OSError or ValueError where it is not one of this store."""

    def __init__(self, store: Path, name: str, key: StoreKey) -> None:
        self.path = store / name
        self._row_bytes = key.row_bytes
        self._index = open_plain(self.path.with_suffix(".index"), os.O_RDONLY)
        try:
            if os.read(self._index, HEADER.size) != HEADER.pack(MAGIC, key.digest, key.row_bytes):
                raise ValueError(f"{self.path}.index is not an index of this store")
            self._states = open_plain(self.path.with_suffix(".states"), os.O_RDONLY)
        except (OSError, ValueError):
            os.close(self._index)
            raise
        self._index_bytes = HEADER.size  # read so far
        self._states_bytes = 0  # up to the end of the last good record
        self._is_clean = True  # no record so far points outside the states
        self._writable: tuple[int, int] | None = None  # states and index
        self._process: int | None = None  # the one that may append: not its forked child

    @staticmethod
    def start(store: Path, key: StoreKey) -> "Segment":
        """A new segment that this process appends to."""
        path = store / f"{time.time_ns():016x}-{uuid.uuid4().hex[:8]}"
        states = open_plain(path.with_suffix(".states"), os.O_RDWR | os.O_CREAT | os.O_EXCL)
        index = open_plain(path.with_suffix(".new"), os.O_RDWR | os.O_CREAT | os.O_EXCL)
        lock_at_once(index)  # before others can see it
        _write_at(index, memoryview(HEADER.pack(MAGIC, key.digest, key.row_bytes)), 0)
        os.rename(path.with_suffix(".new"), path.with_suffix(".index"))
        segment = Segment(store, path.name, key)
        segment._writable, segment._process = (states, index), os.getpid()
        return segment

    def may_append(self) -> bool:
        """Whether this process is the one that appends."""
        return self._process == os.getpid()

    def read(self, view: memoryview, offset: int) -> bool:
        """Fill `view` from the states at `offset`; False where they end too early or cannot be read."""
        try:
            while view:
                num_read = _read_at(self._states, view, offset)
                if num_read == 0:
                    return False
                view, offset = view[num_read:], offset + num_read
        except OSError:
            return False
        return True

    def new_records(self) -> np.ndarray:
        """The good records (`RECORD`) added since the last call; those that point outside the states are left out."""
        found = [np.empty(0, RECORD)]
        chunk = np.empty(CHUNK_RECORDS, RECORD)
        while True:
            num_read = _read_at(self._index, chunk.view(np.uint8).data, self._index_bytes)
            records = chunk[: num_read // RECORD.itemsize]
            if not len(records):
                return np.concatenate(found)
            self._index_bytes += records.nbytes
            states_bytes = np.uint64(os.fstat(self._states).st_size)
            lengths = records["rows"] * np.uint64(self._row_bytes)
            good = (lengths > 0) & (lengths <= states_bytes)
            good &= records["offset"] <= states_bytes - np.minimum(lengths, states_bytes)
            self._is_clean = self._is_clean and bool(good.all())
            found.append(records[good])
            ends = (records["offset"] + lengths)[good]
            self._states_bytes = max(self._states_bytes, int(ends.max(initial=0)))

    def take_over(self) -> bool:
        """Go on with a segment whose writer has ended, so that files do not pile up; False where that cannot be.

        All its records must have been read; half a record that a killed writer left is written over.
        """
        index = open_plain(self.path.with_suffix(".index"), os.O_RDWR)
        unread = range(RECORD.itemsize)
        if self._is_clean and lock_at_once(index) == "taken" and os.fstat(index).st_size - self._index_bytes in unread:
            states = open_plain(self.path.with_suffix(".states"), os.O_RDWR)
            self._writable, self._process = (states, index), os.getpid()
            return True
        os.close(index)
        return False

    def reserve(self, num_bytes: int) -> None:
        """Lengthen the states by what rows and records will take, so that other writers count it before it is there."""
        assert self._writable is not None
        os.ftruncate(self._writable[0], self._states_bytes + num_bytes)

    def append(self, view: memoryview, records: np.ndarray) -> None:
        """Write rows, then their records, whose offsets count from the start of `view`; `new_records` has them then."""
        assert self._writable is not None
        records["offset"] += np.uint64(self._states_bytes)
        _write_at(self._writable[0], view, self._states_bytes)
        _write_at(self._writable[1], memoryview(records.tobytes()), self._index_bytes)
        os.ftruncate(self._writable[0], self._states_bytes + len(view))

    def trim(self) -> None:
        """Give back what was reserved beyond the records, and half a record; another process' segment stays."""
        if self._writable is not None and self.may_append():
            os.ftruncate(self._writable[1], self._index_bytes)
            os.ftruncate(self._writable[0], self._states_bytes)

    def flush(self) -> None:
        """Wait until the disk has what was appended."""
        for descriptor in self._writable or ():
            os.fsync(descriptor)

    def close(self) -> None:
        """Close the files; another process may go on with them."""
        for descriptor in (self._index, self._states, *(self._writable or ())):
            os.close(descriptor)


def _read_at(descriptor: int, view: memoryview, offset: int) -> int:
    """Read into `view`, by position: threads and forked processes share a descriptor, and with it where it stands."""
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [view], offset)
    with _SEEKING:
        os.lseek(descriptor, offset, os.SEEK_SET)
        content = os.read(descriptor, len(view))
    view[: len(content)] = content
    return len(content)


def _write_at(descriptor: int, view: memoryview, offset: int) -> None:
    os.lseek(descriptor, offset, os.SEEK_SET)
    while view:
        view = view[os.write(descriptor, view) :]
