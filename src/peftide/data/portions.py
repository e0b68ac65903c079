"""Portions of consecutive proteins, cut by a fixed rule: what is encoded, kept and, if need be, done again as one."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from peftide.records import Proteins


@dataclass(frozen=True)
class PortionSize:
    """The most rows and residues of a portion; a protein of more residues is a portion by itself."""

    rows: int
    residues: int


@dataclass(frozen=True)
class Outline:
    """A portion before its proteins are read: its first row, its rows, their residues to encode, and their digest."""

    number: int
    first_row: int
    num_rows: int
    num_residues: int
    digest: str


@dataclass(frozen=True)
class Portion:
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
    """The digest of a portion from those of its rows."""
    return hashlib.blake2b(b"".join(digests), digest_size=16).hexdigest()


class PortionCutter:
    """Cuts rows into outlines as they come; `finish` gives them."""

    def __init__(self, size: PortionSize) -> None:
        self._size = size
        self._outlines: list[Outline] = []
        self._digests: list[bytes] = []
        self._num_residues = 0

    def add(self, digest: bytes, num_residues: int) -> None:
        """One more row, of this digest, and so many residues to encode."""
        is_full = len(self._digests) == self._size.rows or self._num_residues + num_residues > self._size.residues
        if self._digests and is_full:
            self._cut()
        self._digests.append(digest)
        self._num_residues += num_residues

    def finish(self) -> tuple[Outline, ...]:
        """End the last outline; all outlines."""
        if self._digests:
            self._cut()
        return tuple(self._outlines)

    def _cut(self) -> None:
        first = self._outlines[-1].first_row + self._outlines[-1].num_rows if self._outlines else 0
        digest = rows_digest(self._digests)
        self._outlines.append(Outline(len(self._outlines), first, len(self._digests), self._num_residues, digest))
        self._digests, self._num_residues = [], 0


def outlines_digest(outlines: Iterable[Outline]) -> str:
    """A digest of all rows, and of how they are cut."""
    return hashlib.blake2b("".join(outline.digest for outline in outlines).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class ProteinsInMemory:
    """Portions of a table of proteins."""

    proteins: Proteins
    outlines: tuple[Outline, ...]

    @staticmethod
    def cut(proteins: Proteins, size: PortionSize, *, most_residues: int | None) -> "ProteinsInMemory":
        """Cut a table; most_residues: of a protein that are encoded, None: all."""
        cutter = PortionCutter(size)
        for name, sequence in zip(proteins.ids, proteins.sequences, strict=True):
            cutter.add(record_digest(name, sequence), len(sequence[:most_residues]))
        return ProteinsInMemory(proteins, cutter.finish())

    def portions(self, *, is_done: Callable[[Outline], bool] = lambda outline: False) -> Iterator[Portion]:
        """The portions that are not done, in order."""
        for outline in self.outlines:
            if not is_done(outline):
                part = slice(outline.first_row, outline.first_row + outline.num_rows)
                yield Portion(outline.number, outline.digest, self.proteins.ids[part], self.proteins.sequences[part])
