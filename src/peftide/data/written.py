"""Reading examples to be split: beside the dataset, what a table of them needs to be written again."""

from collections.abc import Sequence
from dataclasses import dataclass

from peftide.config import DataSettings
from peftide.data.columns import find_column
from peftide.data.datasets import Rows, labelled_dataset, read_rows
from peftide.data.findings import Findings, listed
from peftide.data.labels import NEGATIVE_WORDS, TRUE_WORDS, as_word
from peftide.data.tables import trimmed
from peftide.data.validate import first_of_each
from peftide.records import Dataset


@dataclass(frozen=True)
class Written:
    """Examples without a split. labels: as the file has them; has_sequences: whether the table itself held those."""

    dataset: Dataset
    labels: tuple[str, ...]
    has_sequences: bool


def read_written(settings: DataSettings, *, positives_only: bool) -> Written:
    """The examples of a table, the first of each, in the file's order; a column of splits is left unread.

    positives_only: every pair is a positive one; the dataset then has no targets, and classes named (negative,
    positive). A column of labels may be missing.

    Raises:
        UserError: as `read_dataset`; or not every label of `positives_only` is the positive one.
    """
    findings = Findings()
    rows = read_rows(settings, labelled=not positives_only, with_split=False, findings=findings)
    if "split" in rows.table.cells:
        findings.notes.append(f"{settings.data}: its column 'split' is not read: a new split is made")
    labels = _positive_labels(rows, settings, findings=findings) if positives_only else rows.labels
    assert labels is not None
    facts = {} if rows.targets is None else {"label": rows.targets.values}
    kept_M = first_of_each(rows.table, rows.proteins, rows.members_NK, facts=facts, findings=findings)
    findings.raise_problems(settings.data)
    if rows.targets is not None:
        dataset = labelled_dataset(rows, kept_M, task=settings.task, targets=rows.targets, findings=findings)
    else:
        members_MK, classes = rows.members_NK[kept_M], (negative_of(labels[0]), labels[0])
        dataset = Dataset(
            settings.task, "binary", rows.proteins, members_MK, None, classes, notes=tuple(findings.notes)
        )
    has_sequences = any(member.sequence is not None for member in rows.columns.members)
    return Written(dataset, tuple(labels[row] for row in kept_M.tolist()), has_sequences)


def negative_of(label: str) -> str:
    """The label of a negative pair beside this one of positives, such that the reader tells the two apart."""
    return "0" if as_word(label) in TRUE_WORDS else f"non-{label}"


def _positive_labels(rows: Rows, settings: DataSettings, *, findings: Findings) -> Sequence[str]:
    """The label of each row, 1 where the table has none; other labels than one for positives are a problem."""
    column = find_column(rows.table, "label", named=settings.column_label, findings=findings)
    if column is None:
        return ["1"] * len(rows.table)
    labels = trimmed(rows.table, column, findings=findings)
    found = dict.fromkeys(label for label in labels if label)
    is_one = len(found) == 1 or all(as_word(label) in TRUE_WORDS for label in found)
    if not is_one or any(as_word(label) in NEGATIVE_WORDS for label in found):
        what = f"negatives are sampled for tables of positive pairs alone, and its labels are {listed(found, shown=5)}"
        mend = "leave the negative pairs out of the table, or take them as they are, without --negatives"
        findings.add("labels", f"{settings.data}: {what}; {mend}")
    return labels
