"""Files as they come: format by name, checked against the content, opened plain or gzipped, read line by line."""

import difflib
import errno
import gzip
import hashlib
import io
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal

from peftide.config import TableSettings
from peftide.errors import UserError

FileKind = Literal["csv", "tsv", "parquet", "fasta"]

KINDS: dict[str, FileKind | Literal["text"]] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".txt": "text",  # tab, comma or FASTA: the content decides
    ".parquet": "parquet",
    ".pq": "parquet",
    ".fasta": "fasta",
    ".fa": "fasta",
    ".faa": "fasta",
    ".fas": "fasta",
}
DELIMITERS: dict[FileKind, str] = {"csv": ",", "tsv": "\t"}

GZIP = "gzip-compressed data"
PARQUET = "a Parquet file"
SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\x1f\x8b", GZIP),
    (b"PAR1", PARQUET),
    (b"PK\x03\x04", "a zip archive or an Excel workbook"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook"),
    (b"BZh", "bzip2-compressed data"),
    (b"\xfd7zXZ", "xz-compressed data"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed data"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\xff\xfe", "UTF-16 text"),
    (b"\xfe\xff", "UTF-16 text"),
    (b"%PDF", "a PDF document"),
    (b"version https://git-lfs", "a Git LFS pointer (the file itself was not fetched)"),
    (b"<!doctype html", "a web page"),
    (b"<html", "a web page"),
)
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
HEAD_BYTES = 1 << 16
LONGEST_LINE = 1 << 26  # characters; the longest known protein has about 45,000 residues


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def files_of(settings: TableSettings) -> list[str]:
    """The files that examples are read from."""
    return [settings.data, *([settings.sequences] if settings.sequences else [])]


def data_digests(settings: TableSettings) -> dict[str, str]:
    """SHA-256 of each file that the examples are read from, by its name."""
    return {name: file_digest(name) for name in files_of(settings)}


@dataclass(frozen=True)
class Format:
    """What a file is: the kind of its content, and whether that is gzipped."""

    kind: FileKind
    gzipped: bool


def recognise(path: str) -> Format:
    """The format that a file's name says, checked against its first bytes.

    Raises UserError where there is no readable regular file, where it is empty, where the suffix is unknown, and
    where the content is not what the name says.
    """
    _check_is_file(path)
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    gzipped = suffixes[-1:] == [".gz"]
    suffix = "".join(suffixes[:-1][-1:] if gzipped else suffixes[-1:])
    head = _first_bytes(path, gzipped=gzipped)
    kind = KINDS.get(suffix)
    looks = _looks_like(head)
    if kind is None and looks is not None:
        raise UserError(f"{path}: looks like {looks}, which is not read; export it as CSV or TSV text")
    if kind is None:
        known = " ".join(KINDS)
        raise UserError(
            f"{path}: the suffix {suffix!r} says no known format; rename it to one of {known}, each also with .gz"
        )
    if looks is None and kind != "parquet":
        kind = _text_kind(path, kind, head)
    elif looks != PARQUET or kind != "parquet":
        wanted = {"parquet": PARQUET, "fasta": "FASTA text"}.get(kind, "a table as text")
        raise UserError(f"{path}: by its name {wanted}, but it looks like {looks or 'text'}; rename or convert it")
    assert kind != "text"
    return Format(kind=kind, gzipped=gzipped)


@contextmanager
def opened(path: str, *, gzipped: bool) -> Iterator[io.BufferedReader | gzip.GzipFile]:
    """The bytes of a file, decompressed where `gzipped`; what goes wrong on reading them is a UserError."""
    try:
        with gzip.open(path, "rb") if gzipped else open(path, "rb") as stream:
            yield stream
    except EOFError as error:
        raise UserError(f"{path}: the gzip data stops before its end; the file was cut off: copy it again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path}: damaged gzip data ({error}); copy the file again") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error


def iterate_lines(path: str, *, gzipped: bool) -> Iterator[tuple[int, str]]:
    r"""Yield (line number from 1, line) of UTF-8 text; any line end is read as "\n", a leading BOM is skipped.

    Raises UserError with the line where there are NUL bytes, bytes that are not UTF-8, or no end of line in sight.
    """
    with opened(path, gzipped=gzipped) as stream:
        # Undecodable bytes become surrogates, so that the line they stand in is known.
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape")
        for number, line in enumerate(iter(partial(text.readline, LONGEST_LINE), ""), start=1):
            if len(line) == LONGEST_LINE:
                raise UserError(
                    f"{path}:{number}: a line of more than {LONGEST_LINE:,} characters; is this a text file?"
                )
            if "\0" in line:
                raise UserError(f"{path}:{number}: NUL bytes; this is not plain text: export it again as UTF-8")
            if not line.isascii() and not _is_unicode(line):
                raise UserError(f"{path}:{number}: bytes that are not UTF-8; save the file with UTF-8 encoding")
            yield number, line


def _is_unicode(line: str) -> bool:
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _check_is_file(path: str) -> None:
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: there is no such file{_nearest_names(Path(path))}") from None
    except ValueError:
        raise UserError(f"{path!r} cannot be the name of a file") from None
    except OSError as error:
        reason = "its links lead back to themselves" if error.errno == errno.ELOOP else error.strerror
        raise UserError(f"{path}: cannot be read: {reason}") from None
    if stat.S_ISDIR(status.st_mode):
        raise UserError(f"{path}: is a folder; name a file{_files_in(Path(path))}")
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{path}: is not a regular file; write the data into a file first")
    if status.st_size == 0:
        raise UserError(f"{path}: the file is empty")


def _names_in(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in islice(entries, 10_000))
    except OSError:
        return []  # only a hint is lost: the message itself stands


def _nearest_names(path: Path) -> str:
    if not path.parent.is_dir():
        return f"; there is no folder {path.parent}"
    nearest = difflib.get_close_matches(path.name, _names_in(path.parent), n=3)
    return f"; there is {', '.join(nearest)}" if nearest else ""


def _files_in(folder: Path) -> str:
    names = [name for name in _names_in(folder) if Path(name.removesuffix(".gz")).suffix.lower() in KINDS]
    return f" in it, such as {', '.join(names[:3])}" if names else " (it holds none that peftide reads)"


def _first_bytes(path: str, *, gzipped: bool) -> bytes:
    with opened(path, gzipped=False) as stream:
        head = stream.read(HEAD_BYTES)
    looks = _looks_like(head)
    if gzipped and looks != GZIP:
        raise UserError(f"{path}: named .gz, but it looks like {looks or 'uncompressed text'}; take .gz off its name")
    if not gzipped and looks == GZIP:
        raise UserError(f"{path}: looks like {GZIP}; add .gz to its name")
    if gzipped:
        with opened(path, gzipped=True) as stream:
            head = stream.read(HEAD_BYTES)
    if not head.removeprefix(BYTE_ORDER_MARK).strip():
        raise UserError(f"{path}: the file is empty")
    return head


def _looks_like(head: bytes) -> str | None:
    """What the first bytes give away; None for what may be text."""
    start = head[:64].removeprefix(BYTE_ORDER_MARK).lstrip()
    for signature, name in SIGNATURES:
        if head.startswith(signature) or start.lower().startswith(signature):
            return name
    return None


def _text_kind(path: str, kind: FileKind | Literal["text"], head: bytes) -> FileKind:
    """The kind of a text by its first line; raises UserError where that contradicts the name."""
    content = head.removeprefix(BYTE_ORDER_MARK).lstrip()
    is_fasta = content.startswith(b">")
    if kind == "text":
        kind = "fasta" if is_fasta else "tsv" if b"\t" in _first_line(content) else "csv"
    if kind == "fasta" and not is_fasta:
        raise UserError(f"{path}: not FASTA: it does not start with '>'; rename a table to .csv or .tsv")
    if kind in DELIMITERS:
        if is_fasta:
            raise UserError(f"{path}: by its name a table, but it looks like FASTA; rename it to .fasta")
        _check_delimiter(path, DELIMITERS[kind], _first_line(content))
    return kind


def _first_line(content: bytes) -> bytes:
    return (content.splitlines() or [b""])[0]


def _check_delimiter(path: str, delimiter: str, header: bytes) -> None:
    if delimiter.encode() in header:
        return
    names = {",": "commas", "\t": "tabs", ";": "semicolons"}
    mends = {",": "rename it to .csv", "\t": "rename it to .tsv", ";": "save it with commas (.csv) or tabs (.tsv)"}
    for other, mend in mends.items():
        if other.encode() in header:
            raise UserError(
                f"{path}: by its name separated by {names[delimiter]}, but by {names[other]} inside; {mend}"
            )
