"""The alphabet of residues, and the cleaning that cannot change a protein."""

import hashlib
import re
from typing import NamedTuple

RESIDUES = "LAGVSERTIDPKQNFYMHWCXBUZO"  # the amino-acid letters of ESM-2's vocabulary, in its order
_CLEAN = re.compile(f"[{RESIDUES}]*")
_ABSENT = frozenset({"NA", "NAN", "NULL", "NONE", "SEQUENCEUNAVAILABLE"})  # written in letters of residues, for nothing


class Cleaned(NamedTuple):
    """A sequence after cleaning, and what cleaning did to it."""

    sequence: str
    foreign: str  # the letters in it that are no residues, sorted; "" when it is sound
    recased: bool
    spaced: bool
    starred: bool


def clean_sequence(text: str) -> Cleaned:
    """Upper case, no white space, no trailing `*` (one: the stop codon); nothing else is changed.

    Letters beyond ASCII are left as they are (some become several letters in upper case) and reported as foreign. What
    R, pandas, databases and BioMart write where there is no sequence is none.
    """
    if len(text) < 30 and "".join(text.split()).upper() in _ABSENT:
        text = ""
    if _CLEAN.fullmatch(text):
        return Cleaned(text, "", recased=False, spaced=False, starred=False)
    joined = "".join(text.split())
    unstarred = joined.removesuffix("*")
    sequence = unstarred.upper() if unstarred.isascii() else unstarred
    return Cleaned(
        sequence,
        foreign="".join(sorted(set(sequence) - set(RESIDUES))),
        recased=sequence != unstarred,
        spaced=len(joined) != len(text),
        starred=len(unstarred) != len(joined),
    )


def sequence_id(sequence: str) -> str:
    """A stable id for a sequence that has none: the first 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(sequence.encode()).hexdigest()[:16]
