"""Local alignments of many pairs of proteins at once, in a band around a known diagonal (numpy alone)."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from peftide.data.kmer_search import Candidates

LETTERS = "ARNDCQEGHILKMFPSTWYVX"
# BLOSUM62 (Henikoff and Henikoff 1992), rows and columns in the order of LETTERS
BLOSUM62 = """
 4 -1 -2 -2  0 -1 -1  0 -2 -1 -1 -1 -1 -2 -1  1  0 -3 -2  0  0
-1  5  0 -2 -3  1  0 -2  0 -3 -2  2 -1 -3 -2 -1 -1 -3 -2 -3 -1
-2  0  6  1 -3  0  0  0  1 -3 -3  0 -2 -3 -2  1  0 -4 -2 -3 -1
-2 -2  1  6 -3  0  2 -1 -1 -3 -4 -1 -3 -3 -1  0 -1 -4 -3 -3 -1
 0 -3 -3 -3  9 -3 -4 -3 -3 -1 -1 -3 -1 -2 -3 -1 -1 -2 -2 -1 -2
-1  1  0  0 -3  5  2 -2  0 -3 -2  1  0 -3 -1  0 -1 -2 -1 -2 -1
-1  0  0  2 -4  2  5 -2  0 -3 -3  1 -2 -3 -1  0 -1 -3 -2 -2 -1
 0 -2  0 -1 -3 -2 -2  6 -2 -4 -4 -2 -3 -3 -2  0 -2 -2 -3 -3 -1
-2  0  1 -1 -3  0  0 -2  8 -3 -3 -1 -2 -1 -2 -1 -2 -2  2 -3 -1
-1 -3 -3 -3 -1 -3 -3 -4 -3  4  2 -3  1  0 -3 -2 -1 -3 -1  3 -1
-1 -2 -3 -4 -1 -2 -3 -4 -3  2  4 -2  2  0 -3 -2 -1 -2 -1  1 -1
-1  2  0 -1 -3  1  1 -2 -1 -3 -2  5 -1 -3 -1  0 -1 -3 -2 -2 -1
-1 -1 -2 -3 -1  0 -2 -3 -2  1  2 -1  5  0 -2 -1 -1 -1 -1  1 -1
-2 -3 -3 -3 -2 -3 -3 -3 -1  0  0 -3  0  6 -4 -2 -2  1  3 -1 -1
-1 -2 -2 -1 -3 -1 -1 -2 -2 -3 -3 -1 -2 -4  7 -1 -1 -4 -3 -2 -2
 1 -1  1  0 -1  0  0  0 -1 -2 -2  0 -1 -2 -1  4  1 -3 -2 -2  0
 0 -1  0 -1 -1 -1 -1 -2 -2 -1 -1 -1 -1 -2 -1  1  5 -2 -2  0  0
-3 -3 -4 -4 -2 -2 -3 -2 -2 -3 -2 -3 -1  1 -4 -3 -2 11  2 -3 -2
-2 -2 -2 -3 -2 -1 -2 -3  2 -1 -1 -2 -1  3 -3 -2 -2  2  7 -1 -1
 0 -3 -3 -3 -1 -2 -2 -3 -3  3  1 -2  1 -1 -2 -2  0 -3 -1  4 -1
 0 -1 -1 -1 -2 -1 -1 -1 -1 -1 -1 -1 -1 -1 -2  0  0 -2 -1 -1 -1
"""
STAND_INS = {"B": "D", "Z": "E", "J": "L", "U": "C", "O": "K"}
GAP_OPEN, GAP_EXTEND = 11, 1
UNGAPPED_BAND = 32  # diagonals looked at
CELLS_PER_ROW = 16_384  # of a batch of pairs: keeps a row of the programme in the processor's cache
NUM_CODES = len(LETTERS) + 1  # the last: outside of the protein

# A cell of the gapped programme is one int64 that holds, from the high bits down: score, identical residues, residues
# of the query, residues of the target in gaps of the query, and the reverse. So max() and + carry all of them along.
_SCORE, _IDENTICAL, _SPAN, _QUERY_GAP = (np.int64(1) << bits for bits in (46, 33, 20, 10))
_TARGET_GAP = np.int64(1)
_LONGEST = 8191  # rows of one alignment: what its 13 bits can count
_NEVER = np.int64(-(1 << 62))


@dataclass(frozen=True)
class Alignments:
    """Best local alignment of each pair (A,): BLOSUM62 score, identity and the aligned fraction of either protein.

    identity_A: identical residues over aligned columns, gaps included.
    """

    score_A: np.ndarray
    identity_A: np.ndarray
    query_coverage_A: np.ndarray
    target_coverage_A: np.ndarray


def align(
    queries: Sequence[str], targets: Sequence[str], candidates: Candidates, *, band: int, threads: int | None
) -> Alignments:
    """Smith-Waterman with affine gaps (11, 1) in a band of so many diagonals around each candidate's.

    0.3 ms for a pair of 400 residues in a band of 64. Beyond 8,191 rows of one alignment nothing is seen.
    threads: all cores when None.
    """
    cell_C = np.zeros(len(candidates), dtype=np.int64)
    batches = _Batches.of(queries, targets, candidates, band=band)
    for batch, best_B in batches.each(partial(_gapped_cells, band=band), threads=threads):
        cell_C[batch] = best_B
    span_C, query_gap_C, target_gap_C = cell_C >> 20 & 8191, cell_C >> 10 & 1023, cell_C & 1023
    return Alignments(
        score_A=cell_C >> 46,
        identity_A=(cell_C >> 33 & 8191) / np.maximum(span_C + query_gap_C, 1),
        query_coverage_A=span_C / batches.queries.length_P[candidates.query_C],
        target_coverage_A=(span_C - target_gap_C + query_gap_C) / batches.targets.length_P[candidates.target_C],
    )


def score_without_gaps(
    queries: Sequence[str], targets: Sequence[str], candidates: Candidates, *, threads: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Score (C,) of the best segment without gaps within UNGAPPED_BAND diagonals of each candidate's, and its diagonal.

    Eight times faster than `align`, and enough to tell chance from most relatives.
    """
    score_C, diagonal_C = np.zeros(len(candidates), dtype=np.int64), candidates.diagonal_C.copy()
    batches = _Batches.of(queries, targets, candidates, band=UNGAPPED_BAND)
    for batch, best_BW in batches.each(_ungapped_scores, threads=threads):
        best_B = best_BW.argmax(axis=1)
        score_C[batch] = best_BW[np.arange(len(batch)), best_B]
        diagonal_C[batch] += UNGAPPED_BAND // 2 - best_B
    return score_C, diagonal_C


@dataclass(frozen=True)
class _Batches:
    """Candidates in order of falling length, so that those of one batch fill a rectangle.

    query_first_C, target_first_C: positions of the letters of row 0; in row r, the cell in column w of the band aligns
    query letter r with target letter r + w. So the band reaches from band / 2 - 1 below the diagonal to band / 2 above.
    """

    queries: "_Codes"
    targets: "_Codes"
    candidates: Candidates
    order_C: np.ndarray
    query_first_C: np.ndarray
    target_first_C: np.ndarray
    num_rows_C: np.ndarray
    band: int

    @classmethod
    def of(cls, queries: Sequence[str], targets: Sequence[str], candidates: Candidates, *, band: int) -> "_Batches":
        query_codes, target_codes = _Codes.of(queries), _Codes.of(targets)
        query_length_C = query_codes.length_P[candidates.query_C]
        target_length_C = target_codes.length_P[candidates.target_C]
        first_C = np.maximum(candidates.diagonal_C - band // 2, 0)
        last_C = np.minimum(query_length_C, target_length_C + candidates.diagonal_C + band // 2)
        num_rows_C = np.clip(last_C - first_C, 1, _LONGEST)
        order_C = np.argsort(-num_rows_C, kind="stable")
        target_first_C = first_C - candidates.diagonal_C - band // 2
        return cls(query_codes, target_codes, candidates, order_C, first_C, target_first_C, num_rows_C, band)

    def each(
        self, score: Callable[[np.ndarray, np.ndarray], np.ndarray], *, threads: int | None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Rows of candidates (B,) and `score` of their letters: (B, R) of the queries, (B, R + band) of the targets."""

        def scored(start: int) -> tuple[np.ndarray, np.ndarray]:
            rows = self.order_C[start : start + size]
            num_rows = int(self.num_rows_C[rows[0]])
            query_BR = self.queries.windows(self.candidates.query_C[rows], self.query_first_C[rows], num_rows)
            target_BX = self.targets.windows(
                self.candidates.target_C[rows], self.target_first_C[rows], num_rows + self.band
            )
            return rows, score(query_BR, target_BX)

        size = CELLS_PER_ROW // self.band
        with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
            yield from pool.map(scored, range(0, len(self.candidates), size))


def _gapped_cells(query_BR: np.ndarray, target_BX: np.ndarray, *, band: int) -> np.ndarray:
    """Highest cell (B,) of the dynamic programme with gaps."""
    num_pairs, num_rows = query_BR.shape
    gain = _gain_table().ravel()
    query_BR = query_BR * NUM_CODES
    open_vertical, extend_vertical = (-cost * _SCORE + _SPAN + _TARGET_GAP for cost in (GAP_OPEN, GAP_EXTEND))
    open_horizontal, extend_horizontal = (-cost * _SCORE + _QUERY_GAP for cost in (GAP_OPEN, GAP_EXTEND))
    along_W = np.arange(band) * extend_horizontal
    cell_BW = np.zeros((num_pairs, band), dtype=np.int64)
    vertical_BW = np.full((num_pairs, band), _NEVER)
    best_BW = np.zeros((num_pairs, band), dtype=np.int64)
    for row in range(num_rows):
        np.maximum(vertical_BW[:, 1:] + extend_vertical, cell_BW[:, 1:] + open_vertical, out=vertical_BW[:, :-1])
        cell_BW += gain[query_BR[:, row, None] + target_BX[:, row : row + band]]
        np.maximum(cell_BW, vertical_BW, out=cell_BW)
        np.maximum(cell_BW, 0, out=cell_BW)
        before_BW = np.maximum.accumulate(cell_BW - along_W, axis=1)[:, :-1]
        before_BW += along_W[:-1] + open_horizontal
        np.maximum(cell_BW[:, 1:], before_BW, out=cell_BW[:, 1:])
        np.maximum(best_BW, cell_BW, out=best_BW)
    return best_BW.max(axis=1)


def _ungapped_scores(query_BR: np.ndarray, target_BX: np.ndarray) -> np.ndarray:
    """Best score (B, W) along each diagonal of the band."""
    num_pairs, num_rows = query_BR.shape
    score = (_gain_table().ravel() >> 46).astype(np.int32)
    query_BR = query_BR * NUM_CODES
    cell_BW = np.zeros((num_pairs, UNGAPPED_BAND), dtype=np.int32)
    best_BW = cell_BW.copy()
    for row in range(num_rows):
        cell_BW += score[query_BR[:, row, None] + target_BX[:, row : row + UNGAPPED_BAND]]
        np.maximum(cell_BW, 0, out=cell_BW)
        np.maximum(best_BW, cell_BW, out=best_BW)
    return best_BW


def _gain_table() -> np.ndarray:
    """What a cell gains by each pair of letters; outside of a protein so little that it starts anew."""
    num_letters = len(LETTERS)
    gain = np.full((NUM_CODES, NUM_CODES), -1000 * _SCORE)
    scores = np.array(BLOSUM62.split(), dtype=np.int64).reshape(num_letters, num_letters)
    gain[:num_letters, :num_letters] = scores * _SCORE + _SPAN
    known = np.arange(num_letters - 1)  # X is identical to nothing
    gain[known, known] += _IDENTICAL
    return gain


@dataclass(frozen=True)
class _Codes:
    """Letter numbers of all proteins in one array, with the start and the length of each."""

    code_R: np.ndarray
    start_P: np.ndarray
    length_P: np.ndarray

    @classmethod
    def of(cls, sequences: Sequence[str]) -> "_Codes":
        code_of_byte = np.full(256, LETTERS.index("X"), dtype=np.int16)
        for letter in LETTERS + "".join(STAND_INS):
            code_of_byte[ord(letter)] = LETTERS.index(STAND_INS.get(letter, letter))
        length_P = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
        code_R = code_of_byte[np.frombuffer("".join(sequences).encode(), dtype=np.uint8)]
        return cls(code_R, np.cumsum(length_P) - length_P, length_P)

    def windows(self, protein_B: np.ndarray, first_B: np.ndarray, size: int) -> np.ndarray:
        """Letters (B, size) from position `first_B` on, which may lie before or beyond the protein."""
        position_BX = first_B[:, None] + np.arange(size)
        is_inside_BX = (position_BX >= 0) & (position_BX < self.length_P[protein_B, None])
        residue_BX = np.where(is_inside_BX, self.start_P[protein_B, None] + position_BX, 0)
        return np.where(is_inside_BX, self.code_R[residue_BX], len(LETTERS))
