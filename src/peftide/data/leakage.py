"""What two splits have in common: proteins, sequences, similar sequences, whole examples."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from peftide.data.clusters import sequence_groups
from peftide.data.hits import Hits
from peftide.data.homology import Tool, find_hits
from peftide.records import SPLITS, Dataset, SplitName

SIMILAR_IDENTITY, SIMILAR_COVERAGE = 0.4, 0.5
COMPARED: tuple[tuple[SplitName, SplitName], ...] = (("test", "train"), ("val", "train"), ("test", "val"))


@dataclass(frozen=True)
class Overlap:
    """What the proteins and examples of one split (`of`) have in common with another (`within`).

    num_shared: proteins with the same id; num_identical: with the same sequence under another id only; num_similar:
    others with a relative of at least 40 % identity over at least half of either (None: not searched).
    leaked_fraction: these three over num_proteins. identity_histogram: number of proteins by their best identity.
    num_repeated_examples: examples whose sequences, in either order, are an example there too.
    """

    of: str
    within: str
    num_proteins: int
    num_shared: int
    num_identical: int
    num_similar: int | None
    leaked_fraction: float
    identity_histogram: dict[str, int] | None
    num_examples: int
    num_repeated_examples: int


def find_overlaps(
    dataset: Dataset, *, tool: Tool | None, threads: int | None
) -> tuple[tuple[Overlap, ...], str | None]:
    """Every two splits compared, and the program that searched for similar proteins; tool None: without this search."""
    assert dataset.split_N is not None, "the dataset has no split yet"
    sequences, sequence_P = sequence_groups(dataset.proteins.sequences)
    rows_of = {split: np.unique(dataset.members_NK[dataset.split_N == split]) for split in SPLITS}
    pairs = [pair for pair in COMPARED if all(len(rows_of[split]) for split in pair)]
    hits = None if tool is None or not pairs else _similar_across(sequences, sequence_P, rows_of, tool, threads)
    key_N = example_keys(sequence_P[dataset.members_NK])
    overlaps = []
    for of, within in pairs:
        rows, others = rows_of[of], rows_of[within]
        is_shared = np.isin(rows, others)
        is_same = np.isin(sequence_P[rows], sequence_P[others])
        best_S = np.zeros(len(sequences))
        if hits is not None:
            is_there_H = np.isin(hits.target_H, sequence_P[others])
            np.maximum.at(best_S, hits.query_H[is_there_H], hits.identity_H[is_there_H])
        best = np.where(is_same, 1.0, best_S[sequence_P[rows]])
        key_M = key_N[dataset.split_N == of]
        overlaps.append(
            Overlap(
                of=of,
                within=within,
                num_proteins=len(rows),
                num_shared=int(is_shared.sum()),
                num_identical=int((is_same & ~is_shared).sum()),
                num_similar=None if hits is None else int(((best > 0) & ~is_same).sum()),
                leaked_fraction=float((best > 0).mean()),
                identity_histogram=None if hits is None else _histogram(best, is_same),
                num_examples=len(key_M),
                num_repeated_examples=int(np.isin(key_M, key_N[dataset.split_N == within]).sum()),
            )
        )
    return tuple(overlaps), None if hits is None else hits.tool


def example_keys(sequences_NK: np.ndarray) -> np.ndarray:
    """A number (N,) for each example, equal for the same sequences in either order."""
    return np.unique(np.sort(sequences_NK, axis=1), axis=0, return_inverse=True)[1].reshape(-1)


def _similar_across(
    sequences: Sequence[str],
    sequence_P: np.ndarray,
    rows_of: dict[SplitName, np.ndarray],
    tool: Tool,
    threads: int | None,
) -> Hits:
    """Similar sequences (rows into `sequences`) of val or test on one side, of train or val on the other.

    What is identical to a sequence in each split it is compared with needs no search.
    """
    train, val, test = (np.unique(sequence_P[rows_of[split]]) for split in SPLITS)
    known_test = np.isin(test, train) & (np.isin(test, val) | (len(val) == 0))
    asked = np.union1d(val[~np.isin(val, train)], test[~known_test])
    against = np.union1d(train, val)
    hits = find_hits(
        [sequences[row] for row in asked], [sequences[row] for row in against],
        identity=SIMILAR_IDENTITY, coverage=SIMILAR_COVERAGE, tool=tool, threads=threads,
    )  # fmt: skip
    return Hits(asked[hits.query_H], against[hits.target_H], hits.identity_H, hits.coverage_H, hits.bits_H, hits.tool)


def _histogram(best: np.ndarray, is_same: np.ndarray) -> dict[str, int]:
    """Number of proteins by best identity, the lowest bin first."""
    edges = np.arange(4, 10) / 10
    names = [f"below {edges[0]:.0%}", *(f"{edge:.0%} to {edge + 0.1:.0%}" for edge in edges)]
    counts = np.bincount(np.searchsorted(edges, best[~is_same], side="right"), minlength=len(names))
    return {**dict(zip(names, counts.tolist(), strict=True)), "identical": int(is_same.sum())}
