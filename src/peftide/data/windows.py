"""Windows of consecutive proteins, cut by a fixed rule: what is encoded, kept and, if need be, done again as one."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from peftide.records import Proteins


@dataclass(frozen=True)
class WindowSize:
    """The most rows and residues of a window; a protein of more residues is a window by itself."""

    rows: int
    residues: int


@dataclass(frozen=True)
class Span:
    """A window before its proteins are read: its first row, its rows, their residues to encode, and their digest."""

    number: int
    first_row: int
    num_rows: int
    num_residues: int
    digest: str


@dataclass(frozen=True)
class Window:
    """Proteins to encode together; plain values, for whichever process does it.

    number: from 0; digest: of ids and sequences.
    """

    number: int
    digest: str
    ids: tuple[str, ...]
    sequences: tuple[str, ...]

    @property
    def proteins(self) -> Proteins:
        """The proteins as a table."""
        return Proteins(self.ids, self.sequences)


def record_digest(name: str, sequence: str) -> bytes:
    """16 bytes that stand for a protein under its id."""
    return hashlib.blake2b(f"{len(name)}:{name}{sequence}".encode(), digest_size=16).digest()


def rows_digest(digests: Iterable[bytes]) -> str:
    """The digest of a window from those of its rows."""
    return hashlib.blake2b(b"".join(digests), digest_size=16).hexdigest()


class SpanCutter:
    """Cuts rows into spans as they come; `finish` gives them."""

    def __init__(self, size: WindowSize) -> None:
        self._size = size
        self._spans: list[Span] = []
        self._digests: list[bytes] = []
        self._num_residues = 0

    def add(self, digest: bytes, num_residues: int) -> None:
        """One more row, of this digest, and so many residues to encode."""
        is_full = len(self._digests) == self._size.rows or self._num_residues + num_residues > self._size.residues
        if self._digests and is_full:
            self._cut()
        self._digests.append(digest)
        self._num_residues += num_residues

    def finish(self) -> tuple[Span, ...]:
        """End the last span; all spans."""
        if self._digests:
            self._cut()
        return tuple(self._spans)

    def _cut(self) -> None:
        first = self._spans[-1].first_row + self._spans[-1].num_rows if self._spans else 0
        digest = rows_digest(self._digests)
        self._spans.append(Span(len(self._spans), first, len(self._digests), self._num_residues, digest))
        self._digests, self._num_residues = [], 0


def spans_digest(spans: Iterable[Span]) -> str:
    """A digest of all rows, and of how they are cut."""
    return hashlib.blake2b("".join(span.digest for span in spans).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class ProteinsInMemory:
    """Windows of a table of proteins."""

    proteins: Proteins
    spans: tuple[Span, ...]

    @staticmethod
    def cut(proteins: Proteins, size: WindowSize, *, most_residues: int | None) -> "ProteinsInMemory":
        """Cut a table; most_residues: of a protein that are encoded, None: all."""
        cutter = SpanCutter(size)
        for name, sequence in zip(proteins.ids, proteins.sequences, strict=True):
            cutter.add(record_digest(name, sequence), len(sequence[:most_residues]))
        return ProteinsInMemory(proteins, cutter.finish())

    def windows(self, *, is_done: Callable[[Span], bool] = lambda span: False) -> Iterator[Window]:
        """The windows that are not done, in order."""
        for span in self.spans:
            if not is_done(span):
                part = slice(span.first_row, span.first_row + span.num_rows)
                yield Window(span.number, span.digest, self.proteins.ids[part], self.proteins.sequences[part])
