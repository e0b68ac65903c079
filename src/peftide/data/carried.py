"""Proteins of examples whose sequences stand in the rows themselves, one or two to a row."""

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from peftide.data.cleaned import ID_OF, name_problem, note_named_by_sequence, note_remarks, remarks, sequence_problem
from peftide.data.columns import MemberColumns
from peftide.data.files import FileKind
from peftide.data.findings import Findings, quoted
from peftide.data.rows import place_of
from peftide.data.sequences import Cleaned, clean_sequence, sequence_id
from peftide.data.trimming import Trimming
from peftide.records import Proteins


@dataclass(frozen=True)
class FoundProteins:
    """Unique proteins, and where each stands first: its line in a file of some kind.

    row_of_M: int64 rows in `proteins` of the M numbers that members were given, -1 where there is none, a problem.
    """

    proteins: Proteins
    path: str
    kind: FileKind
    lines: Sequence[int]
    row_of_M: np.ndarray

    def place(self, row: int) -> str:
        """`file:line` of a protein."""
        return place_of(self.path, self.kind, self.lines[row])


class CarriedMembers:
    """Proteins numbered from 0 in the order in which their ids first appear; without a column of ids the SHA-256 of the
    sequence is the id.

    One id with two sequences is a problem, as are letters that are no residues, empty sequences and missing ids (whose
    number is -1). Memory grows with the different ids and the different sequences as written, not with the rows.
    """

    def __init__(self, path: str, kind: FileKind, members: Sequence[MemberColumns]) -> None:
        self._path, self._kind = path, kind
        columns: list[str] = []
        self._reads: list[tuple[Trimming | None, int]] = []  # of each member; the place of its last cell
        for member in members:
            assert member.sequence is not None
            columns += [member.sequence] if member.id is None else [member.id, member.sequence]
            self._reads.append((None if member.id is None else Trimming(member.id), len(columns) - 1))
        self.columns = tuple(columns)
        self._cleaned: dict[str, Cleaned] = {}  # by sequence as written
        self._number_of: dict[str, int] = {}
        self._first: list[Cleaned] = []  # by number, as is the line
        self._lines = array("q")
        self._conflicts = Findings()

    def take(self, line: int, cells: Sequence[str]) -> list[int]:
        """The numbers of the proteins of one more row; cells: those of `columns`."""
        numbers = []
        for trimming, place in self._reads:
            raw = cells[place]
            cleaned = self._cleaned.get(raw)
            if cleaned is None:
                cleaned = self._cleaned[raw] = clean_sequence(raw)
            name = sequence_id(cleaned.sequence) if trimming is None else trimming.trim(line, cells[place - 1])
            numbers.append(self._number(line, name, cleaned) if name else -1)
        return numbers

    def _number(self, line: int, name: str, cleaned: Cleaned) -> int:
        number = self._number_of.setdefault(name, len(self._first))
        if number == len(self._first):
            self._first.append(cleaned)
            self._lines.append(line)
        elif self._first[number].sequence != cleaned.sequence:
            here, there = (place_of(self._path, self._kind, at) for at in (line, self._lines[number]))
            what = f"{quoted(name)} has another sequence than at {there}; give each sequence its own id"
            what += ID_OF.get(self._kind, "")
            self._conflicts.add("ids", f"{here}: {what}")
        return number

    def find(self, *, findings: Findings) -> FoundProteins:
        """The proteins when all rows were taken; what is to be said of them is in the findings then."""
        for trimming, _ in self._reads:
            if trimming is not None:
                trimming.tell(self._path, self._kind, findings=findings)
        if any(trimming is None for trimming, _ in self._reads):
            note_named_by_sequence(self._path, findings=findings)
        findings.join(self._conflicts)
        for (name, number), cleaned in zip(self._number_of.items(), self._first, strict=True):
            place = place_of(self._path, self._kind, self._lines[number])
            if what := name_problem(name):
                findings.add("ids", f"{place}: {what}")
            if problem := sequence_problem(name, cleaned):
                findings.add(problem[0], f"{place}: {problem[1]}")
        counts = Counter(remark for cleaned in self._cleaned.values() for remark in remarks(cleaned))
        note_remarks(self._path, counts, findings=findings)
        proteins = Proteins(tuple(self._number_of), tuple(cleaned.sequence for cleaned in self._first))
        return FoundProteins(proteins, self._path, self._kind, self._lines, np.arange(len(proteins)))
