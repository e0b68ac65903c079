"""Can a score on this test be believed? What the splits share, what needs no biology, and a verdict in plain words."""

from dataclasses import dataclass

import numpy as np

from peftide.data.clusters import sequence_groups
from peftide.data.homology import SHORTEST_SEARCHED, Tool, num_too_short
from peftide.data.leakage import Overlap, example_keys, find_overlaps
from peftide.data.shortcuts import OneSided, Shortcut, find_one_sided, find_shortcuts
from peftide.records import SPLITS, UNUSED, Dataset, SplitName, TargetKind, Task

# What is flagged; below, remarks at most
MOST_LEAKED_FRACTION = 0.02  # of the proteins of a split that training has, or has a close relative of
MOST_REPEATED_FRACTION = 0.01  # of the examples of a split that training has
MOST_CONTRADICTORY_FRACTION = 0.01
BEST_SHORTCUT = 0.55  # AUROC of a predictor without biology, less twice its standard error
BALANCE_RATIO = 1.5  # between the fractions of a class in two splits


@dataclass(frozen=True)
class SplitSummary:
    """Sizes of one split; num_long_proteins: with more residues than `Audit.max_residues`."""

    name: str
    num_examples: int
    num_proteins: int
    num_long_proteins: int
    class_counts: dict[str, int]


@dataclass(frozen=True)
class Audit:
    """Everything found, ready for JSON by `dataclasses.asdict`.

    homology_tool: program that searched for similar proteins; None: not searched. num_contradictory: examples that
    occur again with another label. refused: what a stricter reading would have refused. flags: why a score on these
    splits cannot be believed; remarks: good to know.
    """

    task: Task
    kind: TargetKind
    num_examples: int
    num_unused: int
    num_proteins: int
    max_residues: int
    splits: tuple[SplitSummary, ...]
    overlaps: tuple[Overlap, ...]
    homology_tool: str | None
    num_repeated: int
    num_contradictory: int
    one_sided: tuple[OneSided, ...]
    shortcuts: tuple[Shortcut, ...]
    refused: tuple[str, ...]
    flags: tuple[str, ...]
    remarks: tuple[str, ...]
    verdict: str


def audit(
    dataset: Dataset, *, tool: Tool | None = "auto", max_residues: int = 1022, threads: int | None = None,
    refused: tuple[str, ...] = (),
) -> Audit:  # fmt: skip
    """Look for leakage and shortcuts in a dataset with splits.

    tool: searches for similar proteins (see `homology.find_hits`); None leaves that out, which takes a second at most
    where the search takes 7 ms for each validation and test protein. threads: of the search; all cores when None.
    refused: what `read_leniently` let pass.
    """
    assert dataset.split_N is not None, "the dataset has no split yet"
    splits = tuple(_summary(dataset, name, max_residues) for name in SPLITS if (dataset.split_N == name).any())
    overlaps, homology_tool = find_overlaps(dataset, tool=tool, threads=threads)
    num_repeated, num_contradictory = _repetitions(dataset)
    one_sided, shortcuts = find_one_sided(dataset), find_shortcuts(dataset)
    flags = [flag for overlap in overlaps for flag in _overlap_flags(overlap)]
    flags += _shortcut_flags(shortcuts)
    if num_contradictory > MOST_CONTRADICTORY_FRACTION * len(dataset):
        flags.append(f"{num_contradictory:,} of {len(dataset):,} examples occur again with another label")
    num_short = num_too_short([dataset.proteins.sequences[row] for row in np.unique(dataset.members_NK)])
    return Audit(
        task=dataset.task,
        kind=dataset.kind,
        num_examples=len(dataset),
        num_unused=int((dataset.split_N == UNUSED).sum()),
        num_proteins=len(np.unique(dataset.members_NK)),
        max_residues=max_residues,
        splits=splits,
        overlaps=overlaps,
        homology_tool=homology_tool,
        num_repeated=num_repeated,
        num_contradictory=num_contradictory,
        one_sided=one_sided,
        shortcuts=shortcuts,
        refused=refused,
        flags=tuple(flags),
        remarks=(*_one_sided_remarks(one_sided), *_balance_remarks(splits)),
        verdict=_verdict(flags, overlaps, homology_tool, shortcuts, num_short),
    )


def _summary(dataset: Dataset, name: SplitName, max_residues: int) -> SplitSummary:
    part = dataset.part(name)
    rows = np.unique(part.members_NK)
    return SplitSummary(
        name=name,
        num_examples=len(part),
        num_proteins=len(rows),
        num_long_proteins=sum(len(dataset.proteins.sequences[row]) > max_residues for row in rows),
        class_counts=class_counts(part),
    )


def class_counts(part: Dataset) -> dict[str, int]:
    """Examples of each class; none for regression or without labels."""
    if part.targets is None or part.kind == "regression":
        return {}
    if part.kind == "multilabel":
        counts = (part.targets > 0).sum(axis=0)
    else:
        counts = np.bincount(part.targets.astype(np.int64), minlength=len(part.classes))
    return dict(zip(part.classes, counts.tolist(), strict=True))


def _repetitions(dataset: Dataset) -> tuple[int, int]:
    """Examples that repeat an earlier one, and examples that have another label elsewhere (not for numbers)."""
    key_N = example_keys(sequence_groups(dataset.proteins.sequences)[1][dataset.members_NK])
    num_repeated = len(key_N) - len(np.unique(key_N))
    if dataset.targets is None or dataset.kind == "regression":
        return num_repeated, 0
    label_N = np.unique(dataset.targets.reshape(len(dataset), -1), axis=0, return_inverse=True)[1].reshape(-1)
    label_of_key = np.full(key_N.max(initial=-1) + 1, -1)
    label_of_key[key_N] = label_N
    contradictory = np.unique(key_N[label_of_key[key_N] != label_N])
    return num_repeated, int(np.isin(key_N, contradictory).sum())


def _overlap_flags(overlap: Overlap) -> list[str]:
    flags = []
    if overlap.leaked_fraction > MOST_LEAKED_FRACTION:
        parts = [f"{overlap.num_shared:,} the same"]
        parts += [f"{overlap.num_identical:,} the same under another id"] if overlap.num_identical else []
        parts += [f"{overlap.num_similar:,} with a relative of 40 % identity or more"] if overlap.num_similar else []
        flags.append(
            f"{overlap.leaked_fraction:.1%} of the {overlap.num_proteins:,} {overlap.of} proteins are in "
            f"{overlap.within}, or a close relative is ({', '.join(parts)})"
        )
    if overlap.num_repeated_examples > MOST_REPEATED_FRACTION * overlap.num_examples:
        flags.append(
            f"{overlap.num_repeated_examples:,} of the {overlap.num_examples:,} {overlap.of} examples are also in "
            f"{overlap.within}"
        )
    return flags


def _shortcut_flags(shortcuts: tuple[Shortcut, ...]) -> list[str]:
    return [
        f"a predictor that knows only each protein's {shortcut.predictor} in training reaches AUROC "
        f"{shortcut.auroc:.2f} and AUPR {shortcut.aupr:.2f} on the test"
        for shortcut in shortcuts
        if shortcut.auroc - 2 * shortcut.auroc_error > BEST_SHORTCUT
    ]


def _one_sided_remarks(one_sided: tuple[OneSided, ...]) -> list[str]:
    return [
        f"{found.num_proteins:,} proteins occur only in pairs labelled {found.label!r}; {found.num_often:,} of them in "
        f"{found.min_pairs} pairs or more, where chance would give {found.num_by_chance:.0f} "
        f"({', '.join(found.names[:10])}{', ...' if found.num_proteins > 10 else ''})"
        for found in one_sided
        if found.num_proteins
    ]


def _balance_remarks(splits: tuple[SplitSummary, ...]) -> list[str]:
    remarks = []
    for name in splits[0].class_counts if splits else ():
        fraction_of = {split.name: split.class_counts[name] / split.num_examples for split in splits}
        low, high = min(fraction_of, key=fraction_of.__getitem__), max(fraction_of, key=fraction_of.__getitem__)
        if fraction_of[high] > BALANCE_RATIO * fraction_of[low]:
            remarks.append(
                f"class {name!r} makes up {fraction_of[high]:.1%} of {high} but {fraction_of[low]:.1%} of {low}"
            )
    return remarks


def _verdict(
    flags: list[str],
    overlaps: tuple[Overlap, ...],
    homology_tool: str | None,
    shortcuts: tuple[Shortcut, ...],
    num_short: int,
) -> str:
    if flags:
        return f"FLAGGED: a score on these splits would mislead: {'; '.join(flags)}"
    if not overlaps:
        return "NOTHING TO COMPARE: there is only one split"
    worst = max(overlap.leaked_fraction for overlap in overlaps)
    if worst > 0:
        relatives = " or have a close relative there" if homology_tool else ""
        shared = f"at most {worst:.1%} of the proteins of one split are in another{relatives}"
    else:
        shared = f"no protein of one split{', nor a close relative of it,' if homology_tool else ''} is in another"
    unsearched = "" if homology_tool else " (similar sequences were not searched)"
    if homology_tool and num_short:
        unsearched = (
            f" (but relatives of the {num_short:,} with under {SHORTEST_SEARCHED} residues may have been missed: "
            "put peptides that resemble each other in one split yourself)"
        )
    useless = ", and a protein's number of pairs and their labels in training do not help" if shortcuts else ""
    return f"PASSED: {shared}{unsearched}{useless}"
