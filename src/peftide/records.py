"""The records that travel between the layers: plain, frozen, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    import numpy as np  # only named here, so that settings and `peftide --help` need no numpy

Task = Literal["pair", "protein", "symmetry"]
TargetKind = Literal["binary", "multiclass", "multilabel", "regression"]
SplitName = Literal["train", "val", "test"]

SPLITS: tuple[SplitName, ...] = get_args(SplitName)
UNUSED = "unused"  # a pair whose proteins fall in different splits: kept in the file, used by none


@dataclass(frozen=True)
class Proteins:
    """Unique ids with their cleaned sequences, in order of first appearance."""

    ids: tuple[str, ...]
    sequences: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Dataset:
    """Examples of one task over a table of proteins; an example is a pair (K = 2) or a single protein (K = 1).

    members_NK: int64 rows into `proteins`.
    targets: by `kind`: binary (N,) float32 of 0/1; multiclass (N,) int64; multilabel (N, C) float32 of 0/1;
        regression (N,) float32; None when the file carries no labels.
    classes: names of the classes in column order; binary: (negative, positive); regression: ().
    split_N: "train", "val", "test" or "unused" per example; None when not yet split.
    cluster_P: int64 cluster of similar proteins that each protein is in; None where that is not known.
    notes: what was cleaned, recognised or counted on reading, one sentence each, for the user to see.
    """

    task: Task
    kind: TargetKind
    proteins: Proteins
    members_NK: np.ndarray
    targets: np.ndarray | None
    classes: tuple[str, ...]
    split_N: np.ndarray | None = None
    cluster_P: np.ndarray | None = None
    notes: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.members_NK)

    def member_groups(self) -> np.ndarray:
        """What is independent of each other (N, K): the clusters of the proteins where they are known, else these."""
        return self.members_NK if self.cluster_P is None else self.cluster_P[self.members_NK]

    def subset(self, rows: np.ndarray) -> Dataset:
        """The examples in `rows` (indices or mask) over the same table of proteins."""
        return replace(
            self,
            members_NK=self.members_NK[rows],
            targets=None if self.targets is None else self.targets[rows],
            split_N=None if self.split_N is None else self.split_N[rows],
        )

    def part(self, split: SplitName) -> Dataset:
        """The examples of one split."""
        assert self.split_N is not None, "the dataset has no split yet"
        return self.subset(self.split_N == split)


def class_separator(classes: Sequence[str]) -> str:
    """What stands between the classes of one example in a table: a space, or `;` where a class has spaces itself."""
    return ";" if any(" " in name for name in classes) else " "
