"""Proteins of examples that are named by their ids, and whose sequences are in another file."""

import re
from array import array
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from peftide.config import DataSettings
from peftide.data.carried import CarriedMembers, FoundProteins
from peftide.data.cleaned import note_merged
from peftide.data.columns import MemberColumns, find_protein_columns, settle_columns
from peftide.data.files import FileKind
from peftide.data.findings import Findings, counted, listed, nearest, quoted, repeated
from peftide.data.protein_file import ProteinFile
from peftide.data.rows import place_of, read_header
from peftide.data.tables import rowless_table
from peftide.data.trimming import Trimming

NEAREST_IDS = 5  # unknown ids for which the most similar known one is looked up: that takes about 0.1 s each
_UNIPROT_HEADER = re.compile(r"(?:sp|tr)\|([^|\s]+)\|")


@dataclass(frozen=True)
class Source:
    """What is kept of a file of sequences.

    ids: all that are in it; records: line and sequence as written of each row whose id, or accession in one of
    UniProt's headers, is needed, by id.
    """

    path: str
    kind: FileKind
    ids: Collection[str]
    records: Mapping[str, Sequence[tuple[int, str]]]
    trimming: Trimming


class NamedMembers:
    """Proteins numbered from 0 in the order in which their ids first appear; a missing one, a problem, is -1.

    An id without a sequence is a problem; `P12345` also finds UniProt's headers `sp|P12345|NAME`. Memory grows with the
    different ids, not with the rows.
    """

    def __init__(self, path: str, kind: FileKind, columns: Sequence[str], settings: DataSettings) -> None:
        self._path, self._kind, self._settings = path, kind, settings
        self.columns = tuple(columns)
        self._trimmings = [Trimming(column) for column in columns]
        self._number_of: dict[str, int] = {}
        self._lines, self._counts = array("q"), array("q")  # by number: the first line, how often it is named

    def take(self, line: int, cells: Sequence[str]) -> list[int]:
        """The numbers of the proteins of one more row; cells: those of `columns`."""
        numbers = []
        for trimming, cell in zip(self._trimmings, cells, strict=True):
            number = self._number_of.get(cell)  # most cells are ids that are known, without white space
            if number is None:
                number = self._number(line, trimming.trim(line, cell))
            if number >= 0:
                self._counts[number] += 1
            numbers.append(number)
        return numbers

    def _number(self, line: int, name: str) -> int:
        if not name:
            return -1
        number = self._number_of.setdefault(name, len(self._lines))
        if number == len(self._lines):
            self._lines.append(line)
            self._counts.append(0)
        return number

    def find(self, *, findings: Findings) -> FoundProteins:
        """The proteins when all rows were taken, from the file of sequences, which is read now.

        What no example names is counted and left out unchecked. Raises UserError where the file cannot be read or its
        columns are missing or unclear.
        """
        source = _read_source(self._settings, self._number_of, findings=findings)
        for trimming in self._trimmings:
            trimming.tell(self._path, self._kind, findings=findings)
        source.trimming.tell(source.path, source.kind, findings=findings)
        records_of = _match_ids(source, self._number_of, findings=findings)
        self._report_unknown(source, records_of, findings=findings)
        part = CarriedMembers(source.path, source.kind, (MemberColumns("id", "sequence"),))
        for name, records in records_of.items():
            for line, sequence in records:
                part.take(line, (name, sequence))
        found = part.find(findings=findings)
        note_merged(source.path, sum(map(len, records_of.values())) - len(found.proteins), findings=findings)
        if len(source.ids) > len(records_of):
            number = counted(len(source.ids) - len(records_of), "protein")
            findings.notes.append(f"{source.path}: {number} of {len(source.ids):,} not used by any example, left out")
        row_of = {name: row for row, name in enumerate(found.proteins.ids)}
        row_of_M = np.array([row_of.get(name, -1) for name in self._number_of], np.int64)
        return FoundProteins(found.proteins, found.path, found.kind, found.lines, row_of_M)

    def _report_unknown(self, source: Source, known: Collection[str], *, findings: Findings) -> None:
        unknown = ((name, number) for name, number in self._number_of.items() if name not in known)
        for position, (name, number) in enumerate(unknown):
            similar = nearest(name, source.ids) if position < NEAREST_IDS else None
            others = f" (it has {listed(source.ids, shown=3)})" if position == 0 else ""
            hint = f" (nearest: {quoted(similar)})" if similar else others
            where = f"{source.path}{hint}{repeated(range(self._counts[number]))}"
            place = place_of(self._path, self._kind, self._lines[number])
            findings.add(
                "unknown ids", f"{place}: {quoted(name)} is not in {where}; add its sequence or remove the row"
            )


def _read_source(settings: DataSettings, needed: Collection[str], *, findings: Findings) -> Source:
    """Read a file of sequences once; the sequences that are not needed are not kept."""
    assert settings.sequences is not None
    header = read_header(settings.sequences, findings=findings)
    column_id = settings.column_id
    if settings.task != "pair" and column_id not in header.names:
        column_id = None  # it names the column of the examples
    said = Findings()
    columns = find_protein_columns(
        rowless_table(header), column_id=column_id, column_sequence=settings.column_sequence, needs_id=True,
        findings=said,
    )  # fmt: skip
    settle_columns(header, said, findings=findings)
    assert columns.id is not None
    trimming = Trimming(columns.id)
    ids: dict[str, None] = {}
    records: dict[str, list[tuple[int, str]]] = {}
    for row in ProteinFile(header, columns).rows(findings=findings):
        name = trimming.trim(row.line, row.raw_name or "")
        ids[name] = None
        match = None if name in needed else _UNIPROT_HEADER.match(name)
        if name in needed or (match and match[1] in needed):
            records.setdefault(name, []).append((row.line, row.raw_sequence))
    findings.join(said)
    ids.pop("", None)
    return Source(header.path, header.file_format.kind, ids, records, trimming)


def _match_ids(source: Source, needed: Iterable[str], *, findings: Findings) -> dict[str, Sequence[tuple[int, str]]]:
    """The records of each needed id that the source has, in the order of need."""
    by_accession: dict[str, list[tuple[int, str]]] = {}
    for name, records in source.records.items():
        if match := _UNIPROT_HEADER.match(name):
            by_accession.setdefault(match[1], []).extend(records)
    matched = [name for name in needed if name not in source.records and name in by_accession]
    if matched:
        number = f"{counted(len(matched), 'protein')} such as {quoted(matched[0])}"
        findings.notes.append(f"{source.path}: {number} found by the accession in UniProt's headers")
    found = {name: source.records.get(name) or by_accession.get(name) for name in needed}
    return {name: records for name, records in found.items() if records}
