"""From sequences to the token pieces that the backbone sees: a lookup table, and the rule for long proteins."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from peftide.config import LongProteins
from peftide.errors import UserError, raise_problems
from peftide.records import Proteins

WINDOW_OVERLAP_FRACTION = 0.25


@dataclass(frozen=True)
class Vocabulary:
    """Token ids of a backbone, as its tokenizer has them.

    tokens: in id order; letter_ids: (256,) int64, the id of each ASCII letter, `unknown_id` where there is none.
    """

    tokens: tuple[str, ...]
    letter_ids: np.ndarray
    cls_id: int
    eos_id: int
    mask_id: int
    unknown_id: int

    @staticmethod
    def from_tokens(tokens: Sequence[str]) -> "Vocabulary":
        """Build the table from the tokens in id order (a `vocab.txt`); the special tokens carry ESM-2's names."""
        ids = {token: index for index, token in enumerate(tokens)}
        missing = [name for name in ("<cls>", "<eos>", "<mask>", "<unk>") if name not in ids]
        if missing:
            raise UserError(f"the vocabulary has no {', '.join(missing)}: this is not an ESM-2 tokenizer")
        letter_ids = np.full(256, ids["<unk>"], dtype=np.int64)
        for token, index in ids.items():
            if len(token) == 1 and token.isascii():
                letter_ids[ord(token)] = index
        return Vocabulary(tuple(tokens), letter_ids, ids["<cls>"], ids["<eos>"], ids["<mask>"], ids["<unk>"])

    def encode(self, sequence: str) -> np.ndarray:
        """Token ids (L + 2,) of a sequence of L residues between `<cls>` and `<eos>`."""
        letters = np.frombuffer(sequence.encode("latin-1", errors="replace"), dtype=np.uint8)
        return np.concatenate([[self.cls_id], self.letter_ids[letters], [self.eos_id]])


@dataclass(frozen=True)
class Pieces:
    """The pieces of one protein: one, or several overlapping windows of a long one.

    starts: first residue of each piece; tokens: ids of each piece with `<cls>` and `<eos>`;
    weights: per piece, the share of each of its residues in the protein's mean (they sum to 1 over all pieces;
    a residue seen by n windows counts 1/n in each, so the mean is over residues, not over windows).
    """

    num_residues: int
    starts: tuple[int, ...]
    tokens: tuple[np.ndarray, ...]
    weights: tuple[np.ndarray, ...]

    @cached_property
    def num_tokens(self) -> int:
        """Tokens over all pieces."""
        return sum(len(piece) for piece in self.tokens)

    @cached_property
    def keys(self) -> tuple[bytes, ...]:
        """A digest of each piece's tokens, under which its states are kept."""
        return tuple(hashlib.blake2b(piece.tobytes(), digest_size=16).digest() for piece in self.tokens)


def window_starts(num_residues: int, max_residues: int) -> list[int]:
    """Starts of the fewest evenly spaced windows of `max_residues` that overlap by at least a quarter."""
    if num_residues <= max_residues:
        return [0]
    stride = max(1, int(max_residues * (1 - WINDOW_OVERLAP_FRACTION)))
    num_windows = 1 + -(-(num_residues - max_residues) // stride)
    return np.linspace(0, num_residues - max_residues, num_windows).round().astype(int).tolist()


def cut_proteins(
    proteins: Proteins, vocabulary: Vocabulary, *, max_residues: int, long_proteins: LongProteins
) -> list[Pieces]:
    """Cut every protein by `cut_pieces`; UserError with all that are too long where that is not allowed."""
    if long_proteins == "error":
        lengths = zip(proteins.ids, map(len, proteins.sequences), strict=True)
        refuse_long([too_long(*found) for found in lengths if found[1] > max_residues], max_residues)
    return [
        cut_pieces(sequence, vocabulary, max_residues=max_residues, long_proteins=long_proteins)
        for sequence in proteins.sequences
    ]


def too_long(name: str, num_residues: int) -> str:
    """A line of `refuse_long`."""
    return f"{name}: {num_residues:,} residues"


def refuse_long(lines: Sequence[str], max_residues: int) -> None:
    """Raise UserError with a line for each protein that is too long; without any, return."""
    raise_problems(
        f"proteins of more than max_residues = {max_residues}: choose --long-proteins crop or window, "
        "or raise --max-residues",
        lines,
    )


def cut_pieces(sequence: str, vocabulary: Vocabulary, *, max_residues: int, long_proteins: LongProteins) -> Pieces:
    """Cut a sequence for the backbone: whole where it fits; else its start (crop) or all of it (window).

    Both rules are deterministic, so a cached piece is always the piece that would be computed anew.
    """
    assert long_proteins != "error" or len(sequence) <= max_residues, "see cut_proteins"
    starts = window_starts(len(sequence), max_residues) if long_proteins == "window" else [0]
    spans = [(start, min(start + max_residues, len(sequence))) for start in starts]
    coverage = np.zeros(spans[-1][1])
    for start, end in spans:
        coverage[start:end] += 1
    share = 1.0 / (coverage * len(coverage))
    return Pieces(
        num_residues=len(coverage),
        starts=tuple(starts),
        tokens=tuple(vocabulary.encode(sequence[start:end]) for start, end in spans),
        weights=tuple(share[start:end].astype(np.float32) for start, end in spans),
    )
