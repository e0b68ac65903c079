"""Which examples make a step: shuffled, or built around shared proteins so that a step encodes few of them.

A step encodes each of its unique proteins once, at a cost of its tokens, and gathers the vectors into pairs almost
for free. An epoch therefore costs the sum, over its steps, of the tokens of each step's unique proteins. To keep that
low while every pair is visited exactly once is to partition the edges of the pair graph into parts of equal size that
share few nodes (Zhang et al. 2017, "Graph edge partitioning via neighborhood heuristic"). `pair_batches` grows one
part after another, greedily: add the protein that brings the most unused pairs with those inside, per token.

Reuse (tokens of both members of every pair, over tokens encoded) on the 163,192 training pairs over 4,286 human
proteins of Bernett et al. 2023, an epoch made in 0.7 to 2.4 seconds of one core:

| pairs a step | 64 | 256 | 1,024 | 4,096 |
|---|---|---|---|---|
| shuffled | 1.05 | 1.17 | 1.6 | 3.2 |
| best of tiles of the sorted matrix, rows of hubs and Hilbert curve | 2.4 | 3.6 | 6.1 | 11.0 |
| greedy | 4.8 | 6.7 | 9.7 | 15.2 |
| greedy, each class shared out evenly | 4.7 | 6.6 | 9.4 | 14.7 |
| the same with variety 0.2 | 4.5 | 6.3 | 9.1 | 14.3 |
| the same with variety 0.5 | 4.0 | 5.6 | 8.3 | 13.6 |

Both refinements have a reason. Dense parts of the graph are rich in true pairs: without strata the share of positives
varies between steps (standard deviation) by 0.07 to 0.11 there, by 0.24 to 0.29 on the yeast pairs of Du et al. 2017,
whose positives and negatives have different hubs. Without variety a head on frozen embeddings ends 0.003 below shuffled
steps in AUPR, in steps of 64 (five seeds) and of 1,024 (three); with variety 0.2 or 0.5 it is 0.001 to 0.003, which no
size of the steps tells apart (docs/results.md). The time grows with the number of proteins.

Shapes: N examples, P proteins, B examples of a step, K proteins of an example, C strata, S steps.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

INSIDE = -np.inf  # gain of a protein that is in the step already: never chosen again, and stays so under addition


@dataclass(frozen=True)
class EncodingCost:
    """What the steps of an epoch encode, in tokens.

    encoded_tokens: each unique protein of each step once; member_tokens: every protein of every example.
    """

    encoded_tokens: int
    member_tokens: int

    @property
    def reuse(self) -> float:
        """How many times fewer tokens than without sharing; at least 1."""
        return self.member_tokens / self.encoded_tokens


def plain_batches(num_examples: int, *, batch_examples: int, generator: np.random.Generator) -> list[np.ndarray]:
    """Shuffled rows in steps of equal size (one more or less), at most `batch_examples` each."""
    if num_examples == 0:
        return []
    return np.array_split(generator.permutation(num_examples), -(-num_examples // batch_examples))


def cluster_batches(cluster_N: np.ndarray, *, batch_examples: int, generator: np.random.Generator) -> list[np.ndarray]:
    """As many rows as there are examples, drawn so that every cluster comes up as often as any other.

    A cluster is drawn with replacement; of its members each comes up once before any comes up again, so that large
    families are seen evenly over an epoch and small ones repeatedly.
    """
    members = np.split(
        np.argsort(cluster_N, kind="stable"), np.cumsum(np.unique(cluster_N, return_counts=True)[1])[:-1]
    )
    drawn_N = generator.integers(len(members), size=len(cluster_N))
    rows_N = np.empty(len(cluster_N), dtype=np.int64)
    for cluster in np.unique(drawn_N):
        places = np.flatnonzero(drawn_N == cluster)
        rounds = -(-len(places) // len(members[cluster]))
        rows_N[places] = np.concatenate([generator.permutation(members[cluster]) for _ in range(rounds)])[: len(places)]
    return np.array_split(rows_N, -(-len(rows_N) // batch_examples))


def pair_batches(
    members_N2: np.ndarray,
    tokens_P: np.ndarray,
    *,
    batch_examples: int,
    generator: np.random.Generator,
    strata_N: np.ndarray | None = None,
    variety: float = 0.2,
) -> list[np.ndarray]:
    """Rows of pairs in steps that share proteins: every row exactly once, sizes as in `plain_batches`.

    members_N2: rows into `tokens_P`, the tokens of each protein; self pairs and repeated pairs are welcome.
    strata_N: where given (classes, say), each step holds the same share of every stratum, to within one row. Without
        it the dense parts of the graph, which are richer in true interactions, make steps of skewed labels.
    variety: sigma of a log-normal factor on the price of each protein, drawn anew in each step. At 0 steps crowd into
        the same dense parts in every epoch; the larger, the more they change, at the cost of reuse.
    """
    if len(members_N2) == 0:
        return []
    stratum_N = np.zeros(len(members_N2), np.int64)
    if strata_N is not None:
        stratum_N = np.unique(strata_N, return_inverse=True)[1]
    graph = _Graph.of(members_N2, len(tokens_P), stratum_N, generator)
    batches = []
    for quota_C in _quotas(stratum_N, -(-len(members_N2) // batch_examples)):
        price_P = generator.lognormal(0.0, variety, len(tokens_P)) / tokens_P
        batches.append(_grow(graph, quota_C, price_P))
    return [batches[step] for step in generator.permutation(len(batches))]


def unique_members(members_BK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The unique proteins of a step, ascending, and for each member (B, K) its index among them."""
    rows, local = np.unique(members_BK, return_inverse=True)
    return rows, local.reshape(members_BK.shape)


def token_chunks(tokens_P: np.ndarray, *, token_budget: int) -> list[np.ndarray]:
    """Rows of proteins in chunks of at most `token_budget` tokens: few chunks, about equally full, rows ascending.

    A protein longer than the budget gets a chunk to itself. Each number of chunks, from the least possible on, is
    tried with the longest-first rule (Graham 1969): the next longest protein goes into the emptiest chunk.
    """
    order = np.argsort(-tokens_P, kind="stable")
    num_long = int((tokens_P > token_budget).sum())
    chunks = [order[row : row + 1] for row in range(num_long)]
    rest = order[num_long:]
    num_chunks = -(-int(tokens_P[rest].sum()) // token_budget)
    while len(rest):
        parts = _longest_first(tokens_P, rest, num_chunks)
        if max(tokens_P[part].sum() for part in parts) <= token_budget:
            return chunks + parts
        num_chunks += 1
    return chunks


def encoding_cost(batches: Sequence[np.ndarray], members_NK: np.ndarray, tokens_P: np.ndarray) -> EncodingCost:
    """What an epoch of these steps encodes."""
    return EncodingCost(
        encoded_tokens=sum(int(tokens_P[np.unique(members_NK[batch])].sum()) for batch in batches),
        member_tokens=sum(int(tokens_P[members_NK[batch]].sum()) for batch in batches),
    )


def _longest_first(tokens_P: np.ndarray, rows: np.ndarray, num_chunks: int) -> list[np.ndarray]:
    parts: list[list[int]] = [[] for _ in range(num_chunks)]
    loads = [(0, number) for number in range(num_chunks)]
    for row in rows.tolist():
        load, number = loads[0]
        parts[number].append(row)
        heapq.heapreplace(loads, (load + int(tokens_P[row]), number))
    return [np.sort(part) for part in parts if part]


def _quotas(stratum_N: np.ndarray, num_steps: int) -> np.ndarray:
    """Rows of each stratum in each step (S, C): rows sorted by stratum are dealt to the steps like cards."""
    step_N = np.arange(len(stratum_N)) % num_steps
    quotas_SC = np.zeros((num_steps, stratum_N.max() + 1), np.int64)
    np.add.at(quotas_SC, (step_N, np.sort(stratum_N)), 1)
    return quotas_SC


@dataclass(frozen=True)
class _Graph:
    """The pairs that an epoch has yet to visit.

    partners, rows: for each protein, its partners and the rows of those pairs, less those found used so far.
    seeds: rows of each stratum in random order; position_C: how far each is known to be used.
    """

    members_N2: np.ndarray
    stratum_N: np.ndarray
    unused_N: np.ndarray
    partners: list[np.ndarray]
    rows: list[np.ndarray]
    seeds: list[np.ndarray]
    position_C: np.ndarray

    @staticmethod
    def of(
        members_N2: np.ndarray, num_proteins: int, stratum_N: np.ndarray, generator: np.random.Generator
    ) -> "_Graph":
        row_N = generator.permutation(len(members_N2))  # which of its pairs a full step leaves over is random
        first_N, second_N = members_N2[row_N].T
        other = first_N != second_N  # a self pair is listed once
        proteins = np.concatenate([first_N, second_N[other]])
        order = np.argsort(proteins, kind="stable")
        ends = np.cumsum(np.bincount(proteins, minlength=num_proteins))[:-1]
        return _Graph(
            members_N2=members_N2,
            stratum_N=stratum_N,
            unused_N=np.ones(len(members_N2), dtype=bool),
            partners=np.split(np.concatenate([second_N, first_N[other]])[order], ends),
            rows=np.split(np.concatenate([row_N, row_N[other]])[order], ends),
            seeds=[row_N[stratum_N[row_N] == stratum] for stratum in range(stratum_N.max() + 1)],
            position_C=np.zeros(stratum_N.max() + 1, np.int64),
        )

    def unused_pairs(self, protein: int) -> tuple[np.ndarray, np.ndarray]:
        """Partners of a protein in its unused pairs, and the rows of these."""
        unused = self.unused_N[self.rows[protein]]
        self.rows[protein] = self.rows[protein][unused]
        self.partners[protein] = self.partners[protein][unused]
        return self.partners[protein], self.rows[protein]

    def seed(self, stratum: int) -> int:
        """A protein of a random unused pair of the stratum."""
        rows = self.seeds[stratum]
        while not self.unused_N[rows[self.position_C[stratum]]]:
            self.position_C[stratum] += 1
        return int(self.members_N2[rows[self.position_C[stratum]], 0])


def _grow(graph: _Graph, quota_C: np.ndarray, price_P: np.ndarray) -> np.ndarray:
    """Use up `quota_C` rows of each stratum, the cheapest way that greedy growth finds; their rows."""
    left_C: list[int] = quota_C.tolist()
    gain_P = np.zeros(len(price_P))
    inside: list[int] = []
    taken: list[np.ndarray] = []
    while any(left_C):
        protein = int(gain_P.argmax())
        if gain_P[protein] <= 0:
            protein = graph.seed(left_C.index(max(left_C)))
        inside.append(protein)
        gain_P[protein] = INSIDE
        rows = _add_gain(graph, protein, left_C, gain_P, price_P)
        if not len(rows):
            continue
        rows, num_taken_C = _within_quota(rows, graph.stratum_N[rows], left_C)
        graph.unused_N[rows] = False
        taken.append(rows)
        num_full = left_C.count(0)
        left_C = [left - num_taken for left, num_taken in zip(left_C, num_taken_C, strict=True)]
        if any(left_C) and left_C.count(0) > num_full:  # the gain from pairs of a stratum now full is void
            gain_P.fill(0)
            gain_P[inside] = INSIDE
            for member in inside:
                _add_gain(graph, member, left_C, gain_P, price_P)
    return np.concatenate(taken)


def _add_gain(graph: _Graph, protein: int, left_C: list[int], gain_P: np.ndarray, price_P: np.ndarray) -> np.ndarray:
    """Raise the gain of the partners of a protein inside by the pairs they would bring; rows of pairs now inside.

    A repeated pair counts once for the gain, which only steers.
    """
    partners, rows = graph.unused_pairs(protein)
    if 0 in left_C:
        is_open = np.array(left_C)[graph.stratum_N[rows]] > 0
        partners, rows = partners[is_open], rows[is_open]
    gain = gain_P[partners]
    gain_P[partners] = gain + price_P[partners]
    return rows[gain == INSIDE]


def _within_quota(rows: np.ndarray, strata: np.ndarray, left_C: list[int]) -> tuple[np.ndarray, list[int]]:
    """The first rows of each stratum, as many as it has left, and their numbers."""
    count_C: list[int] = np.bincount(strata, minlength=len(left_C)).tolist()
    if all(count <= left for count, left in zip(count_C, left_C, strict=True)):
        return rows, count_C
    parts = [rows[strata == stratum][:left] for stratum, left in enumerate(left_C)]
    return np.concatenate(parts), [len(part) for part in parts]
