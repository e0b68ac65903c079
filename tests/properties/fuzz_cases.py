"""Files as they should not be, cut from the shipped demo data, and the contract that every command keeps with them.

PEFTIDE_FUZZ_SCALE multiplies the number of cases: 1 in the usual suite, 50 for more than 10,000 (`make fuzz`).
"""

import csv
import gzip
import io
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

import peftide.data
from peftide.cli import main
from peftide.models.backbones import load_backbone
from peftide.models.bundle import save_bundle
from peftide.models.property_model import HeadShape, PropertyModel, make_head
from peftide.models.target import Target
from peftide.records import Task

SCALE = int(os.environ.get("PEFTIDE_FUZZ_SCALE", "1"))
CPU_SECONDS, SECONDS = 20, 120  # for one case; the second is for a machine that is busy with other work
DEMO = Path(peftide.data.__path__[0]) / "demo"
MERGED = re.compile(r"(\d[\d,]*) rows? that repeat")
BLANK = re.compile(r"(\d[\d,]*) rows? without any value left out")
TASKS: tuple[Task, ...] = ("pair", "protein", "symmetry")


def fuzzed(num_cases: int) -> settings:
    """So many cases, always the same ones in the usual suite, times PEFTIDE_FUZZ_SCALE new ones else."""
    health = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(
        max_examples=num_cases * SCALE,
        deadline=None,
        derandomize=SCALE == 1,
        database=None,
        suppress_health_check=health,
    )


@cache
def sources() -> dict[str, bytes]:
    """Small cuts of the demo files, by a name that fits each: tables of pairs and of proteins, sequences."""
    fasta: dict[str, str] = {}
    for record in gzip.decompress((DEMO / "ppi_proteins.fasta.gz").read_bytes()).decode().split(">")[1:]:
        name, _, sequence = record.partition("\n")
        fasta[name.split()[0]] = sequence.replace("\n", "")[:40]
    header, *rows = (DEMO / "ppi_pairs.tsv").read_text().splitlines()
    pairs = {
        split: [row.split("\t") for row in rows if row.endswith(f"\t{split}")] for split in ("train", "val", "test")
    }
    chosen = [row for split in pairs for label in "01" for row in [row for row in pairs[split] if row[2] == label][:3]]
    names = sorted({name for row in chosen for name in row[:2]})
    lines = [header.split("\t"), *chosen]
    proteins = gzip.decompress((DEMO / "oligomer.tsv.gz").read_bytes()).decode().splitlines()
    examples = [line.split("\t") for line in proteins[1:]]
    kept = [row for split in pairs for label in ("homo-oligomer", "hetero-complex") for row in examples
            if row[2:] == [label, split]]  # fmt: skip
    kept = [[name, sequence[:40], label, split] for name, sequence, label, split in kept[::40]]
    table = [proteins[0].split("\t"), *kept]
    symmetry = [["id", "sequence", "label"], *([*row[:2], ("C2", "D3 C2", "C1")[i % 3]] for i, row in enumerate(kept))]
    return {
        "pairs.tsv": _delimited(lines, "\t"),
        "pairs.csv": _delimited(lines, ","),
        "pairs.parquet": _parquet(lines),
        "proteins.tsv": _delimited(table, "\t"),
        "proteins.csv": _delimited(table, ","),
        "proteins.parquet": _parquet(table),
        "symmetry.tsv": _delimited(symmetry, "\t"),
        "sequences.fasta": "".join(
            f">{name} of yeast\n{fasta[name][:25]}\n{fasta[name][25:]}\n" for name in names
        ).encode(),
    }


def _delimited(rows: list[list[str]], delimiter: str) -> bytes:
    return "".join(delimiter.join(row) + "\n" for row in rows).encode()


def _parquet(rows: list[list[str]]) -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pa.table(dict(zip(rows[0], zip(*rows[1:], strict=True), strict=True))), sink)
    return sink.getvalue()


# Pieces of text that have broken readers before
ODD_TEXTS = (
    *("", " ", "\t", ",", ";", '"', '""', "'", "\n", "\r", "\r\n", "\n\n", "\0", "\ufeff", "\u2028", "\x85", "\x1b[2J"),
    *(
        "nan",
        "NaN",
        "inf",
        "-inf",
        "1e400",
        "-0",
        "1e-400",
        "9" * 400,
        "0x10",
        "1_000",
        "\u0661",
        "½",
        "True",
        "None",
        "NULL",
    ),
    *(
        "ä",
        "\u00a0",
        "e\u0301",
        "👩‍🔬",
        "\u202e",
        "[/b]",
        "[red]",
        ":smile:",
        "%s%n",
        "{0}",
        "=1+1",
        "../../etc",
        "$HOME",
    ),
    *(
        ">",
        ">>",
        ">\n",
        "*",
        "-",
        "mk",
        "JJJ",
        "A" * 3000,
        "id",
        "label",
        "split",
        "protein_a",
        "train",
        "unused",
        "C2 D3",
    ),
)
ODD_BYTES = (
    b"\xff\xfe", b"\xef\xbb\xbf", b"\xe9", b"\xc3\x28", b"\xed\xa0\x80", b"\x1f\x8b", b"PAR1", b"PK\x03\x04", b"\0" * 9
)  # fmt: skip
texts = st.one_of(
    st.sampled_from(ODD_TEXTS), st.text(st.characters(exclude_categories=["Cs"]), max_size=12), st.integers().map(str),
    st.floats().map(str),
)  # fmt: skip


@st.composite
def with_odd_bytes(draw: Callable, content: bytes) -> bytes:
    """Some bytes changed, cut out, put in or repeated."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.sampled_from([0, 0, 1, 1, 4, 40, 10_000])))
        piece = draw(
            st.one_of(st.sampled_from(ODD_BYTES), texts.map(lambda text: text.encode()), st.binary(max_size=4))
        )
        content = content[:start] + piece * draw(st.integers(1, 2)) + content[end:]
    return content


@st.composite
def with_odd_cells(draw: Callable, content: bytes, delimiter: str) -> bytes:
    """A table with columns lost or doubled, rows moved, doubled or cut, and cells of anything, quoted or not."""
    rows = [line.split(delimiter) for line in content.decode().splitlines()]
    for _ in range(draw(st.integers(1, 4))):
        row = draw(st.integers(0, len(rows) - 1))
        column = draw(st.integers(0, len(rows[row]) - 1))
        what = draw(
            st.sampled_from(("cell", "cell", "cell", "column", "lose", "double", "swap", "repeat", "cut", "drop"))
        )
        if what == "cell":
            rows[row][column] = draw(texts)
        elif what == "column":
            value = draw(texts)
            rows[1:] = [[*cells[:column], value, *cells[column + 1 :]] for cells in rows[1:]]
        elif what == "lose":
            rows = [cells[:column] + cells[column + 1 :] or [""] for cells in rows]
        elif what == "double":
            rows = [cells + cells[column : column + 1] for cells in rows]
        elif what == "swap":
            other = draw(st.integers(0, len(rows) - 1))
            rows[row], rows[other] = rows[other], rows[row]
        elif what == "repeat":
            rows += rows[row : row + draw(st.integers(1, 3))]
        elif what == "cut":
            rows[row] = rows[row][: column + 1]
        elif len(rows) > 1:
            rows.pop(row)
    quoting = draw(st.sampled_from(("where needed", "where needed", "all", "none")))
    lines = [delimiter.join(_cell(text, delimiter, quoting) for text in cells) for cells in rows]
    return "".join(f"{line}\n" for line in lines).encode()


def _cell(text: str, delimiter: str, quoting: str) -> str:
    is_quoted = quoting == "all" or (quoting == "where needed" and any(c in text for c in f'{delimiter}"\r\n'))
    return '"' + text.replace('"', '""') + '"' if is_quoted else text


PARQUET_VALUES = (
    *(st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.dates(), st.binary(max_size=3)),
    *(st.lists(st.integers(0, 3), max_size=2), st.decimals(-9, 9, places=2), st.datetimes()),
)


@st.composite
def odd_parquet(draw: Callable, content: bytes) -> bytes:
    """A Parquet table with other types, nulls and names of columns, or with its bytes altered."""
    frame = pyarrow.parquet.read_table(io.BytesIO(content))
    columns = {name: frame[name].to_pylist() for name in frame.column_names}
    for _ in range(draw(st.integers(0, 3))):
        name = draw(st.sampled_from(sorted(columns)))
        value = draw(st.one_of(texts, *PARQUET_VALUES))
        row = draw(st.integers(0, frame.num_rows - 1))
        is_whole = draw(st.booleans())
        values = [value] * frame.num_rows if is_whole else [*columns[name][:row], value, *columns[name][row + 1 :]]
        try:
            pa.array(values)
        except (pa.ArrowException, OverflowError):  # a column of Parquet has one type
            values = [value] * frame.num_rows
        columns[draw(st.sampled_from([name, name, name.upper(), "", "x"]))] = values
    names, arrays = list(columns), [pa.array(values) for values in columns.values()]
    if draw(st.integers(0, 9)) == 0:
        names, arrays = [*names, names[0]], [*arrays, arrays[0]]
    sink = io.BytesIO()
    pyarrow.parquet.write_table(
        pa.Table.from_arrays(arrays, names).slice(0, draw(st.sampled_from([99, 99, 99, 99, 1, 0]))), sink
    )
    whole = sink.getvalue()
    return draw(with_odd_bytes(whole)) if draw(st.integers(0, 2)) == 0 else whole


@st.composite
def odd_text(draw: Callable, content: bytes) -> bytes:
    """Text in another encoding, with other ends of lines, marked, or blank."""
    what = draw(st.sampled_from(("ends", "ends", "mark", "latin", "utf-16", "nothing", "header", "blank", "tail")))
    lines = content.decode("utf-8", errors="replace").splitlines(keepends=True)
    if what == "ends":
        ends = draw(st.lists(st.sampled_from(["\n", "\r\n", "\r", "\n\n", "\v", " \n"]), min_size=1, max_size=5))
        return "".join(line.rstrip("\n") + ends[i % len(ends)] for i, line in enumerate(lines)).encode()
    if what == "mark":
        return b"\xef\xbb\xbf" * draw(st.integers(1, 2)) + content
    if what == "latin":
        return content.replace(b"1", "é".encode("latin-1"), draw(st.integers(1, 3)))
    if what == "utf-16":
        return content.decode("utf-8", errors="replace").encode(
            draw(st.sampled_from(["utf-16", "utf-16-le", "utf-32"]))
        )
    if what == "header":
        return "".join(lines[:1]).encode()
    if what == "blank":
        return b"\n" * draw(st.integers(1, 9)) + content + b" \n\t\n" * draw(st.integers(0, 3))
    if what == "tail":
        return content[: draw(st.integers(1, len(content)))]
    return draw(st.sampled_from([b"", b"\n", b" ", b"\xef\xbb\xbf", b"\0", b"\xff" * 20, b"\n" * 70_000]))


@st.composite
def odd_gzip(draw: Callable, content: bytes) -> bytes:
    """The content compressed, in one member or two, whole, cut off, altered, or with something behind it."""
    half = len(content) // 2
    whole = gzip.compress(content, mtime=0)
    what = draw(st.sampled_from(("whole", "two", "cut", "altered", "tail", "twice", "plain", "empty")))
    if what == "two":
        return gzip.compress(content[:half], mtime=0) + gzip.compress(content[half:], mtime=0)
    if what == "cut":
        return whole[: draw(st.integers(0, len(whole) - 1))]
    if what == "altered":
        place = draw(st.integers(0, len(whole) - 1))
        return whole[:place] + bytes([whole[place] ^ draw(st.integers(1, 255))]) + whole[place + 1 :]
    if what == "tail":
        return whole + draw(st.sampled_from([b"\0" * 20, b"garbage", b"\x1f\x8b", b"\n"]))
    others = {"whole": whole, "twice": gzip.compress(whole, mtime=0), "plain": content, "empty": gzip.compress(b"")}
    return others[what]


@st.composite
def odd_file(draw: Callable, name: str) -> tuple[str, bytes]:
    """A name and content made of one of the sources, of any of these kinds; now and then the source as it is."""
    content = sources()[name]
    stem, suffix = name.split(".")
    if suffix == "parquet":
        content = draw(odd_parquet(content))
    else:
        ways = [with_odd_bytes(content), odd_text(content), st.just(content)]
        if suffix != "fasta":
            ways += [with_odd_cells(content, {"tsv": "\t", "csv": ","}[suffix])] * 3
        content = draw(st.one_of(*ways))
    if draw(st.integers(0, 4)) == 0:
        return f"{name}.gz", draw(odd_gzip(content))
    if draw(st.integers(0, 9)) == 0:
        suffix = draw(st.sampled_from(["tsv", "csv", "txt", "fasta", "parquet", "TSV", "tar", "xlsx"]))
    return f"{stem}.{suffix}", content


def num_records(path: Path) -> int | None:
    """Rows below the header, or records of FASTA, counted by other means; None where that is not clear."""
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    name = path.name.removesuffix(".gz").lower()
    if name.endswith((".parquet", ".pq")):
        return pyarrow.parquet.ParquetFile(io.BytesIO(content)).metadata.num_rows
    text = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    if text.lstrip().startswith(">"):
        return len(re.findall(r"^>", text, re.MULTILINE))
    delimiter = {"csv": ",", "tsv": "\t"}.get(name.rsplit(".")[-1]) or (
        "\t" if "\t" in text.lstrip().split("\n")[0] else ","
    )
    records = [fields for fields in csv.reader(io.StringIO(text, newline="\n"), delimiter=delimiter) if fields]
    return len(records) - 1


def left_out(said: str, what: re.Pattern[str]) -> int:
    """How many rows the notes account for."""
    return sum(int(number.replace(",", "")) for number in what.findall(said))


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, and what it said."""

    code: int
    out: str
    err: str


@contextmanager
def time_limit() -> Iterator[None]:
    """Interrupt what hangs, by the time of the processor, or by the clock where it waits."""

    def stop(number: int, frame: object) -> None:
        raise AssertionError("this takes too long")

    alarms = ((signal.ITIMER_VIRTUAL, signal.SIGVTALRM, CPU_SECONDS), (signal.ITIMER_REAL, signal.SIGALRM, SECONDS))
    former = [signal.signal(number, stop) for _, number, _ in alarms]
    for timer, _, seconds in alarms:
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for (timer, number, _), handler in zip(alarms, former, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


def run_command(*words: str | Path) -> Ended:
    """Run a command in this process, and check how it ends: with 0, or with 2 and one printable error."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), time_limit():
        code = main([str(word) for word in words])
    ended = Ended(code, out.getvalue(), err.getvalue())
    assert code in (0, 2), ended
    errors = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == (1 if code == 2 else 0), ended
    assert "Traceback" not in ended.err, ended
    assert len(ended.err) < 50_000, ended
    if code == 2:
        assert all(line.isprintable() for line in ended.err.splitlines()), ended
    return ended


def check_output(place: Path, ended: Ended, *, former: bytes | None) -> None:
    """A command that failed leaves its output as it was, one that succeeded writes it; neither leaves anything else."""
    assert [path.name for path in place.parent.iterdir() if path != place] == [], ended
    if ended.code == 2:
        assert (place.read_bytes() if place.exists() else None) == former, ended
    else:
        assert place.is_file(), ended
        assert place.read_bytes() != former, ended


def untrained_bundle(folder: Path, kind: str, esm_folder: Path) -> Path:
    """A bundle of a model that nobody trained, which answers at once."""
    target, task = {
        "pair": (Target("binary", ("0", "1")), "pair"),
        "protein": (Target("binary", ("hetero-complex", "homo-oligomer")), "protein"),
    }[kind]
    backbone = load_backbone(str(esm_folder), dtype=torch.float32)
    torch.manual_seed(6)
    shape = HeadShape("linear", backbone.width, 2 if task == "pair" else 1, target.num_outputs, 16, 0.0)
    model = PropertyModel(
        task, "head", backbone, backbone.model, make_head(shape), shape, target, "mean", (4,), 1022, "crop"
    )
    save_bundle(folder, model, {})
    return folder
