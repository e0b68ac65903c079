"""Examples that are pairs, or whose sequences are in another file, read without labels: a table of any size."""

from peftide.config import DataSettings
from peftide.data.columns import find_example_columns, settle_columns
from peftide.data.datasets import check_data_settings, end_unlabelled
from peftide.data.findings import Findings
from peftide.data.member_file import MemberFile
from peftide.data.members import ExampleMembers
from peftide.data.rows import iterate_rows, read_header
from peftide.data.tables import rowless_table
from peftide.records import Proteins, TargetKind


def scan_members(
    settings: DataSettings, file: MemberFile, *, classes: tuple[str, ...], kind: TargetKind
) -> tuple[Proteins, tuple[str, ...]]:
    """Read a table once for a trained model: the proteins, the rows of each example among them into `file`, the notes.

    Proteins, examples, notes and problems are those of `read_dataset` without labels; every row is kept. Memory grows
    with the different proteins (see `ExampleMembers`) and the ids in the file of sequences. Of a Parquet table only the
    columns that are needed are read. Raises UserError with all problems, and where the disk is full.
    """
    check_data_settings(settings, classes=classes, kind=kind)
    findings, said = Findings(), Findings()
    header = read_header(settings.data, findings=findings)
    columns = find_example_columns(rowless_table(header), settings, labelled=False, findings=said)
    settle_columns(header, said, findings=findings)
    members = ExampleMembers(header.path, header.file_format.kind, columns, settings)
    for line, cells in iterate_rows(header, members.columns, findings=findings):
        file.add(members.take(line, cells))
    file.flush()
    findings.join(said)
    found = members.find(findings=findings)
    return found.proteins, end_unlabelled(settings, findings=findings)
