"""The proteins that examples are made of, gathered row by row: from a table in memory, or from a file of any size."""

from array import array
from collections.abc import Sequence

from peftide.config import DataSettings
from peftide.data.carried import CarriedMembers, FoundProteins
from peftide.data.columns import ExampleColumns
from peftide.data.files import FileKind
from peftide.data.findings import Findings, counted, quoted
from peftide.data.named import NamedMembers
from peftide.data.rows import place_of


class ExampleMembers:
    """Numbers for the proteins of examples, and what is wrong with them.

    Memory grows with the different proteins, and by 16 bytes for each pair of a protein with itself where these are
    refused. columns: those of a table whose cells are to be taken.
    """

    def __init__(self, path: str, kind: FileKind, columns: ExampleColumns, settings: DataSettings) -> None:
        self._path, self._kind, self._settings = path, kind, settings
        ids = [member.id for member in columns.members if member.sequence is None and member.id is not None]
        if settings.sequences is None or not ids:
            self._is_source_unread = settings.sequences is not None
            self._proteins = CarriedMembers(path, kind, columns.members)
        else:
            self._is_source_unread = False
            self._proteins = NamedMembers(path, kind, ids, settings)
        self.columns = self._proteins.columns
        self._refuses_self_pairs = settings.task == "pair" and not settings.allow_self_pairs
        self._self_lines, self._self_numbers = array("q"), array("q")

    def take(self, line: int, cells: Sequence[str]) -> list[int]:
        """The numbers (K,) of the proteins of one more row, by order of appearance; -1 for a missing id, a problem."""
        numbers = self._proteins.take(line, cells)
        if self._refuses_self_pairs and numbers[0] == numbers[-1] >= 0:
            self._self_lines.append(line)
            self._self_numbers.append(numbers[0])
        return numbers

    def find(self, *, findings: Findings) -> FoundProteins:
        """The proteins when all rows were taken; everything that is wrong with them is in the findings then.

        Where nothing is wrong, a number is a row of the proteins. Raises UserError where a file of sequences cannot be
        read, or a column of it is missing or unclear.
        """
        if self._is_source_unread:
            note_unread_sequences(self._settings, findings=findings)
        found = self._proteins.find(findings=findings)
        _check_lengths(found, self._settings, findings=findings)
        for line, number in zip(self._self_lines, self._self_numbers, strict=True):
            row = int(found.row_of_M[number])
            if row >= 0:
                name = quoted(found.proteins.ids[row])
                what = f"{name} is paired with itself; remove the row, or accept homodimers with --allow-self-pairs"
                findings.add("self pairs", f"{place_of(self._path, self._kind, line)}: {what}")
        return found


def note_unread_sequences(settings: DataSettings, *, findings: Findings) -> None:
    """The note on a file of sequences that is not needed."""
    findings.notes.append(f"{settings.sequences}: not read, since {settings.data} holds the sequences")


def _check_lengths(found: FoundProteins, settings: DataSettings, *, findings: Findings) -> None:
    """Proteins beyond max_residues: problems where they are refused, else counted."""
    lengths = list(map(len, found.proteins.sequences))
    long = [index for index, length in enumerate(lengths) if length > settings.max_residues]
    if settings.long_proteins == "error":
        for index in long:
            what = long_problem(found.proteins.ids[index], lengths[index], settings)
            findings.add("long proteins", f"{found.place(index)}: {what}")
    else:
        note_long(len(long), len(found.proteins), settings, findings=findings)


def long_problem(name: str, num_residues: int, settings: DataSettings) -> str:
    """What is wrong with a protein that is too long, where that is refused."""
    mend = "remove it, or say --long-proteins crop (or window)"
    than = f"more than --max-residues {settings.max_residues}"
    return f"protein {quoted(name)} has {num_residues:,} residues, {than}; {mend}"


def note_long(num_long: int, num_proteins: int, settings: DataSettings, *, findings: Findings) -> None:
    """The note on proteins that are too long, where there are any and they are not refused."""
    if num_long:
        done = "cropped to that" if settings.long_proteins == "crop" else "read in overlapping windows"
        number = f"{counted(num_long, 'protein')} of {num_proteins:,}"
        findings.notes.append(f"{settings.data}: {number} longer than {settings.max_residues:,} residues, {done}")
