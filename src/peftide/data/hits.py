"""Similar proteins as a table: what every search for homologs returns."""

from dataclasses import dataclass

import numpy as np

MAX_EVALUE = 1e-3


@dataclass(frozen=True)
class Hits:
    """Local alignments between queries and targets (H,), best first for each query.

    identity_H: identical residues over aligned columns, 0 to 1. coverage_H: aligned fraction of the protein that is
    covered better, 0 to 1. bits_H: score, comparable between pairs. tool: program and version that found them.
    """

    query_H: np.ndarray
    target_H: np.ndarray
    identity_H: np.ndarray
    coverage_H: np.ndarray
    bits_H: np.ndarray
    tool: str

    def __len__(self) -> int:
        return len(self.query_H)

    def take(self, rows: np.ndarray) -> "Hits":
        """Those in `rows` (indices or mask)."""
        columns = (self.query_H, self.target_H, self.identity_H, self.coverage_H, self.bits_H)
        return Hits(*(column[rows] for column in columns), tool=self.tool)

    def followed_by(self, other: "Hits") -> "Hits":
        """Both tables, one after the other."""
        return Hits(
            query_H=np.concatenate([self.query_H, other.query_H]),
            target_H=np.concatenate([self.target_H, other.target_H]),
            identity_H=np.concatenate([self.identity_H, other.identity_H]),
            coverage_H=np.concatenate([self.coverage_H, other.coverage_H]),
            bits_H=np.concatenate([self.bits_H, other.bits_H]),
            tool=self.tool,
        )

    def best_first(self) -> "Hits":
        """In order of query, then of falling score; one row for each pair."""
        ordered = self.take(np.lexsort((self.target_H, -self.bits_H, self.query_H)))
        pair_H = ordered.query_H * (int(ordered.target_H.max(initial=0)) + 1) + ordered.target_H
        return ordered.take(np.sort(np.unique(pair_H, return_index=True)[1]))

    def is_similar(self, *, identity: float, coverage: float) -> np.ndarray:
        """Mask (H,) of the hits that reach both."""
        return (self.identity_H >= identity) & (self.coverage_H >= coverage)
