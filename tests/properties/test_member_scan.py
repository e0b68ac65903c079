"""Whatever a table of examples holds, reading it row by row gives what reading it whole gives, to the last word."""

import io
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from fuzz_cases import fuzzed, odd_file, sources, texts
from hypothesis import given
from hypothesis import strategies as st

from peftide.config import DataSettings
from peftide.data.datasets import read_dataset
from peftide.data.member_file import member_file
from peftide.data.member_scan import scan_members
from peftide.errors import UserError

CLASSES = ("no", "yes")


def whole(settings: DataSettings) -> str | tuple:
    """The ids, sequences, members and notes of a table that is read whole, or why it is refused."""
    try:
        found = read_dataset(settings, labelled=False, classes=CLASSES, kind="binary")
    except UserError as error:
        return str(error)
    return found.proteins.ids, found.proteins.sequences, found.members_NK.tolist(), found.notes


def streamed(settings: DataSettings, folder: Path, *, rows_at_once: int) -> str | tuple:
    """The same of a table that is read row by row."""
    with member_file(folder, 2 if settings.task == "pair" else 1, rows_at_once=rows_at_once) as file:
        try:
            proteins, notes = scan_members(settings, file, classes=CLASSES, kind="binary")
        except UserError as error:
            return str(error)
        members_NK = [row for chunk_NK in file.chunks() for row in chunk_NK.tolist()]
        assert len(file) == len(members_NK)
    return proteins.ids, proteins.sequences, members_NK, notes


good_ids = st.sampled_from(["A", "B", "C", "D", "P12345", "Q9"])
odd_ids = st.one_of(
    good_ids, st.sampled_from([" A", "B ", "\tC", "", " ", "a", "E", "sp|P12345|X", "A\x1b", "ü"]), texts
)
good_proteins = good_ids.map(lambda name: (name, "MK" + name[0]))
good_sequences = st.sampled_from(["MKVLA", "MKVC", "MK", "MKVLAMKVLA"])
odd_sequences = st.one_of(
    good_sequences, st.sampled_from(["mk", "MK*", "M K", "M1", "", "-", "ACGT" * 9, "acgu" * 9, "M" * 30]), texts
)


@st.composite
def tables(draw: Callable, is_pair: bool) -> tuple[str, bytes, bool]:
    """Name and content of a table, and whether it holds ids alone; as often good as odd, in cells, rows and columns."""
    is_odd, is_named = draw(st.booleans()), draw(st.booleans()) or not is_pair
    names, sequences = (odd_ids, odd_sequences) if is_odd else (good_ids, good_sequences)
    proteins = st.tuples(odd_ids, odd_sequences) if is_odd else good_proteins
    header, row = ["id"], st.tuples(names)
    if is_pair and is_named:
        header, row = ["protein_a", "protein_b"], st.tuples(names, names)
    elif is_pair and draw(st.booleans()):
        header = ["protein_a", "sequence_a", "protein_b", "sequence_b"]
        row = st.tuples(proteins, proteins).map(lambda pair: pair[0] + pair[1])
    elif is_pair:
        header, row = ["sequence_a", "sequence_b"], st.tuples(sequences, sequences)
    rows = draw(st.lists(row, min_size=1, max_size=12))
    rows += [rows[number % len(rows)] for number in draw(st.lists(st.integers(0, 11), max_size=4))]
    header, rows = [*header, "x"], [[*row, str(number)] for number, row in enumerate(rows)]
    if is_odd and draw(st.booleans()):
        header[draw(st.integers(0, len(header) - 1))] = draw(
            st.sampled_from(["seq1", "protein1", "uniprot_a", "y", ""])
        )
    kind = draw(st.sampled_from(["csv", "tsv", "parquet"]))
    if kind == "parquet":
        columns = dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))
        sink = io.BytesIO()
        pyarrow.parquet.write_table(pa.table(columns), sink, row_group_size=draw(st.integers(1, 5)))
        return "table.parquet", sink.getvalue(), is_named
    if is_odd:
        for _ in range(draw(st.integers(0, 2))):
            rows.insert(draw(st.integers(0, len(rows))), draw(st.sampled_from([[""] * len(header), ["A"], ["A"] * 7])))
    return f"table.{kind}", delimited([header, *rows], "\t" if kind == "tsv" else ","), is_named


def delimited(rows: list[list[str]], delimiter: str) -> bytes:
    cells = [['"' + cell.replace('"', '""') + '"' for cell in row] for row in rows]
    return "".join(delimiter.join(row) + "\n" for row in cells).encode().replace(b"\0", b"")


@st.composite
def sequence_files(draw: Callable) -> tuple[str, bytes]:
    """A file of sequences: all that good rows need, or with some missing, doubled, in two forms or of odd letters."""
    records = [("A", "MKVLA"), ("sp|P12345|X", "MKVC"), ("B", "MKV"), ("C", "MKVLAMKVLA"), ("D", "MK"), ("Q9", "MM")]
    records += [("tr|R1|Y", "MKL"), ("unused", "1")][: draw(st.integers(0, 2))]
    if draw(st.integers(0, 2)) == 0:
        records += draw(st.lists(st.tuples(odd_ids, odd_sequences), max_size=4))
        for _ in range(draw(st.integers(0, 2))):
            records.pop(draw(st.integers(0, len(records) - 1)))
    if draw(st.booleans()):
        return "s.fasta", "".join(f">{name} of\n{text}\n" for name, text in records).encode().replace(b"\0", b"")
    header = draw(st.sampled_from([["id", "sequence"]] * 4 + [["name", "seq"], ["name", "acc"]]))
    return "s.tsv", delimited([header, *map(list, records)], "\t")


@pytest.mark.parametrize("task", ["pair", "protein"])
@given(data=st.data(), rows_at_once=st.integers(1, 9))
@fuzzed(150)
def test_rows_read_one_by_one_are_those_of_the_whole_table_or_refused_in_the_same_words(
    tmp_path, task, data, rows_at_once
):
    name, content, is_named = data.draw(tables(task == "pair"))
    (tmp_path / name).write_bytes(content)
    source, sequences = data.draw(sequence_files())
    (tmp_path / source).write_bytes(sequences)
    settings = DataSettings(
        data=str(tmp_path / name), task=task,
        sequences=str(tmp_path / source) if is_named == (data.draw(st.integers(0, 9)) > 0) else None,
        max_residues=data.draw(st.sampled_from([1022, 1022, 1022, 3])),
        long_proteins=data.draw(st.sampled_from(["crop", "window", "error"])),
        allow_self_pairs=task == "pair" and data.draw(st.integers(0, 3)) > 0,
        column_label=data.draw(st.sampled_from([None, None, "x"])),
    )  # fmt: skip
    assert streamed(settings, tmp_path, rows_at_once=rows_at_once) == whole(settings)


@pytest.mark.parametrize("name", ["pairs.tsv", "pairs.csv", "sequences.fasta"])
@given(data=st.data(), rows_at_once=st.integers(1, 9))
@fuzzed(40)
def test_files_as_they_should_not_be_are_refused_in_the_same_words(tmp_path, name, data, rows_at_once):
    paths = {}
    for other in ("pairs.tsv", "sequences.fasta", name):
        there, content = data.draw(odd_file(other)) if other == name else (other, sources()[other])
        paths[other] = tmp_path / there
        paths[other].write_bytes(content)
    table = paths["pairs.tsv" if name == "sequences.fasta" else name]
    settings = DataSettings(data=str(table), sequences=str(paths["sequences.fasta"]))
    assert streamed(settings, tmp_path, rows_at_once=rows_at_once) == whole(settings)
