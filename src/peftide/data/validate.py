"""The checks of examples: splits, clusters, repeated and contradictory ones, classes without an example."""

import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from peftide.data.findings import Findings, counted, listed, quoted, repeated, rows_by_value
from peftide.data.labels import Targets
from peftide.data.tables import Table, trimmed
from peftide.records import SPLITS, UNUSED, Proteins

SPLIT_WORDS: dict[str, str] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
    UNUSED: UNUSED,
}


def holds_splits(cells: Iterable[str]) -> bool:
    """Whether cells say of what part an example is: all of them, or one says training, and then all of them should."""
    found = {SPLIT_WORDS.get(text.strip().casefold()) for text in set(cells)}
    return None not in found or "train" in found


def read_split(table: Table, column: str, *, findings: Findings) -> np.ndarray:
    """(N,) names of splits from their words (`valid`, `dev`, ...); other words are problems, synonyms are counted."""
    rows = rows_by_value(trimmed(table, column, findings=findings))
    split_N = np.full(len(table), UNUSED, dtype="U6")
    for word, where in rows.items():
        split = SPLIT_WORDS.get(word.casefold())
        if split is not None:
            split_N[where] = split
        elif word:
            what = f"{quoted(word)} is not a split{repeated(where)}; write train, val, test or unused"
            findings.add("splits", f"{table.place(where[0])}: {what}")
        if split is not None and split != word:
            findings.notes.append(f"{table.path}: split {word!r} is read as {split} ({counted(len(where), 'row')})")
    return split_N


def read_clusters(
    table: Table, columns: Sequence[str], proteins: Proteins, members_NK: np.ndarray, *, findings: Findings
) -> np.ndarray:
    """Cluster (P,) of each protein, numbered in order of first appearance; one protein in two is a problem.

    columns: one for each member. members_NK: the proteins of each row of the table (-1: unknown, a problem of its own).
    """
    names_NK = list(zip(*(trimmed(table, column, findings=findings) for column in columns), strict=True))
    number_of = {name: number for number, name in enumerate(dict.fromkeys(itertools.chain.from_iterable(names_NK)))}
    cluster_P = np.full(len(proteins), -1, dtype=np.int64)
    first_P = np.zeros(len(proteins), dtype=np.int64)
    for row, (members, names) in enumerate(zip(members_NK.tolist(), names_NK, strict=True)):
        for protein, name in zip(members, names, strict=True):
            if protein < 0:
                continue
            if cluster_P[protein] < 0:
                cluster_P[protein], first_P[protein] = number_of[name], row
            elif cluster_P[protein] != number_of[name]:
                who, where = quoted(proteins.ids[protein]), table.place(int(first_P[protein]))
                findings.add("clusters", f"{table.place(row)}: {who} is in another cluster than at {where}; keep one")
    where = f"column{'s' * (len(columns) > 1)} {' and '.join(map(repr, columns))}"
    given = f"{counted(len(number_of), 'cluster')} as given in {where}"
    findings.notes.append(f"{table.path}: {given}")
    return cluster_P


def first_of_each(
    table: Table, proteins: Proteins, members_NK: np.ndarray, *, facts: dict[str, np.ndarray], findings: Findings
) -> np.ndarray:
    """Rows (M,) of the first example of each protein or unordered pair, in the file's order.

    facts: what must be the same in all rows of one example ("label", "split"), as (N,) or (N, C); a difference is a
    problem. Repetitions are counted in a note. Rows with an unknown protein (member -1) stay alone.
    """
    low_N, high_N = members_NK.min(axis=1), members_NK.max(axis=1)
    key_N = low_N * len(proteins) + high_N
    key_N[low_N < 0] = -1 - np.flatnonzero(low_N < 0)
    _, first_U, group_N = np.unique(key_N, return_index=True, return_inverse=True)
    first_N = first_U[group_N]
    is_contradiction_N = np.zeros(len(key_N), dtype=bool)
    for name, fact_N in facts.items():
        differs_N = (fact_N != fact_N[first_N]).reshape(len(fact_N), -1).any(axis=1)
        is_contradiction_N |= differs_N
        for row in np.flatnonzero(differs_N).tolist():
            who = " and ".join(quoted(proteins.ids[member]) for member in members_NK[row])
            what = f"{who}: another {name} than at {table.place(first_N[row])}; keep one of them"
            findings.add(f"contradictory {name}s", f"{table.place(row)}: {what}")
    num_repeated = int((first_N != np.arange(len(key_N))).sum() - is_contradiction_N.sum())
    if num_repeated:
        noun = "pair" if members_NK.shape[1] == 2 else "protein"
        note = f"{counted(num_repeated, 'row')} that repeat a {noun} with the same label merged into the first"
        findings.notes.append(f"{table.path}: {note}")
    return np.sort(first_U)


def check_classes_in_splits(
    path: str, targets: Targets, split_N: np.ndarray, *, is_trained: bool, findings: Findings
) -> None:
    """A class without an example in a split that is used.

    A problem for binary and multiclass targets: such a part can be neither learned nor scored as it should. A note
    for multilabel ones, whose rare labels are often missing somewhere while the others can be learned and scored, and
    where the classes are those of a trained model (`is_trained`).
    """
    if targets.kind == "regression":
        return
    numbers = np.arange(len(targets.classes))
    present_NC = targets.values > 0 if targets.kind == "multilabel" else targets.values[:, None] == numbers
    for split in SPLITS:
        present_MC = present_NC[split_N == split]
        missing = [name for name, is_there in zip(targets.classes, present_MC.any(axis=0), strict=True) if not is_there]
        if not len(present_MC) or not missing:
            continue
        what = f"{path}: split {split} has no example of {listed(missing)}"
        if is_trained or targets.kind == "multilabel":
            findings.notes.append(what)
        else:
            findings.add("classes", f"{what}; move some there, or leave the class out")


def note_split(path: str, members_NK: np.ndarray, split_N: np.ndarray, *, findings: Findings) -> None:
    """Sizes of the splits, and how many proteins are in two of them."""
    names, sizes = np.unique(split_N, return_counts=True)
    size_of = dict(zip(names.tolist(), sizes.tolist(), strict=True))
    sizes_text = ", ".join(f"{size_of[name]:,} {name}" for name in (*SPLITS, UNUSED) if name in size_of)
    findings.notes.append(f"{path}: split as given: {sizes_text}")
    proteins_of = {name: np.unique(members_NK[split_N == name]) for name in SPLITS}
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        num_shared = len(np.intersect1d(proteins_of[first], proteins_of[second], assume_unique=True))
        if num_shared:
            findings.notes.append(f"{path}: {counted(num_shared, 'protein')} in both {first} and {second}")
