"""Files of proteins: where these stand, and all of them at once as one table of unique, cleaned and checked ones."""

from itertools import chain

from peftide.data.cleaned import note_merged
from peftide.data.columns import check_columns, find_protein_columns
from peftide.data.findings import Findings
from peftide.data.portions import PortionSize
from peftide.data.protein_file import ProteinFile
from peftide.data.protein_scan import ScanRules, scan_proteins
from peftide.data.rows import read_header
from peftide.data.tables import rowless_table
from peftide.records import Proteins


def find_proteins(
    path: str, *, column_id: str | None = None, column_sequence: str | None = None, findings: Findings
) -> ProteinFile:
    """Where the proteins of a FASTA file or table stand; raises UserError where that is missing or unclear."""
    header = read_header(path, findings=findings)
    columns = find_protein_columns(
        rowless_table(header), column_id=column_id, column_sequence=column_sequence, needs_id=False, findings=findings
    )
    check_columns(path, findings=findings)
    return ProteinFile(header, columns)


def read_proteins(
    path: str, *, column_id: str | None = None, column_sequence: str | None = None
) -> tuple[Proteins, tuple[str, ...]]:
    """Every protein of a FASTA file or table, once per id in order of first appearance, and the notes of reading.

    Raises UserError with all problems: ids that are missing or have different sequences, letters that are no
    residues, empty sequences.
    """
    findings = Findings()
    file = find_proteins(path, column_id=column_id, column_sequence=column_sequence, findings=findings)
    scan = scan_proteins(file, ScanRules(PortionSize(rows=10_000, residues=10**7), merges=True), findings=findings)
    findings.raise_problems(path)
    note_merged(path, len(scan.checked.repeats), findings=findings)
    portions = list(scan.checked.portions())
    ids, sequences = zip(*((portion.ids, portion.sequences) for portion in portions), strict=True)
    return Proteins(tuple(chain(*ids)), tuple(chain(*sequences))), tuple(findings.notes)
