"""The audit's reading lets pass, and tells, what training refuses; and nothing else."""

from pathlib import Path

import numpy as np
import pytest

from conftest import random_sequence
from peftide.config import DataSettings
from peftide.data.datasets import read_dataset
from peftide.data.lenient import read_leniently
from peftide.errors import UserError

SOUND = [("P1", "P2", "1", "train"), ("P1", "P3", "0", "train"), ("P4", "P5", "1", "test"), ("P4", "P6", "0", "test")]


def settings(folder: Path, rows: list[tuple[str, ...]], *, names: range = range(1, 7), **options) -> DataSettings:
    fasta, table = folder / "proteins.fasta", folder / "pairs.tsv"
    fasta.write_text("".join(f">P{number}\n{random_sequence(20, seed=number)}\n" for number in names))
    header = ("protein_a", "protein_b", "label", "split")[: len(rows[0])]
    table.write_text("".join("\t".join(row) + "\n" for row in (header, *rows)))
    return DataSettings(data=str(table), sequences=str(fasta), **options)


def test_a_sound_table_is_read_as_training_reads_it(tmp_path):
    wanted = settings(tmp_path, SOUND)
    (dataset, refused), strict = read_leniently(wanted), read_dataset(wanted)
    assert refused == ()
    assert dataset.proteins == strict.proteins
    for name in ("members_NK", "targets", "split_N"):
        assert getattr(dataset, name).tolist() == getattr(strict, name).tolist()


@pytest.mark.parametrize(
    ("row", "kind", "place"),
    [
        (("P2", "P1", "0", "train"), "contradictory labels (1 problem, counted with", "pairs.tsv:6: 'P2' and 'P1'"),
        (("P1", "P2", "1", "test"), "contradictory splits (1 problem, counted in each", "pairs.tsv:6: 'P1' and 'P2'"),
        (("P5", "P5", "1", "test"), "self pairs (1 problem, counted as pairs)", "pairs.tsv:6: 'P5' is paired"),
        (("P1", "P4", "1", "both"), "splits (1 problem, counted as unused)", "pairs.tsv:6: 'both' is not a split"),
    ],
)
def test_a_row_that_training_refuses_is_kept_and_told(tmp_path, row, kind, place):
    wanted = settings(tmp_path, [*SOUND, row])
    with pytest.raises(UserError):
        read_dataset(wanted)
    dataset, refused = read_leniently(wanted)
    assert len(dataset) == 5
    [sentence] = refused
    assert sentence.startswith(kind)
    assert place in sentence


def test_a_word_that_is_no_split_is_unused(tmp_path):
    dataset, _ = read_leniently(settings(tmp_path, [*SOUND, ("P1", "P4", "1", "both")]))
    assert dataset.split_N.tolist() == ["train", "train", "test", "test", "unused"]


def test_rows_that_repeat_a_pair_all_count(tmp_path):
    dataset, refused = read_leniently(settings(tmp_path, [*SOUND, SOUND[0], SOUND[0]]))
    assert len(dataset) == 6
    assert refused == ()
    assert not any("merged" in note for note in dataset.notes)


def test_an_example_whose_protein_has_no_sequence_is_left_out_where_it_is_rare(tmp_path):
    dataset, refused = read_leniently(settings(tmp_path, [*SOUND * 5, ("P1", "Q9", "1", "train")]))
    assert len(dataset) == 20
    assert (dataset.members_NK >= 0).all()
    assert refused[0].startswith("unknown ids (1 problem, left out), such as ")


def test_a_file_without_most_of_the_sequences_is_refused(tmp_path):
    with pytest.raises(UserError, match="'P4' is not in"):
        read_leniently(settings(tmp_path, SOUND, names=range(1, 4)))


def test_a_class_missing_from_a_split_is_told(tmp_path):
    dataset, refused = read_leniently(settings(tmp_path, SOUND[:3]))
    assert len(dataset) == 3
    assert "split test has no example of 0" in refused[0]


def test_what_hinders_an_audit_is_refused_with_all_problems(tmp_path):
    wanted = settings(tmp_path, [*SOUND, ("P5", "P5", "1", "test"), ("P1", "P4", "nan", "test")])
    with pytest.raises(UserError, match="'nan' is no label") as caught:
        read_leniently(wanted)
    assert "(1 problem)" in str(caught.value)


def test_a_table_without_splits_is_refused_with_the_way_to_make_one(tmp_path):
    with pytest.raises(UserError, match="name it with --column-split, or make one with peftide split"):
        read_leniently(settings(tmp_path, [row[:3] for row in SOUND]))


def test_single_proteins_are_read_too(tmp_path):
    table = tmp_path / "proteins.tsv"
    rows = ["a ACDE x train", "b ACDF y train", "a ACDE y test", "c AC x test"]
    table.write_text("".join("\t".join(row.split()) + "\n" for row in ["id sequence label split", *rows]))
    dataset, refused = read_leniently(DataSettings(data=str(table), task="protein"))
    assert np.array_equal(dataset.members_NK, [[0], [1], [0], [2]])
    assert [sentence.split(" (")[0] for sentence in refused] == ["contradictory labels", "contradictory splits"]
