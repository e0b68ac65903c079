"""Reading examples for the audit: what training would refuse is let pass where it can be, and told."""

import numpy as np

from peftide.config import DataSettings
from peftide.data.datasets import labelled_dataset, read_rows
from peftide.data.findings import Findings, counted
from peftide.data.validate import first_of_each
from peftide.errors import UserError
from peftide.records import Dataset

# Kinds of findings that do not hinder an audit, and what becomes of the rows
TOLERATED = {
    "contradictory labels": "counted with each of their labels",
    "contradictory splits": "counted in each of their splits",
    "self pairs": "counted as pairs",
    "splits": "counted as unused",
    "unknown ids": "left out",
    "classes": "counted as they are",
}
MOST_UNKNOWN_FRACTION = 0.1  # of the rows with a protein without a sequence; beyond it, the file of sequences is wrong


def read_leniently(settings: DataSettings) -> tuple[Dataset, tuple[str, ...]]:
    """Every example with its split, repeated ones included, and a sentence for each kind of problem that was let pass.

    Pairs with two labels or in two splits, pairs of a protein with itself, words that are no split, classes missing
    from a split and a few proteins without a sequence are let pass; `read_dataset` refuses a table with any of them.

    Raises:
        UserError: with all other problems; or the table has no column of splits.
    """
    findings = Findings()
    rows = read_rows(settings, findings=findings)
    assert rows.targets is not None
    if rows.split_N is None:
        findings.raise_problems(settings.data)
        raise UserError(
            f"{settings.data}: no column says which examples are for train, val and test, so there is nothing to "
            "compare; name it with --column-split, or make one with peftide split"
        )
    proteins, members_NK = rows.proteins, rows.members_NK
    problems = Findings(problems=findings.problems)  # without notes: nothing is merged here
    first_of_each(
        rows.table, proteins, members_NK, facts={"label": rows.targets.values, "split": rows.split_N}, findings=problems
    )
    is_known_N = (members_NK >= 0).all(axis=1)
    tolerated = set(TOLERATED) - ({"unknown ids"} if (~is_known_N).mean() > MOST_UNKNOWN_FRACTION else set())
    refused = tuple(
        f"{kind} ({counted(len(found), 'problem')}, {TOLERATED[kind]}), such as {found[0]}"
        for kind, found in findings.withdraw(tolerated).items()
    )
    findings.raise_problems(settings.data)
    dataset = labelled_dataset(
        rows, np.flatnonzero(is_known_N), task=settings.task, targets=rows.targets, findings=findings
    )
    return dataset, refused
