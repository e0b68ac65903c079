"""From ids and sequences, wherever they stand, to one table of unique, cleaned and checked proteins."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from peftide.data.cleaned import (
    name_problem,
    note_merged,
    note_named_by_sequence,
    note_remarks,
    remarks,
    sequence_problem,
)
from peftide.data.columns import MemberColumns, find_protein_columns
from peftide.data.findings import Findings, counted, listed, nearest, quoted, repeated, rows_by_value
from peftide.data.portions import PortionSize
from peftide.data.protein_file import ProteinFile
from peftide.data.protein_scan import ScanRules, scan_proteins
from peftide.data.rows import read_header
from peftide.data.sequences import Cleaned, clean_sequence, sequence_id
from peftide.data.tables import Table, rowless_table, trimmed
from peftide.records import Proteins

NEAREST_IDS = 5  # unknown ids for which the most similar known one is looked up: that takes about 0.1 s each
_UNIPROT_HEADER = re.compile(r"(?:sp|tr)\|([^|\s]+)\|")


@dataclass(frozen=True)
class FoundProteins:
    """Unique proteins, the place of each in its file, and (N, K) int64 rows into them (-1: unknown, a problem)."""

    proteins: Proteins
    places: tuple[str, ...]
    members_NK: np.ndarray


def find_proteins(
    path: str, *, column_id: str | None = None, column_sequence: str | None = None, findings: Findings
) -> ProteinFile:
    """Where the proteins of a FASTA file or table stand; raises UserError where that is missing or unclear."""
    header = read_header(path, findings=findings)
    columns = find_protein_columns(
        rowless_table(header), column_id=column_id, column_sequence=column_sequence, needs_id=False, findings=findings
    )
    return ProteinFile(header, columns)


def read_proteins(
    path: str, *, column_id: str | None = None, column_sequence: str | None = None
) -> tuple[Proteins, tuple[str, ...]]:
    """Every protein of a FASTA file or table, once per id in order of first appearance, and the notes of reading.

    Raises UserError with all problems: ids that are missing or have different sequences, letters that are no
    residues, empty sequences.
    """
    findings = Findings()
    file = find_proteins(path, column_id=column_id, column_sequence=column_sequence, findings=findings)
    scan = scan_proteins(file, ScanRules(PortionSize(rows=10_000, residues=10**7), merges=True), findings=findings)
    findings.raise_problems(path)
    note_merged(path, len(scan.checked.repeats), findings=findings)
    portions = list(scan.checked.portions())
    ids, sequences = zip(*((portion.ids, portion.sequences) for portion in portions), strict=True)
    return Proteins(tuple(chain(*ids)), tuple(chain(*sequences))), tuple(findings.notes)


def proteins_in_table(table: Table, members: Sequence[MemberColumns], *, findings: Findings) -> FoundProteins:
    """The proteins whose sequences stand in the table itself, one or two to a row.

    A protein without an id is named by its sequence. One id with two sequences is a problem, as are letters that are
    no residues and empty sequences.
    """
    num_members = len(members)
    raw_KN = [table.cells[member.sequence] for member in members if member.sequence is not None]
    cleaned_of = {raw: clean_sequence(raw) for raw in dict.fromkeys(_rowwise(raw_KN))}
    ids_KN = [
        [sequence_id(cleaned_of[raw].sequence) for raw in raws]
        if member.id is None
        else trimmed(table, member.id, findings=findings)
        for member, raws in zip(members, raw_KN, strict=True)
    ]
    if any(member.id is None for member in members):
        note_named_by_sequence(table.path, findings=findings)
    first: dict[str, tuple[int, Cleaned]] = {}  # by id: the row and the sequence of its first appearance
    for place, (name, raw) in enumerate(zip(_rowwise(ids_KN), _rowwise(raw_KN), strict=True)):
        row, cleaned = place // num_members, cleaned_of[raw]
        first_row, known = first.setdefault(name, (row, cleaned))
        if name and known.sequence != cleaned.sequence:
            what = f"{quoted(name)} has another sequence than at {table.place(first_row)}"
            findings.add("ids", f"{table.place(row)}: {what}; give each sequence its own id")
    first.pop("", None)  # a missing id, known as a problem
    _check_sequences(table, first, findings=findings)
    counts = Counter(remark for cleaned in cleaned_of.values() for remark in remarks(cleaned))
    note_remarks(table.path, counts, findings=findings)
    return FoundProteins(
        proteins=Proteins(ids=tuple(first), sequences=tuple(cleaned.sequence for _, cleaned in first.values())),
        places=tuple(table.place(row) for row, _ in first.values()),
        members_NK=_members(ids_KN, tuple(first)),
    )


def proteins_in_file(
    table: Table, id_columns: Sequence[str], source: Table, columns: MemberColumns, *, findings: Findings
) -> FoundProteins:
    """The proteins that a table of examples names, with their sequences from `source`.

    What no example names is counted and left out unchecked. An id that `source` does not have is a problem; `P12345`
    also finds UniProt's headers `sp|P12345|NAME`.
    """
    assert columns.id is not None
    assert columns.sequence is not None
    ids_KN = [trimmed(table, column, findings=findings) for column in id_columns]
    needed = rows_by_value(_rowwise(ids_KN))
    needed.pop("", None)
    known = rows_by_value(trimmed(source, columns.id, findings=findings))
    known.pop("", None)
    rows_of = _match_ids(source, needed, known, findings=findings)
    unknown = {
        name: [place // len(id_columns) for place in places] for name, places in needed.items() if name not in rows_of
    }
    _report_unknown(table, unknown, source, known, findings=findings)
    used = [(name, row) for name, rows in rows_of.items() for row in rows]
    sequences = source.cells[columns.sequence]
    part = Table(
        path=source.path,
        kind=source.kind,
        cells={"id": [name for name, _ in used], "sequence": [sequences[row] for _, row in used]},
        lines=[source.lines[row] for _, row in used],
    )
    found = proteins_in_table(part, (MemberColumns("id", "sequence"),), findings=findings)
    note_merged(part.path, len(part) - len(found.proteins), findings=findings)
    if len(known) > len(rows_of):
        number = counted(len(known) - len(rows_of), "protein")
        findings.notes.append(f"{source.path}: {number} of {len(known):,} not used by any example, left out")
    return FoundProteins(found.proteins, found.places, _members(ids_KN, found.proteins.ids))


def _rowwise(values_KN: Sequence[Sequence[str]]) -> Iterator[str]:
    """The values row by row: first member, second member, next row."""
    return (value for values in zip(*values_KN, strict=True) for value in values)


def _members(ids_KN: Sequence[Sequence[str]], ids: Sequence[str]) -> np.ndarray:
    index_of = {name: index for index, name in enumerate(ids)}
    return np.array([[index_of.get(name, -1) for name in names] for names in ids_KN], dtype=np.int64).T.copy()


def _check_sequences(table: Table, first: Mapping[str, tuple[int, Cleaned]], *, findings: Findings) -> None:
    for name, (row, cleaned) in first.items():
        if what := name_problem(name):
            findings.add("ids", f"{table.place(row)}: {what}")
        if problem := sequence_problem(name, cleaned):
            findings.add(problem[0], f"{table.place(row)}: {problem[1]}")


def _match_ids(
    source: Table, needed: Iterable[str], known: Mapping[str, list[int]], *, findings: Findings
) -> dict[str, list[int]]:
    """Rows of `source` for each needed id that it has, in the order of need."""
    by_accession: dict[str, list[int]] = {}
    if any(name not in known for name in needed):
        for name, rows in known.items():
            match = _UNIPROT_HEADER.match(name)
            if match:
                by_accession.setdefault(match[1], []).extend(rows)
    matched = [name for name in needed if name not in known and name in by_accession]
    if matched:
        number = f"{counted(len(matched), 'protein')} such as {quoted(matched[0])}"
        findings.notes.append(f"{source.path}: {number} found by the accession in UniProt's headers")
    return {name: known.get(name) or by_accession[name] for name in needed if name in known or name in by_accession}


def _report_unknown(
    table: Table, unknown: Mapping[str, Sequence[int]], source: Table, known: Collection[str], *, findings: Findings
) -> None:
    for number, (name, rows) in enumerate(unknown.items()):
        similar = nearest(name, known) if number < NEAREST_IDS else None
        others = f" (it has {listed(known, shown=3)})" if number == 0 else ""
        hint = f" (nearest: {quoted(similar)})" if similar else others
        what = f"{quoted(name)} is not in {source.path}{hint}{repeated(rows)}; add its sequence or remove the row"
        findings.add("unknown ids", f"{table.place(rows[0])}: {what}")
