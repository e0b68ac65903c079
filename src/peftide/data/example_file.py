"""Examples that are single proteins, each with its sequence in the table itself: a file of any size."""

from peftide.config import DataSettings
from peftide.data.columns import check_columns, find_example_columns
from peftide.data.datasets import check_data_settings, end_unlabelled
from peftide.data.files import recognise
from peftide.data.findings import Findings
from peftide.data.members import long_problem, note_long, note_unread_sequences
from peftide.data.portions import PortionSize
from peftide.data.protein_file import ProteinFile
from peftide.data.protein_scan import Scan, ScanRules, scan_proteins
from peftide.data.rows import read_header
from peftide.data.tables import rowless_table
from peftide.records import TargetKind


def stand_alone(settings: DataSettings) -> bool:
    """Whether every example is a protein whose sequence is in the table, so that each portion of it can be scored."""
    return settings.task != "pair" and (settings.sequences is None or recognise(settings.data).kind == "fasta")


def scan_examples(
    settings: DataSettings, size: PortionSize, *, classes: tuple[str, ...], kind: TargetKind
) -> tuple[Scan, tuple[str, ...]]:
    """The first reading of examples that `stand_alone`, without labels, for a trained model; and the notes.

    Every row is kept, repeated ones included. Raises UserError with all problems, as `read_dataset` does.
    """
    check_data_settings(settings, classes=classes, kind=kind)
    findings = Findings()
    header = read_header(settings.data, findings=findings)
    columns = find_example_columns(rowless_table(header), settings, labelled=False, findings=findings)
    check_columns(settings.data, findings=findings)
    if settings.sequences is not None:
        note_unread_sequences(settings, findings=findings)
    rules = ScanRules(size, merges=False, max_residues=settings.max_residues, crops=settings.long_proteins == "crop")
    scan = scan_proteins(ProteinFile(header, columns.members[0]), rules, findings=findings)
    long = scan.long.texts(
        scan.repeats, lambda found: f"{found.place}: {long_problem(found.name, found.num_residues, settings)}"
    )
    if settings.long_proteins == "error":
        for problem in long:
            findings.add("long proteins", problem)
    else:
        note_long(len(long), scan.num_unique, settings, findings=findings)
    return scan, end_unlabelled(settings, findings=findings)
