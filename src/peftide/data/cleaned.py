"""What is said of sequences that were cleaned: problems of those that no cleaning mends, and counts of the others."""

import re
from collections.abc import Mapping

from peftide.data.findings import Findings, counted, quoted
from peftide.data.sequences import Cleaned

_NUCLEOTIDES = re.compile(r"[ACGTUN]{30,}")
RECASED, SPACED, STARRED, NUCLEOTIDES = "recased", "spaced", "starred", "nucleotides"
_SAID = {
    NUCLEOTIDES: "of A, C, G, T, U and N alone: if this is DNA or RNA, translate it first",
    RECASED: "written in upper case",
    SPACED: "freed of white space",
    STARRED: "freed of a trailing *",
}

ID_OF = {"fasta": ", the first word of its header"}  # where an id is taken from, by kind of file


def name_problem(name: str) -> str | None:
    """What is wrong with an id, None where nothing is."""
    if name.isprintable():
        return None
    return f"id {quoted(name)} has characters that cannot be printed; rename it"


def sequence_problem(name: str, cleaned: Cleaned) -> tuple[str, str] | None:
    """The kind of problem of a protein's sequence, and what is wrong; None where nothing is."""
    if cleaned.foreign:
        letters = " ".join(letter if letter.isprintable() else quoted(letter) for letter in cleaned.foreign[:20])
        mend = "remove gaps" if set(cleaned.foreign) <= set(".-") else "use X for an unknown residue"
        if any(letter.isdigit() for letter in cleaned.foreign):
            mend += "; where these are ids, give their sequences with --sequences"
        return "letters", f"letters {letters} of protein {quoted(name)} are not residues; {mend}"
    if not cleaned.sequence:
        return "empty sequences", f"protein {quoted(name)} has no sequence; fill it in or remove the protein"
    return None


def remarks(cleaned: Cleaned) -> list[str]:
    """What there is to count of a sequence, of the words that `note_remarks` knows."""
    found = [NUCLEOTIDES] if _NUCLEOTIDES.fullmatch(cleaned.sequence) else []
    if cleaned.recased:
        found.append(RECASED)
    if cleaned.spaced:
        found.append(SPACED)
    if cleaned.starred:
        found.append(STARRED)
    return found


def note_remarks(path: str, counts: Mapping[str, int], *, findings: Findings) -> None:
    """A note for each remark on the sequences of a file; counts: of different sequences as written, by remark."""
    findings.notes.extend(
        f"{path}: {counted(counts[name], 'sequence')} {what}" for name, what in _SAID.items() if counts.get(name)
    )


def note_named_by_sequence(path: str, *, findings: Findings) -> None:
    """The note on proteins without ids."""
    findings.notes.append(f"{path}: proteins without an id are named by the SHA-256 of their sequence")


def note_merged(path: str, num_repeated: int, *, findings: Findings) -> None:
    """The note on rows that repeat a protein, where there are any."""
    if num_repeated:
        number = counted(num_repeated, "row")
        findings.notes.append(f"{path}: {number} that repeat an id with the same sequence merged into the first")
