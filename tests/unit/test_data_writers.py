import errno
import tempfile

import numpy as np
import pytest
from safetensors import SafetensorError

from peftide.data.findings import Findings
from peftide.data.tables import read_table
from peftide.data.writers import temporary_folder, write_table
from peftide.errors import UserError, unwritable

COLUMNS = {"id": ["a", 'b "x"', "c\td,\ne"], "score": np.array([0.1, 1e-7, 3.0], dtype=np.float32), "n": [1, 2, None]}


@pytest.mark.parametrize("name", ["t.tsv", "t.csv", "t.parquet", "t.tsv.gz", "t.csv.gz", "t.parquet.gz"])
def test_what_is_written_reads_back_and_leaves_nothing_else(tmp_path, name):
    write_table(tmp_path / name, COLUMNS)
    table = read_table(str(tmp_path / name), findings=Findings())
    assert list(table.cells["id"]) == COLUMNS["id"]
    assert [np.float32(text) for text in table.cells["score"]] == COLUMNS["score"].tolist()
    assert list(table.cells["n"]) == ["1", "2", ""]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_float32_scores_are_written_in_their_own_digits(tmp_path):
    write_table(tmp_path / "t.tsv", {"score": np.array([0.1, 1 / 3], dtype=np.float32)})
    assert (tmp_path / "t.tsv").read_text() == "score\n0.1\n0.33333334\n"


@pytest.mark.parametrize("name", ["t.tsv.gz", "t.parquet.gz"])
def test_equal_tables_make_equal_files(tmp_path, name):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write_table(tmp_path / folder / name, COLUMNS)
    assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_failed_writing_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text("old")

    class Unprintable:
        def __str__(self):
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        write_table(path, {"id": ["a", Unprintable()]})
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["t.tsv"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("t.xlsx", "name a table to write"),
        ("t.fasta", "name a table to write"),
        ("t", "name a table to write"),
        ("nowhere/t.tsv", "there is no folder"),
        ("folder.tsv", "is a folder"),
        ("x" * 250 + ".tsv", "cannot be written"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused(tmp_path, name, expected):
    (tmp_path / "folder.tsv").mkdir()
    with pytest.raises(UserError, match=expected):
        write_table(tmp_path / name, COLUMNS)


@pytest.mark.parametrize(
    ("error", "goes_on", "expected"),
    [
        (OSError(errno.ENOSPC, "x"), False, "No space left on device); make room there, and give the same command"),
        (OSError(errno.ENOSPC, "x"), True, "No space left on device); make room there, and the same command goes on"),
        (OSError(errno.EROFS, "x"), False, "Read-only file system); make it writable, or name another place"),
        (OSError(errno.EROFS, "x"), True, "Read-only file system); make it writable, and the same command goes on"),
        (SafetensorError("I/O error: odd (os error 28)"), True, "No space left on device); make room there, and the"),
        (SafetensorError("odd"), False, "odd); make it writable, or name another place"),
    ],
)
def test_what_cannot_be_written_is_told_with_the_reason_of_the_system_and_the_mend(error, goes_on, expected):
    assert str(unwritable("a/b", error, goes_on=goes_on)).startswith(f"a/b: cannot be written ({expected}")


def test_no_folder_for_temporary_files_is_told_with_how_to_name_another(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"Not a directory: .*name another folder in the environment as TMPDIR"):
        temporary_folder(what="test").__enter__()


def test_a_temporary_folder_is_gone_when_its_block_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with temporary_folder(what="test") as folder:
        (folder / "file").write_text("something")
        assert list(tmp_path.iterdir()) == [folder]
    assert list(tmp_path.iterdir()) == []
