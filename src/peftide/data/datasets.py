"""From files to a checked dataset: everything that is wrong in one error, everything that was done in the notes."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from peftide.config import DataSettings
from peftide.data.columns import POSITIVES_ONLY, ExampleColumns, check_columns, find_example_columns
from peftide.data.findings import Findings
from peftide.data.labels import Targets, read_targets
from peftide.data.members import ExampleMembers
from peftide.data.symmetry import SYMMETRY_CLASSES
from peftide.data.tables import Table, read_table, trimmed
from peftide.data.validate import (
    check_classes_in_splits,
    first_of_each,
    note_split,
    read_clusters,
    read_split,
)
from peftide.errors import raise_problems
from peftide.records import Dataset, Proteins, TargetKind, Task

USUAL_KIND: dict[Task, TargetKind] = {"pair": "binary", "protein": "binary", "symmetry": "multilabel"}


@dataclass(frozen=True)
class Rows:
    """Every row of a table of examples, before any is merged or left out; what is wrong with them is in the findings.

    members_NK: int64 rows into the proteins, -1 for an unknown one. labels: as written, without white space around
    them. labels, targets, split_N, cluster_P: None where they are not read.
    """

    table: Table
    columns: ExampleColumns
    proteins: Proteins
    members_NK: np.ndarray
    labels: Sequence[str] | None
    targets: Targets | None
    split_N: np.ndarray | None
    cluster_P: np.ndarray | None


def read_dataset(
    settings: DataSettings,
    *,
    labelled: bool = True,
    classes: tuple[str, ...] | None = None,
    kind: TargetKind | None = None,
) -> Dataset:
    """Read, clean and check the examples of one task.

    labelled: False ignores labels and splits, and keeps every row in the file's order, repeated ones included.
    classes, kind: those of a trained model; labels must then be among them. Without labels, `classes` and `kind` are
    handed on; where they are not given, the kind is that of `settings.target` or the task's usual one.

    Raises UserError with all problems of the files, each with file, line and mend; missing or unclear columns come
    first and alone, since nothing else can be checked without them.
    """
    findings = Findings()
    rows = read_rows(settings, labelled=labelled, classes=classes, kind=kind, findings=findings)
    if rows.targets is None:
        return _unlabelled(rows, settings, classes=classes, kind=_wanted_kind(settings, kind), findings=findings)
    return _labelled(rows, settings, targets=rows.targets, findings=findings)


def read_rows(
    settings: DataSettings, *, labelled: bool = True, with_split: bool = True, classes: tuple[str, ...] | None = None,
    kind: TargetKind | None = None, findings: Findings,
) -> Rows:  # fmt: skip
    """The rows of the table of examples and the proteins that they name; see `read_dataset` for the arguments.

    with_split: see `find_example_columns`.
    """
    check_data_settings(settings, classes=classes, kind=kind)
    table = read_table(settings.data, findings=findings)
    columns = find_example_columns(table, settings, labelled=labelled, with_split=with_split, findings=findings)
    check_columns(table.path, findings=findings)
    proteins, members_NK = _read_members(table, columns, settings, findings=findings)
    if columns.label is None:
        return Rows(table, columns, proteins, members_NK, labels=None, targets=None, split_N=None, cluster_P=None)
    texts = trimmed(table, columns.label, findings=findings)
    wanted = _wanted_kind(settings, kind)
    targets = read_targets(table, texts, task=settings.task, kind=wanted, classes=classes, findings=findings)
    if settings.task == "pair" and targets.kind == "binary" and not targets.classes and len(set(texts)) == 1:
        findings.add("labels", f"{table.path}: {POSITIVES_ONLY}")
    split_N = None if columns.split is None else read_split(table, columns.split, findings=findings)
    if split_N is not None:
        check_classes_in_splits(table.path, targets, split_N, is_trained=classes is not None, findings=findings)
    cluster_P = None
    if columns.clusters:
        cluster_P = read_clusters(table, columns.clusters, proteins, members_NK, findings=findings)
    return Rows(table, columns, proteins, members_NK, texts, targets, split_N, cluster_P)


def _read_members(
    table: Table, columns: ExampleColumns, settings: DataSettings, *, findings: Findings
) -> tuple[Proteins, np.ndarray]:
    """The unique proteins of a table of examples, and (N, K) int64 rows into them; -1: unknown, a problem."""
    members = ExampleMembers(table.path, table.kind, columns, settings)
    cells = zip(*(table.cells[column] for column in members.columns), strict=True)
    numbers = array("q")
    for line, row in zip(table.lines, cells, strict=True):
        numbers.extend(members.take(line, row))
    found = members.find(findings=findings)
    numbers_NK = np.array(numbers, np.int64).reshape(len(table), -1)
    return found.proteins, np.append(found.row_of_M, -1)[numbers_NK]


def _wanted_kind(settings: DataSettings, kind: TargetKind | None) -> TargetKind | None:
    target = None if settings.target == "auto" else settings.target
    return "multilabel" if settings.task == "symmetry" else kind or target


def check_data_settings(settings: DataSettings, *, classes: tuple[str, ...] | None, kind: TargetKind | None) -> None:
    """Raise UserError with every setting that is impossible or that this task would ignore."""
    problems = []
    if settings.task != "pair":
        given = {"--column-a": settings.column_a, "--column-b": settings.column_b}
        names = [name for name, value in given.items() if value is not None]
        names += ["--allow-self-pairs"] if settings.allow_self_pairs else []
        problems += [f"{name} is for task pair, not {settings.task}; leave it out" for name in names]
    elif settings.column_cluster is not None:
        problems.append("--column-cluster is for tasks of one protein, not for pairs; leave it out")
    elif settings.sequences is None:
        given = {"--column-id": settings.column_id, "--column-sequence": settings.column_sequence}
        problems += [
            f"{name} is for the file of sequences, which is not given; add --sequences, or use --column-a and -b"
            for name, value in given.items()
            if value is not None
        ]
    elif settings.column_a is not None and settings.column_a == settings.column_b:
        problems.append(f"--column-a and --column-b are both {settings.column_a!r}; name two columns")
    if settings.task == "symmetry" and settings.target not in ("auto", "multilabel"):
        problems.append(f"--target is {settings.target}, but symmetry is multilabel; leave it out")
    if settings.task == "symmetry" and classes not in (None, SYMMETRY_CLASSES):
        problems.append("the model was trained with other classes than those of task symmetry; use task protein")
    if kind is not None and settings.target not in ("auto", kind):
        problems.append(f"--target is {settings.target}, but the model was trained for {kind}; leave it out")
    if settings.max_residues < 1:
        problems.append(f"--max-residues is {settings.max_residues}; give a number of at least 1")
    raise_problems("the settings of the data do not fit together", problems)


def _note_unread(settings: DataSettings, *, findings: Findings) -> None:
    """The notes on columns that are named and have no use where no labels are read."""
    given = {
        "--column-label": settings.column_label,
        "--column-split": settings.column_split,
        "--column-cluster": settings.column_cluster,
    }
    unread = [name for name, value in given.items() if value is not None]
    findings.notes.extend(f"{settings.data}: {name} is not used: this reads no labels" for name in unread)


def end_unlabelled(settings: DataSettings, *, findings: Findings) -> tuple[str, ...]:
    """The end of a reading without labels: the notes. Raises UserError with all problems."""
    findings.raise_problems(settings.data)
    _note_unread(settings, findings=findings)
    return tuple(findings.notes)


def _unlabelled(
    rows: Rows, settings: DataSettings, *, classes: tuple[str, ...] | None, kind: TargetKind | None, findings: Findings
) -> Dataset:
    notes = end_unlabelled(settings, findings=findings)
    default = SYMMETRY_CLASSES if settings.task == "symmetry" else ()
    return Dataset(
        task=settings.task,
        kind=kind or USUAL_KIND[settings.task],
        proteins=rows.proteins,
        members_NK=rows.members_NK,
        targets=None,
        classes=default if classes is None else classes,
        notes=notes,
    )


def _labelled(rows: Rows, settings: DataSettings, *, targets: Targets, findings: Findings) -> Dataset:
    facts = {"label": targets.values} | ({} if rows.split_N is None else {"split": rows.split_N})
    kept_M = first_of_each(rows.table, rows.proteins, rows.members_NK, facts=facts, findings=findings)
    findings.raise_problems(settings.data)
    if rows.split_N is not None:
        note_split(rows.table.path, rows.members_NK[kept_M], rows.split_N[kept_M], findings=findings)
    return labelled_dataset(rows, kept_M, task=settings.task, targets=targets, findings=findings)


def labelled_dataset(rows: Rows, kept_M: np.ndarray, *, task: Task, targets: Targets, findings: Findings) -> Dataset:
    """The dataset of the rows in `kept_M` (indices or mask), with their targets and, where it was read, their split."""
    return Dataset(
        task=task,
        kind=targets.kind,
        proteins=rows.proteins,
        members_NK=rows.members_NK[kept_M],
        targets=targets.values[kept_M],
        classes=targets.classes,
        split_N=None if rows.split_N is None else rows.split_N[kept_M],
        cluster_P=rows.cluster_P,
        notes=tuple(findings.notes),
    )
