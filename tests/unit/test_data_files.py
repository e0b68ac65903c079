import gzip
import os

import pyarrow as pa
import pyarrow.parquet
import pytest

from peftide.data.fasta import iterate_fasta
from peftide.data.files import Format, iterate_lines, recognise
from peftide.data.findings import Findings
from peftide.data.tables import read_table
from peftide.errors import UserError

FASTA = ">a first\nMKV\n>b\nMK\nVL\n"


def written(folder, name, content):
    path = folder / name
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") and not data.startswith(b"\x1f\x8b") else data)
    return str(path)


def parquet_bytes(columns):
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        *(("t.csv", "a,b\n1,2\n", "csv"), ("t.tsv.gz", "a\tb\n1\t2\n", "tsv"), ("T.CSV", "a,b\n1,2\n", "csv")),
        *(("t.txt", "a\tb\n1\t2\n", "tsv"), ("t.txt", "a,b\n1,2\n", "csv"), ("t.txt", FASTA, "fasta")),
        *(("t.fasta", FASTA, "fasta"), ("t.fa.gz", FASTA, "fasta"), ("t.v2.faa", "\n" + FASTA, "fasta")),
        *(("t.parquet", parquet_bytes({"a": [1]}), "parquet"), ("t.pq.gz", parquet_bytes({"a": [1]}), "parquet")),
    ],
)
def test_the_format_follows_from_the_name_and_fits_the_content(tmp_path, name, content, kind):
    assert recognise(written(tmp_path, name, content)) == Format(kind=kind, gzipped=name.endswith(".gz"))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("t.csv", FASTA, "looks like FASTA; rename it to .fasta"),
        ("t.fasta", "a,b\n1,2\n", "does not start with '>'"),
        # Without mtime the second would be in the test's name, and test processes begun in two seconds would differ
        ("t.csv", gzip.compress(b"a,b\n", mtime=0), "looks like gzip-compressed data; add .gz"),
        ("t.csv", parquet_bytes({"a": [1]}), "looks like a Parquet file"),
        ("t.parquet", "a,b\n1,2\n", "by its name a Parquet file, but it looks like text"),
        ("t.csv", b"PK\x03\x04 and more", "an Excel workbook"),
        ("t.csv", "a,b\n".encode("utf-16"), "UTF-16"),
        ("t.fasta", "<!DOCTYPE html><html>", "a web page"),
        ("t.csv", "a\tb\n1\t2\n", "rename it to .tsv"),
        ("t.tsv", "a,b\n1,2\n", "rename it to .csv"),
        ("t.csv", "a;b\n1;2\n", "semicolons"),
        ("t.dat", "a,b\n1,2\n", "the suffix '.dat' says no known format"),
        ("t.xlsx", b"PK\x03\x04 and more", "an Excel workbook, which is not read; export it as CSV"),
        ("t", "a,b\n1,2\n", "no known format"),
        ("t.csv", "", "empty"),
        ("t.csv", "\ufeff\n\n", "empty"),
        ("t.csv.gz", "", "empty"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path, name, content, expected):
    with pytest.raises(UserError, match="t") as caught:
        recognise(written(tmp_path, name, content))
    assert expected in str(caught.value)


def test_plain_text_named_gz_is_refused(tmp_path):
    path = tmp_path / "t.csv.gz"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="looks like uncompressed text; take"):
        recognise(str(path))


def test_half_a_gzip_file_is_refused_with_the_reason(tmp_path):
    whole = gzip.compress(("a,b\n" + "".join(f"{i},{i * i}\n" for i in range(50_000))).encode())
    path = written(tmp_path, "t.csv.gz", whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"t\.csv\.gz: the gzip data stops before its end"):
        read_table(path, findings=Findings())


def test_altered_gzip_data_is_refused(tmp_path):
    whole = bytearray(gzip.compress(b"a,b\n" + b"1,2\n" * 1000))
    whole[-6] ^= 0xFF  # in the checksum
    with pytest.raises(UserError, match="damaged gzip data"):
        read_table(written(tmp_path, "t.csv.gz", bytes(whole)), findings=Findings())


def test_a_missing_file_names_its_nearest_neighbours(tmp_path):
    written(tmp_path, "pairs.tsv", "a\tb\n")
    with pytest.raises(UserError, match=r"no such file; there is pairs\.tsv"):
        recognise(str(tmp_path / "pair.tsv"))
    with pytest.raises(UserError, match="there is no folder"):
        recognise(str(tmp_path / "nowhere" / "pair.tsv"))


def test_a_folder_in_place_of_a_file_names_files_in_it(tmp_path):
    written(tmp_path, "pairs.tsv", "a\tb\n")
    with pytest.raises(UserError, match=r"is a folder; name a file in it, such as pairs\.tsv"):
        recognise(str(tmp_path))


def test_links_in_a_circle_pipes_and_impossible_names_are_refused(tmp_path):
    (tmp_path / "a.csv").symlink_to(tmp_path / "b.csv")
    (tmp_path / "b.csv").symlink_to(tmp_path / "a.csv")
    os.mkfifo(tmp_path / "pipe.csv")
    for name, expected in (("a.csv", "links"), ("pipe.csv", "not a regular file"), ("\0.csv", "cannot be the name")):
        with pytest.raises(UserError, match=expected):
            recognise(str(tmp_path / name))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_count_the_same_with_every_line_end_and_a_byte_order_mark(tmp_path, end):
    path = written(tmp_path, "t.csv", "\ufeff" + end.join(["a,b", "1,2", "", "3,4"]))
    assert list(iterate_lines(path, gzipped=False)) == [(1, "a,b\n"), (2, "1,2\n"), (3, "\n"), (4, "3,4")]


@pytest.mark.parametrize(("content", "expected"), [(b"a,b\n1,2\n\xe9,3\n", "UTF-8"), (b"a,b\n1,2\n\0,3\n", "NUL")])
def test_bytes_that_are_no_text_are_refused_with_their_line(tmp_path, content, expected):
    with pytest.raises(UserError, match=rf"t\.csv:3: .*{expected}"):
        list(iterate_lines(written(tmp_path, "t.csv", content), gzipped=False))


def test_fasta_gives_header_line_first_word_and_joined_sequence(tmp_path):
    path = written(tmp_path, "t.fasta", "\n>a first\nMKV\n\n>b\r\nMK\r\nVL\r\n>\tc d\n>\nMM\n>e\n")
    assert list(iterate_fasta(path)) == [(2, "a", "MKV"), (5, "b", "MKVL"), (8, "c", ""), (9, "", "MM"), (11, "e", "")]


def test_fasta_is_read_one_record_at_a_time(tmp_path):
    records = iterate_fasta(written(tmp_path, "t.fasta", b">a\nMKV\n>b\nMK\n" + b"\xff" * 5))
    assert next(records) == (1, "a", "MKV")
    with pytest.raises(UserError, match=":5: bytes that are not UTF-8"):
        next(records)


def test_a_table_in_place_of_fasta_is_refused(tmp_path):
    with pytest.raises(UserError, match="a table where FASTA is needed"):
        list(iterate_fasta(written(tmp_path, "t.csv", "a,b\n")))


def test_rows_keep_their_line_beyond_quoted_line_breaks_and_blank_lines(tmp_path):
    path = written(tmp_path, "t.csv", 'id,text\na,"one\ntwo"\n\n"b,b","say ""x"""\n')
    table = read_table(path, findings=Findings())
    assert dict(table.cells) == {"id": ("a", "b,b"), "text": ("one\ntwo", 'say "x"')}
    assert list(table.lines) == [2, 5]
    assert table.place(1) == f"{path}:5"


def test_rows_of_another_width_are_problems_with_their_line(tmp_path):
    findings = Findings()
    path = written(tmp_path, "t.csv", "a,b\n1,2\n3\n4,5,6\n7\n8,9\n")
    assert len(read_table(path, findings=findings)) == 2
    with pytest.raises(UserError) as caught:
        findings.raise_problems(path)
    assert f"{path}:3: 1 field where the header has 2 (and 1 more row)" in str(caught.value)
    assert f"{path}:4: 3 fields where the header has 2" in str(caught.value)


def test_rows_of_separators_alone_are_left_out_and_counted(tmp_path):
    findings = Findings()
    assert len(read_table(written(tmp_path, "t.csv", "a,b\n1,2\n,\n,,,\n"), findings=findings)) == 1
    assert findings.notes[0].endswith("t.csv: 2 rows without any value left out")
    assert not findings.problems


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a,b,a\n1,2,3\n", "more than one column is named a"),
        ("a,b\n", "no rows below the header"),
        ('a,b\n1,2\n"3,4\n5,6\n', r":3: a quote that is opened is never closed"),
        ('a,b\n1,"2"x\n', r":2: text after a closing quote"),
    ],
)
def test_tables_that_cannot_be_read_are_refused(tmp_path, content, expected):
    with pytest.raises(UserError, match=expected):
        read_table(written(tmp_path, "t.csv", content), findings=Findings())


def test_a_cell_of_ten_million_letters_is_read_whole(tmp_path):
    table = read_table(written(tmp_path, "t.csv", "id,sequence\na," + "M" * 10_000_000 + "\n"), findings=Findings())
    assert len(table.cells["sequence"][0]) == 10_000_000


def test_words_for_nothing_stay_words_and_unnamed_columns_are_ignored(tmp_path):
    table = read_table(written(tmp_path, "t.csv", ",id, label \n0,NA,NaN\n1,null,None\n"), findings=Findings())
    assert dict(table.cells) == {"id": ("NA", "null"), "label": ("NaN", "None")}


def test_parquet_values_read_as_one_would_type_them(tmp_path):
    columns = {
        "id": ["NA", None],
        "whole": [1.0, None],
        "half": [0.5, 2.0],
        "truth": [True, False],
        "parts": [[1], [2]],
    }
    findings = Findings()
    table = read_table(written(tmp_path, "t.parquet", parquet_bytes(columns)), findings=findings)
    assert {name: list(cells) for name, cells in table.cells.items()} == {
        "id": ["NA", ""],
        "whole": ["1", ""],
        "half": ["0.5", "2"],
        "truth": ["true", "false"],
    }
    assert table.place(0).endswith("t.parquet, row 1")
    assert "parts" in findings.notes[0]


def test_damaged_parquet_is_refused(tmp_path):
    whole = parquet_bytes({"id": ["a"] * 100})
    with pytest.raises(UserError, match="damaged or unsupported Parquet"):
        read_table(written(tmp_path, "t.parquet", whole[:-20]), findings=Findings())


def test_text_that_parquet_holds_as_bytes_is_read(tmp_path):
    columns = {"id": [b"p", b"q"], "label": pa.array([b"1", None], pa.binary())}
    table = read_table(written(tmp_path, "t.parquet", parquet_bytes(columns)), findings=Findings())
    assert table.cells == {"id": ("p", "q"), "label": ("1", "")}
