"""The store of frozen hidden states: each protein passes the frozen layers once, whatever run needs it."""

import hashlib
import threading
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from peftide.inference.cache_folder import StoreKey, StoreUse, hold, make_room, one_at_a_time, release
from peftide.inference.segments import HEADER, RECORD, Segment, checksum, segment_names


def sequence_key(tokens: bytes) -> bytes:
    """16-byte digest of a piece: of its token ids, or of its sequence as text."""
    return hashlib.blake2b(tokens, digest_size=16).digest()


class StateStore:
    """Packed rows of hidden states by sequence digest, on disk, shared with other processes; made by `open`.

    Threads may share it. For messages to the user:
    full_reason: why nothing more is kept (the limit, a full disk, ...); None while it is. Reading goes on.
    has_left_out: whether something was to be kept and was not.
    num_damaged: copies of pieces left out since opening: wrong checksum, wrong length or unreadable.
    unreadable: whole segments left out, by name, with the reason.
    evicted: older stores that made room.
    """

    def __init__(self, path: Path, key: StoreKey, *, limit_bytes: int) -> None:
        self.path = path
        self.key = key
        self.limit_bytes = limit_bytes
        self.full_reason: str | None = None
        self.has_left_out = False
        self.num_damaged = 0
        self.unreadable: dict[str, str] = {}
        self.evicted: list[StoreUse] = []
        self._held: int | None = None
        self._growing = threading.RLock()
        self._segments: list[Segment] = []
        self._own: int | None = None  # number of the segment that this process appends to
        self._pieces: dict[bytes, int] = {}  # digest -> number of the piece in the columns below
        self._older: dict[int, int] = {}  # number of a piece -> number of another copy of it
        self._segment, self._offset = array("I"), array("Q")
        self._rows, self._checksum = array("I"), array("I")
        self._checked = bytearray()

    @classmethod
    def open(cls, folder: Path, key: StoreKey, *, limit_bytes: int) -> "StateStore":
        """Open the store of `key` in the cache `folder`; both are made if need be.

        Where that is not possible nothing is raised: what can be read is read, and `full_reason` says the rest.
        """
        store = cls(folder / key.folder_name, key, limit_bytes=limit_bytes)
        try:
            store._held = hold(store.path)
        except OSError as error:
            store._stop_writing(error)
        store.refresh()
        return store

    def __enter__(self) -> "StateStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._pieces)

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._pieces

    def missing(self, digests: Sequence[bytes]) -> list[int]:
        """Positions in `digests` of the pieces that no process has stored."""
        if not all(digest in self._pieces for digest in digests):
            self.refresh()
        return [position for position, digest in enumerate(digests) if digest not in self._pieces]

    def gather(
        self, digests: Sequence[bytes], rows: Sequence[int], *, out: np.ndarray | None = None
    ) -> tuple[np.ndarray, list[int]]:
        """The rows of the pieces one after another, (sum(rows), width), and the positions of the pieces not there.

        `rows` are the lengths that the pieces must have. The rows of a piece that is not there, or is damaged, are
        arbitrary: compute them, write them in place and `put` them. A checksum is verified when its piece is first
        read. `out` with at least sum(rows) rows is used instead of new memory, which is faster.
        """
        self.missing(digests)
        stops = _stops(rows)
        num_rows = stops[-1] if stops else 0
        if out is None:
            out = np.empty((num_rows, self.key.width), self.key.dtype)
        assert out.dtype == self.key.dtype, out.dtype
        assert out.shape[1:] == (self.key.width,), out.shape
        assert len(out) >= num_rows, (out.shape, num_rows)
        view = _bytes_of(out)
        row_bytes, start, absent = self.key.row_bytes, 0, []
        for position, (digest, stop) in enumerate(zip(digests, stops, strict=True)):
            if not self._read_piece(digest, view[start * row_bytes : stop * row_bytes]):
                absent.append(position)
            start = stop
        return out[:num_rows], absent

    def _read_piece(self, digest: bytes, view: memoryview) -> bool:
        while (number := self._pieces.get(digest)) is not None:
            whole = self._rows[number] * self.key.row_bytes == len(view)
            if whole and self._segments[self._segment[number]].read(view, self._offset[number]):
                if self._checked[number]:
                    return True
                if checksum(digest, view) == self._checksum[number]:
                    self._checked[number] = True
                    return True
            with self._growing:
                if self._pieces.get(digest) == number:
                    self.num_damaged += 1
                    del self._pieces[digest]
                    if number in self._older:
                        self._pieces[digest] = self._older.pop(number)
        return False

    def put(self, digests: Sequence[bytes], rows: Sequence[int], packed: np.ndarray) -> None:
        """Keep pieces given one after another as (sum(rows), width), bfloat16 as its bits in uint16.

        Those already there are left out. After this they outlive the process (after `flush`, a power cut too) unless
        `full_reason` says why not.
        """
        assert packed.dtype == self.key.dtype, packed.dtype
        assert packed.shape == (sum(rows), self.key.width), packed.shape
        first = {digest: position for position, digest in reversed(list(enumerate(digests)))}
        new = sorted(position for digest, position in first.items() if digest not in self._pieces)
        if self.full_reason is not None or not new:
            self.has_left_out |= bool(new)
            return
        if len(new) < len(digests):
            stops = _stops(rows)
            packed = np.concatenate([packed[stops[position] - rows[position] : stops[position]] for position in new])
        view = _bytes_of(np.ascontiguousarray(packed))
        records = _records([digests[position] for position in new], [rows[position] for position in new], view)
        with self._growing:
            try:
                self._append(view, records)
            except OSError as error:
                self._stop_writing(error)
            self.has_left_out |= self.full_reason is not None

    def _append(self, view: memoryview, records: np.ndarray) -> None:
        folder, num_bytes = self.path.parent, len(view) + records.nbytes
        with one_at_a_time(folder):
            room = {"needed_bytes": num_bytes + HEADER.size, "limit_bytes": self.limit_bytes}
            evicted, self.full_reason = make_room(folder, **room)
            self.evicted += evicted
            if self.full_reason is not None:
                return
            if self._own is None or not self._segments[self._own].may_append():
                self._own = self._find_own()
            self._take_in(self._own)  # what an interrupted put may have left
            segment = self._segments[self._own]
            segment.reserve(num_bytes)
        segment.append(view, records)
        self._take_in(self._own)

    def _find_own(self) -> int:
        self.refresh()
        for number, segment in enumerate(self._segments):
            if segment.take_over():
                return number
        self._segments.append(Segment.start(self.path, self.key))
        return len(self._segments) - 1

    def refresh(self) -> None:
        """Take in what other processes have stored since."""
        with self._growing:
            known = {segment.path.name: number for number, segment in enumerate(self._segments)}
            try:
                names = segment_names(self.path)
            except OSError as error:  # of another user, say
                self.unreadable["."] = str(error)
                return
            for name in names:
                try:
                    if name not in known:
                        self._segments.append(Segment(self.path, name, self.key))
                    self._take_in(known.get(name, len(self._segments) - 1))
                except (OSError, ValueError) as error:
                    self.unreadable[name] = str(error)

    def _take_in(self, number: int) -> None:
        records = self._segments[number].new_records()
        first = len(self._offset)
        self._segment.extend([number] * len(records))
        self._offset.extend(records["offset"].tolist())
        self._rows.extend(records["rows"].tolist())
        self._checksum.extend(records["checksum"].tolist())
        self._checked.extend(bytes(len(records)))
        # Last, so that a thread that gathers never finds a piece whose columns are not there yet
        for piece, digest in enumerate(records["digest"].tolist(), start=first):
            if digest in self._pieces:
                self._older[piece] = self._pieces[digest]
            self._pieces[digest] = piece

    def flush(self) -> None:
        """Make what was put outlive a power cut."""
        if self._own is not None:
            try:
                self._segments[self._own].flush()
            except OSError as error:
                self._stop_writing(error)

    def _stop_writing(self, error: OSError) -> None:
        self.full_reason = f"{self.path} cannot be written ({error.strerror}); what is not kept is computed again"
        self._trim()

    def _trim(self) -> None:
        if self._own is not None:
            segment = self._segments[self._own]
            try:
                self._take_in(self._own)
                segment.trim()
            except OSError as error:  # nothing readable is lost: the next run cuts it off or starts another segment
                self.unreadable[segment.path.name] = str(error)

    def close(self) -> None:
        """Let the store go: from now on it may be evicted, after all stores used before it."""
        self._trim()
        for segment in self._segments:
            segment.close()
        if self._held is not None:
            release(self.path, self._held)
        self._segments, self._pieces, self._own, self._held = [], {}, None, None
        self.full_reason = self.full_reason or "the store is closed"


def _stops(rows: Sequence[int]) -> list[int]:
    return np.cumsum(np.asarray(rows, dtype=np.int64)).tolist()


def _bytes_of(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _records(digests: Sequence[bytes], rows: Sequence[int], view: memoryview) -> np.ndarray:
    """Records of pieces whose rows fill `view` one after another; offsets count from its start."""
    records = np.zeros(len(digests), RECORD)
    records["digest"] = np.frombuffer(b"".join(digests), RECORD["digest"])
    records["rows"] = rows
    row_bytes = len(view) // sum(rows)
    stops = [stop * row_bytes for stop in _stops(rows)]
    starts = [0, *stops[:-1]]
    records["offset"] = starts
    slices = zip(digests, starts, stops, strict=True)
    records["checksum"] = [checksum(digest, view[start:stop]) for digest, start, stop in slices]
    return records
