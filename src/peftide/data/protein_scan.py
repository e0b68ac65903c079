"""The first reading of a file of proteins of any size: what is wrong, what was cleaned, its portions."""

from array import array
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from peftide.data.cleaned import ID_OF, name_problem, note_named_by_sequence, note_remarks, remarks, sequence_problem
from peftide.data.findings import MOST_KEPT, Findings, quoted
from peftide.data.portions import PortionCutter, PortionSize, record_digest
from peftide.data.protein_file import CheckedFile, ProteinFile, Row
from peftide.data.repeats import Repeats, RowDigests
from peftide.data.sequences import Cleaned
from peftide.data.trimming import Trimming


@dataclass(frozen=True)
class ScanRules:
    """How a file of proteins is to be read.

    merges: rows that repeat a protein are left out of its portions. max_residues: longer proteins are counted, and with
    `crops` no more residues than that are encoded. is_unfit: whether the output cannot hold an id.
    """

    portion: PortionSize
    merges: bool
    max_residues: int | None = None
    crops: bool = False
    is_unfit: Callable[[str], bool] = lambda name: False


@dataclass(frozen=True)
class Found:
    """A protein of which something is to be said."""

    place: str
    name: str
    num_residues: int
    what: str = ""


class Finds:
    """The rows with something to be said of, and the first of them in full: memory of 8 bytes a row."""

    def __init__(self) -> None:
        self._rows = array("q")
        self._kept: list[Found] = []

    def add(self, row: int, found: Found) -> None:
        """One more row."""
        self._rows.append(row)
        if len(self._kept) < MOST_KEPT:
            self._kept.append(found)

    def texts(self, repeats: np.ndarray, say: Callable[[Found], str]) -> list[str]:
        """A text for each row that does not repeat another; those of rows that were not kept are empty."""
        is_repeat = np.isin(np.array(self._rows, np.int64), repeats)
        shown = [say(found) for found, repeat in zip(self._kept, is_repeat[:MOST_KEPT], strict=True) if not repeat]
        return shown + [""] * (len(is_repeat) - int(is_repeat.sum()) - len(shown))


@dataclass(frozen=True)
class Scan:
    """A file that was read once. num_unique: ids in it; long, unfit: what there is to say of those that are so."""

    checked: CheckedFile
    num_unique: int
    repeats: np.ndarray
    long: Finds
    unfit: Finds


def scan_proteins(file: ProteinFile, rules: ScanRules, *, findings: Findings) -> Scan:
    """Read a whole file, with 16 bytes of memory for a row; problems and notes are in the findings then.

    A protein without an id is named by its sequence. One id with two sequences is a problem, as are letters that are
    no residues and empty sequences. Raises UserError where the file cannot be read.
    """
    reading = _Reading(file, rules)
    for row, found in enumerate(file.rows(findings=findings)):
        reading.take(row, found)
    repeats = reading.digests.repeats()
    reading.tell(repeats, findings=findings)
    checked = CheckedFile(file, reading.cutter.finish(), repeats.same if rules.merges else repeats.same[:0])
    num_unique = len(reading.digests) - len(repeats.same)
    return Scan(checked, num_unique, repeats.same, reading.long, reading.unfit)


class _Reading:
    """What is gathered on the way."""

    def __init__(self, file: ProteinFile, rules: ScanRules) -> None:
        self.file, self.rules = file, rules
        self.digests, self.cutter = RowDigests(), PortionCutter(rules.portion)
        self.trimming = Trimming(file.columns.id or "")
        self.problems: dict[str, Finds] = defaultdict(Finds)
        self.remarks: dict[str, array] = defaultdict(lambda: array("q"))  # hashes of sequences as written
        self.long, self.unfit = Finds(), Finds()

    def take(self, row: int, found: Row) -> None:
        """One more row."""
        name, cleaned = found.cleaned()
        if found.raw_name is not None:
            self.trimming.trim(found.line, found.raw_name)
        record = record_digest(name, cleaned.sequence)
        self.digests.add(name or f"\0{row}", record)  # a missing id is no repetition of another
        num_residues = len(cleaned.sequence)
        limit = self.rules.max_residues
        self.cutter.add(record, min(num_residues, limit) if limit and self.rules.crops else num_residues)
        for remark in remarks(cleaned):
            self.remarks[remark].append(hash(found.raw_sequence))
        if name:
            self._check(row, found.line, name, cleaned)

    def _check(self, row: int, line: int, name: str, cleaned: Cleaned) -> None:
        place, num_residues = self.file.header.place(line), len(cleaned.sequence)
        if what := name_problem(name):
            self.problems["ids"].add(row, Found(place, name, num_residues, what))
        if problem := sequence_problem(name, cleaned):
            self.problems[problem[0]].add(row, Found(place, name, num_residues, problem[1]))
        if self.rules.max_residues is not None and num_residues > self.rules.max_residues:
            self.long.add(row, Found(place, name, num_residues))
        if self.rules.is_unfit(name):
            self.unfit.add(row, Found(place, name, num_residues))

    def tell(self, repeats: Repeats, *, findings: Findings) -> None:
        """Everything to the findings."""
        path, kind = self.file.header.path, self.file.header.file_format.kind
        self.trimming.tell(path, kind, findings=findings)
        if self.file.columns.id is None:
            note_named_by_sequence(path, findings=findings)
        for problem in _other_sequences(self.file, repeats):
            findings.add("ids", problem)
        unchecked = np.concatenate([repeats.same, repeats.others])
        for name, finds in self.problems.items():
            for problem in finds.texts(unchecked, lambda found: f"{found.place}: {found.what}"):
                findings.add(name, problem)
        note_remarks(path, {name: len(np.unique(found)) for name, found in self.remarks.items()}, findings=findings)


def _other_sequences(file: ProteinFile, repeats: Repeats) -> Sequence[str]:
    """The problems of ids that have another sequence than before; the file is read again for them."""
    pairs = list(zip(repeats.others.tolist(), repeats.firsts.tolist(), strict=True))
    kept = pairs[:MOST_KEPT]
    wanted = {row for pair in kept for row in pair}
    known = {  # place and name by row
        row: (file.header.place(found.line), found.cleaned()[0])
        for row, found in enumerate(file.rows(findings=Findings()) if wanted else ())
        if row in wanted
    }
    told = []
    for row, first in kept:
        (place, name), (first_place, first_name) = known[row], known[first]
        if name == first_name:  # else two ids have one digest
            what = f"{quoted(name)} has another sequence than at {first_place}"
            told.append(f"{place}: {what}; give each sequence its own id{ID_OF.get(file.header.file_format.kind, '')}")
    return told + [""] * (len(pairs) - len(kept))
