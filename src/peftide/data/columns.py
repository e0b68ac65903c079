"""Which column holds what: by the name given, by the exact name, by a likely synonym; never by guessing between two."""

import difflib
import re
from dataclasses import dataclass
from typing import Literal

from peftide.config import DataSettings
from peftide.data.findings import Findings, listed, words
from peftide.data.rows import Header, iterate_rows
from peftide.data.tables import Table
from peftide.data.validate import holds_splits

Role = Literal["protein_a", "protein_b", "sequence_a", "sequence_b", "id", "sequence", "label", "split", "cluster"]

KIND = "columns"  # of these findings
PAIR_CLUSTERS = ("cluster_a", "cluster_b")  # as `peftide split` writes them, for pairs; no other name is read
POSITIVES_ONLY = "where every pair is a positive one, peftide split --negatives 1 adds as many presumed negatives"
PAIR_ROLES: tuple[Role, ...] = ("protein_a", "protein_b", "sequence_a", "sequence_b")
ONE_PROTEIN_ROLES: tuple[Role, ...] = ("id", "sequence")
FLAGS: dict[Role, str] = {
    "protein_a": "--column-a",
    "protein_b": "--column-b",
    "sequence_a": "--column-a",
    "sequence_b": "--column-b",
    "id": "--column-id",
    "sequence": "--column-sequence",
    "label": "--column-label",
    "split": "--column-split",
    "cluster": "--column-cluster",
}


def _of_member(letter: str, number: str, stems: str) -> frozenset[str]:
    return frozenset(stem.replace("#", end) for stem in stems.split() for end in (letter, number))


_PROTEIN_STEMS = (
    "protein# proteinid# protein#id prot# interactor# interactorid# id# uniprot# uniprotid# accession# partner#"
)
_SEQUENCE_STEMS = "sequence# seq# proteinsequence# protein#sequence protein#seq aasequence#"
# Names without regard to case, spaces and punctuation: "Protein 1" is "protein1".
SYNONYMS: dict[Role, frozenset[str]] = {
    "protein_a": _of_member("a", "1", _PROTEIN_STEMS),
    "protein_b": _of_member("b", "2", _PROTEIN_STEMS),
    "sequence_a": _of_member("a", "1", _SEQUENCE_STEMS),
    "sequence_b": _of_member("b", "2", _SEQUENCE_STEMS),
    "id": words(
        "id ids identifier protein proteinid name accession accessionid acc uniprot uniprotid uniprotac "
        "uniprotaccession uniprotkb entry entryid seqid sequenceid"
    ),
    "sequence": words("sequence sequences seq seqs aasequence aaseq aminoacidsequence proteinsequence proteinseq"),
    "label": words(
        "label labels y target targets class classes value outcome property symmetry symmetries "
        "interaction interacts interacting isinteraction isinteracting"
    ),
    "split": words("split splits set subset partition"),
    "cluster": words("cluster clusterid"),
}


@dataclass(frozen=True)
class MemberColumns:
    """Where one protein of an example stands: a column of ids, of sequences, or both."""

    id: str | None
    sequence: str | None


@dataclass(frozen=True)
class ExampleColumns:
    """The columns of a table of examples: one or two members, label, split and clusters where they are read.

    clusters: a column for each member, or none.
    """

    members: tuple[MemberColumns, ...]
    label: str | None
    split: str | None
    clusters: tuple[str, ...]


def find_column(table: Table, role: Role, *, named: str | None, findings: Findings) -> str | None:
    """The column of `role`: the one `named` by the user, else that of the exact name, else the only likely synonym.

    A synonym is said in the notes; a name that is not there and a choice between two synonyms are problems. None
    where there is no such column.
    """
    if named is not None:
        if named not in table.cells:
            findings.add(KIND, f"{table.path}: there is no column {named!r}; {_there_are(table, named)}")
        return named if named in table.cells else None
    candidates = _candidates(table, role)
    if len(candidates) > 1:
        problem = f"{table.path}: {listed(candidates)} could each be the {role}; name one with {FLAGS[role]}"
        findings.add(KIND, problem)
    if len(candidates) != 1:
        return None
    if candidates[0] != role:
        findings.notes.append(f"{table.path}: column {candidates[0]!r} is read as {role}")
    return candidates[0]


def require_column(table: Table, role: Role, *, named: str | None, findings: Findings) -> str | None:
    """As `find_column`, but a column that is not there is a problem that names the nearest one."""
    if named is None and not _candidates(table, role):
        mend = f"name the right one with {FLAGS[role]}"
        findings.add(KIND, f"{table.path}: no column {role!r}; {_there_are(table, role)}; {mend}")
        return None
    return find_column(table, role, named=named, findings=findings)


def find_example_columns(
    table: Table, settings: DataSettings, *, labelled: bool, with_split: bool = True, findings: Findings
) -> ExampleColumns:
    """The columns of a table of examples for `settings.task`; what is missing or unclear is a problem of KIND.

    with_split: False leaves a column of splits unread, and one of clusters that the user did not name.
    """
    read_members = _pair_columns if settings.task == "pair" else _protein_columns
    members = read_members(table, settings, findings)
    if KIND in findings.problems and (other := _other_task(table, settings)) is not None:
        findings.add(KIND, f"{table.path}: {other}")
    label = split = None
    clusters: tuple[str, ...] = ()
    if labelled and table.kind == "fasta":
        mend = "give a table with id and label, and this file as --sequences"
        findings.add(KIND, f"{table.path}: FASTA carries no labels; {mend}")
    elif labelled:
        label = require_column(table, "label", named=settings.column_label, findings=findings)
        if settings.task == "pair" and settings.column_label is None and not _candidates(table, "label"):
            findings.add(KIND, f"{table.path}: {POSITIVES_ONLY}")
        split = _split_column(table, named=settings.column_split, findings=findings) if with_split else None
        if with_split or settings.column_cluster is not None:
            clusters = _cluster_columns(table, settings, findings=findings)
    return ExampleColumns(members=members, label=label, split=split, clusters=clusters)


def _other_task(table: Table, settings: DataSettings) -> str | None:
    """What to say where the columns are those of the other kind of table; None where they are not."""
    looks_paired = any(_candidates(table, role) for role in PAIR_ROLES)
    looks_single = any(_candidates(table, role) for role in ONE_PROTEIN_ROLES)
    if settings.task == "pair" and looks_single and not looks_paired:
        return "task pair reads two proteins a row; one protein a row is for --task protein or --task symmetry"
    if settings.task != "pair" and looks_paired and not looks_single:
        return f"task {settings.task} reads one protein a row; two proteins a row are for --task pair"
    return None


def find_protein_columns(
    table: Table, *, column_id: str | None, column_sequence: str | None, needs_id: bool, findings: Findings
) -> MemberColumns:
    """The columns of a table of sequences; what is missing or unclear is a problem of KIND."""
    find_id = require_column if needs_id else find_column
    id_name = find_id(table, "id", named=column_id, findings=findings)
    sequence = require_column(table, "sequence", named=column_sequence, findings=findings)
    return MemberColumns(id_name, sequence)


def check_columns(path: str, *, findings: Findings) -> None:
    """Raise UserError with all problems where a column is missing or unclear: nothing else can be checked then."""
    if KIND in findings.problems:
        findings.raise_problems(path)


def settle_columns(header: Header, said: Findings, *, findings: Findings) -> None:
    """`check_columns` for a file whose rows are still to be read: what is wrong with those comes before `said`."""
    if KIND in said.problems:
        for _ in iterate_rows(header, header.names, findings=findings):
            pass
        findings.join(said)
        findings.raise_problems(header.path)


def _split_column(table: Table, *, named: str | None, findings: Findings) -> str | None:
    """A column that is called a synonym of split but holds other things (`set`: "A", "B") is left alone."""
    if named is not None or "split" in table.cells:
        return find_column(table, "split", named=named, findings=findings)
    candidates = _candidates(table, "split")
    fitting = [name for name in candidates if holds_splits(table.cells[name])]
    others = [name for name in candidates if name not in fitting]
    if others:
        findings.notes.append(f"{table.path}: column {listed(others)} is not read as split: it holds other values")
    if len(fitting) > 1:
        findings.add(KIND, f"{table.path}: {listed(fitting)} could each be the split; name one with {FLAGS['split']}")
    if len(fitting) == 1:
        findings.notes.append(f"{table.path}: column {fitting[0]!r} is read as split")
    return fitting[0] if len(fitting) == 1 else None


def _cluster_columns(table: Table, settings: DataSettings, *, findings: Findings) -> tuple[str, ...]:
    """A column that nobody named is left alone where some of its cells are empty."""
    named = settings.column_cluster
    if settings.task == "pair":
        columns = [name for name in PAIR_CLUSTERS if name in table.cells]
        if len(columns) != len(PAIR_CLUSTERS):
            return ()
    else:
        found = find_column(table, "cluster", named=named, findings=findings)
        columns = [] if found is None else [found]
    holed = [name for name in columns if not all(text.strip() for text in set(table.cells[name]))]
    if not holed or named is not None:
        return tuple(columns)
    findings.notes.append(f"{table.path}: column {holed[0]!r} is not read as cluster: some of its cells are empty")
    return ()


def _protein_columns(table: Table, settings: DataSettings, findings: Findings) -> tuple[MemberColumns, ...]:
    if settings.sequences is not None and table.kind != "fasta":
        return (MemberColumns(require_column(table, "id", named=settings.column_id, findings=findings), None),)
    named = settings.column_sequence
    if named is None and not _candidates(table, "sequence") and (settings.column_id or _candidates(table, "id")):
        mend = "give the sequences with --sequences, or their column with --column-sequence"
        findings.add(KIND, f"{table.path}: no column 'sequence'; {_there_are(table, 'sequence')}; {mend}")
        return ()
    sequence = require_column(table, "sequence", named=named, findings=findings)
    return (MemberColumns(find_column(table, "id", named=settings.column_id, findings=findings), sequence),)


def _pair_columns(table: Table, settings: DataSettings, findings: Findings) -> tuple[MemberColumns, ...]:
    """Ids where `sequences` is given; else sequences from the table, beside ids where it has both."""
    if table.kind == "fasta":
        mend = "give a table of pairs, and this file as --sequences"
        findings.add(KIND, f"{table.path}: FASTA holds no pairs; {mend}")
        return ()
    named_a, named_b = settings.column_a, settings.column_b
    if settings.sequences is not None:
        id_a = require_column(table, "protein_a", named=named_a, findings=findings)
        id_b = require_column(table, "protein_b", named=named_b, findings=findings)
        return MemberColumns(id_a, None), MemberColumns(id_b, None)
    return (
        _member_with_sequence(table, ("protein_a", "sequence_a"), named=named_a, findings=findings),
        _member_with_sequence(table, ("protein_b", "sequence_b"), named=named_b, findings=findings),
    )


def _member_with_sequence(
    table: Table, roles: tuple[Role, Role], *, named: str | None, findings: Findings
) -> MemberColumns:
    """A column that the user names holds sequences, or ids where the table has another column of sequences."""
    id_role, sequence_role = roles
    if _candidates(table, sequence_role):
        sequence = find_column(table, sequence_role, named=None, findings=findings)
        id_name = None if named == sequence else named
        return MemberColumns(find_column(table, id_role, named=id_name, findings=findings), sequence)
    id_candidates = [name for name in _candidates(table, id_role) if name != named]
    if named is None and id_candidates:
        mend = "give the sequences with --sequences, or as columns sequence_a and sequence_b"
        findings.add(KIND, f"{table.path}: {listed(id_candidates)} names proteins whose sequences are not here; {mend}")
        return MemberColumns(None, None)
    sequence = require_column(table, sequence_role, named=named, findings=findings)
    id_name = find_column(table, id_role, named=None, findings=findings) if id_candidates else None
    return MemberColumns(id_name, sequence)


def _candidates(table: Table, role: Role) -> list[str]:
    """The exact name alone, else every synonym in the table."""
    if role in table.cells:
        return [role]
    return [name for name in table.cells if _squeezed(name) in SYNONYMS[role]]


def _squeezed(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())


def _there_are(table: Table, wanted: str) -> str:
    squeezed = {_squeezed(name): name for name in table.cells if len(name) <= 100}
    similar = difflib.get_close_matches(_squeezed(wanted)[:100], squeezed, n=1)
    hint = f" (did you mean {squeezed[similar[0]]!r}?)" if similar else ""
    return f"there are {listed(table.cells)}{hint}"
