"""Every reader, with files as they should not be: a right result with every row accounted for, or one clear error."""

import gzip
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
from fuzz_cases import BLANK, MERGED, TASKS, fuzzed, left_out, num_records, odd_file, sources, texts, time_limit
from hypothesis import given
from hypothesis import strategies as st

from peftide.config import DataSettings
from peftide.data.datasets import read_dataset
from peftide.data.fasta import iterate_fasta
from peftide.data.findings import Findings
from peftide.data.lenient import read_leniently
from peftide.data.proteins import read_proteins
from peftide.data.sequences import RESIDUES
from peftide.data.tables import read_table
from peftide.errors import UserError

T = TypeVar("T")


def read(reader: Callable[[], T]) -> T | None:
    """What a reader gives, or None where it refuses with an error that can be printed."""
    try:
        with time_limit():
            return reader()
    except UserError as error:
        text = str(error)
        assert text.replace("\n", "").isprintable(), text
        assert 0 < len(text) < 20_000
        return None


def written(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", sources())
@given(data=st.data())
@fuzzed(15)
def test_a_table_holds_every_row_of_its_file_or_is_refused(tmp_path, name, data):
    path = written(tmp_path, *data.draw(odd_file(name)))
    findings = Findings()
    table = read(lambda: read_table(str(path), findings=findings))
    if table is None:
        return
    lost = left_out("\n".join(findings.notes), BLANK)
    if not findings.problems:
        assert len(table) + lost == num_records(path)
    assert all(len(cells) == len(table) for cells in table.cells.values())
    assert list(table.lines) == sorted(set(table.lines))


@pytest.mark.parametrize("name", sources())
@given(data=st.data())
@fuzzed(10)
def test_proteins_account_for_every_row_and_hold_residues_alone(tmp_path, name, data):
    path = written(tmp_path, *data.draw(odd_file(name)))
    found = read(lambda: read_proteins(str(path)))
    if found is None:
        return
    proteins, notes = found
    said = "\n".join(notes)
    assert len(proteins) + left_out(said, MERGED) + left_out(said, BLANK) == num_records(path)
    assert len(set(proteins.ids)) == len(proteins)
    assert all(set(sequence) <= set(RESIDUES) and sequence for sequence in proteins.sequences)


@pytest.mark.parametrize("name", sources())
@given(data=st.data())
@fuzzed(10)
def test_a_dataset_accounts_for_every_row(tmp_path, name, data):
    fasta = written(tmp_path, "sequences.fasta", sources()["sequences.fasta"])
    path = written(tmp_path, *data.draw(odd_file(name)))
    is_pair = name.startswith(("pairs", "sequences"))
    if name == "sequences.fasta":
        fasta, path = path, written(tmp_path, "pairs.tsv", sources()["pairs.tsv"])
    task = "pair" if is_pair else data.draw(st.sampled_from(TASKS[1:]))
    examples = DataSettings(data=str(path), sequences=str(fasta) if is_pair else None, task=task)
    for is_labelled in (True, False):
        dataset = read(partial(read_dataset, examples, labelled=is_labelled))
        if dataset is None:
            continue
        said = "\n".join(note for note in dataset.notes if note.startswith(f"{path}:"))
        lost = left_out(said, BLANK) + (left_out(said, MERGED) if is_labelled else 0)
        assert len(dataset) + lost == num_records(path)
        assert dataset.members_NK.min() >= 0
        assert dataset.members_NK.max() < len(dataset.proteins)
        assert (dataset.targets is not None) == is_labelled
    lenient = read(lambda: read_leniently(examples))
    if lenient is not None:
        dataset, refused = lenient
        said = "\n".join(note for note in dataset.notes if note.startswith(f"{path}:"))
        assert all(text.isprintable() for text in refused)
        if not any("left out" in text for text in refused):
            assert len(dataset) + left_out(said, BLANK) == num_records(path)


@pytest.mark.parametrize("task", TASKS)
@given(data=st.data())
@fuzzed(15)
def test_labels_of_anything_are_read_or_refused(tmp_path, task, data):
    """Every label replaced: the kind of target is guessed from words and numbers that nobody would expect."""
    labels = data.draw(st.lists(texts.map(lambda text: text.replace("\t", " ")), min_size=1, max_size=4))
    targets = ("auto", "binary", "multiclass", "multilabel", "regression")
    header, *rows = sources()["pairs.tsv" if task == "pair" else "proteins.tsv"].decode().splitlines()
    cells = [row.split("\t") for row in rows]
    quoted = [
        [*row[:2], '"' + labels[i % len(labels)].replace('"', '""') + '"', *row[3:]] for i, row in enumerate(cells)
    ]
    path = written(tmp_path, "labels.tsv", "\n".join([header, *map("\t".join, quoted)]).encode("utf-8", "replace"))
    fasta = written(tmp_path, "sequences.fasta", sources()["sequences.fasta"])
    target = data.draw(st.sampled_from(targets))
    examples = DataSettings(data=str(path), sequences=str(fasta) if task == "pair" else None, task=task, target=target)
    dataset = read(lambda: read_dataset(examples))
    if dataset is not None:
        assert len(dataset) == len(rows)
        assert target in ("auto", dataset.kind) or task == "symmetry"
        assert dataset.targets is not None
        assert abs(dataset.targets).max() < float("inf")


LINKS = {
    "a circle": lambda path: path.symlink_to(path),
    "a link to nothing": lambda path: path.symlink_to(path.with_name("nothing")),
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "an empty file": Path.touch,
    "nothing at all": lambda path: None,
}


@pytest.mark.parametrize("made", LINKS)
@pytest.mark.parametrize(
    "name", ["t.csv", "t.tsv.gz", "t.fasta", "t.parquet", "t", "t" * 300 + ".csv", "\n.csv", "é.csv"]
)
def test_what_is_no_file_is_refused_at_once(tmp_path, made, name):
    path = tmp_path / name
    if len(name) < 256:
        LINKS[made](path)
    assert read(lambda: read_table(str(path), findings=Findings())) is None
    assert read(lambda: read_proteins(str(path))) is None
    assert read(lambda: list(iterate_fasta(str(path)))) is None
    assert read(lambda: read_dataset(DataSettings(data=str(path), task="protein"))) is None


def bomb(head: bytes) -> bytes:
    """Thirty megabytes that compress to thirty kilobytes, in one line."""
    return gzip.compress(head + b"A" * 30_000_000)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", b"id,sequence\na," + b"M" * 10_000_000 + b"\n"),
        ("t.csv", b"id,sequence\n" + b"a," * 5_000_000),
        ("t.csv", b"a," * 500_000 + b"\n" + b"b," * 500_000 + b"\n"),
        ("t.csv", b"id,sequence\n" + b'"' * 10_000_000),
        ("t.tsv", b"\n" * 10_000_000),
        ("t.fasta", b">" * 10_000_000),
        ("t.fasta", b">a\n" * 100_000),
        ("t.fasta", b">a\n" + b"M\n" * 1_000_000),
        ("t.fasta.gz", bomb(b">a\n")),
        ("t.csv.gz", bomb(b"id,sequence\n")),
    ],
    ids=["long cell", "many fields", "many columns", "quotes", "blank", "headers", "repeated", "short lines", *"bc"],
)
def test_files_of_many_megabytes_in_one_line_or_of_one_letter_a_line_end_in_time(tmp_path, name, content):
    path = written(tmp_path, name, content)
    read(lambda: read_table(str(path), findings=Findings()))
    read(lambda: read_proteins(str(path)))
