"""FASTA, plain or gzipped: one record after the other, with the line of its header."""

from collections.abc import Iterator

from peftide.data.files import iterate_lines, recognise
from peftide.errors import UserError


def iterate_fasta(path: str) -> Iterator[tuple[int, str, str]]:
    """Yield (line of the header, id, sequence as written) without holding the file in memory.

    The id is the first word of the header ("" where there is none); the sequence is the record's lines joined, not
    yet cleaned or checked. Raises UserError where the file cannot be read or is not FASTA.
    """
    file_format = recognise(path)
    if file_format.kind != "fasta":
        raise UserError(f"{path}: a table where FASTA is needed")
    header: tuple[int, str] | None = None
    pieces: list[str] = []
    for number, line in iterate_lines(path, gzipped=file_format.gzipped):
        if line.startswith(">"):
            if header is not None:
                yield *header, "".join(pieces)
            header, pieces = (number, (line[1:].split(maxsplit=1) or [""])[0]), []
        elif header is not None:
            pieces.append(line.rstrip("\n"))
        elif line.strip():
            raise UserError(f"{path}:{number}: text before the first '>'; each sequence needs a header line")
    if header is not None:
        yield *header, "".join(pieces)
