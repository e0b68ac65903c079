"""Groups of related proteins: connected components of the graph of similar sequences."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from peftide.data.homology import SHORTEST_SEARCHED, Tool, find_hits, num_too_short
from peftide.errors import raise_problems


@dataclass(frozen=True)
class Clustering:
    """Cluster of each protein (P,), numbered from 0, and how it was found.

    identity, coverage: thresholds, 0 to 1; tool: program and version. All None where the table brought its clusters.
    num_short: proteins too short for their relatives to be found.
    """

    cluster_P: np.ndarray
    identity: float | None = None
    coverage: float | None = None
    tool: str | None = None
    num_short: int = 0

    @property
    def num_clusters(self) -> int:
        """Number of clusters; a protein without relatives is one."""
        return int(self.cluster_P.max(initial=-1)) + 1

    def describe(self) -> str:
        """One sentence for a report."""
        largest = int(np.bincount(self.cluster_P).max(initial=0))
        found = f"{len(self.cluster_P):,} proteins in {self.num_clusters:,} clusters"
        if self.tool is None:
            return f"{found} as given (largest: {largest:,})"
        short = f"; relatives of {self.num_short:,} with under {SHORTEST_SEARCHED} residues may have been missed"
        return (
            f"{found} at {self.identity:.0%} identity over {self.coverage:.0%} of either protein "
            f"(largest: {largest:,}; {self.tool}{short if self.num_short else ''})"
        )


def cluster_sequences(
    sequences: Sequence[str],
    *,
    identity: float = 0.3,
    coverage: float = 0.5,
    tool: Tool = "auto",
    threads: int | None = None,
) -> Clustering:
    """Clusters such that two proteins of different clusters were not found to be similar.

    Similar means a local alignment with an E-value of at most 1e-3, at least `identity` and at least `coverage` of
    one of the two proteins. Relatives of relatives share a cluster (single linkage), and so do identical sequences of
    any length. tool, threads: see `homology.find_hits`.

    Raises:
        UserError: a threshold is not within 0 to 1, or mmseqs is asked for and missing, or fails.
    """
    raise_problems(
        "cannot cluster",
        [
            f"{name} is {value}: give a fraction above 0 and up to 1"
            for name, value in (("identity", identity), ("coverage", coverage))
            if not 0 < value <= 1
        ],
    )
    unique, row_P = sequence_groups(sequences)
    hits = find_hits(unique, None, identity=identity, coverage=coverage, tool=tool, threads=threads)
    links = coo_array((np.ones(len(hits)), (hits.query_H, hits.target_H)), shape=(len(unique), len(unique)))
    _, cluster_U = connected_components(links, directed=False)
    return Clustering(cluster_U.astype(np.int64)[row_P], identity, coverage, hits.tool, num_too_short(sequences))


def sequence_groups(sequences: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """The unique sequences in order of first appearance, and the row (P,) among them of each protein's."""
    row_of: dict[str, int] = {}
    row_P = np.array([row_of.setdefault(sequence, len(row_of)) for sequence in sequences], dtype=np.int64)
    return tuple(row_of), row_P
