"""`peftide split` writes tables that every reader accepts, in which no relatives are in two parts."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import peftide
from conftest import random_sequence, write_examples
from peftide.config import DataSettings, SplitSettings
from peftide.data.datasets import read_dataset
from peftide.data.split_table import split_table
from peftide.data.written import negative_of
from peftide.errors import UserError

NUM_FAMILIES, NUM_MEMBERS = 30, 4


def relative(sequence: str, seed: int) -> str:
    """The sequence with a fifth of its residues drawn anew."""
    generator = np.random.default_rng(seed)
    letters = np.array(list(sequence))
    chosen = generator.permutation(len(letters))[: len(letters) // 5]
    letters[chosen] = generator.permutation(letters)[: len(chosen)]
    return "".join(letters)


def family_sequences() -> dict[str, str]:
    """F00_0, F00_1, ...: members of a family share two thirds of their residues."""
    founders = [random_sequence(120, seed=family) for family in range(NUM_FAMILIES)]
    return {
        f"F{family:02d}_{member}": relative(founder, 100 * family + member)
        for family, founder in enumerate(founders)
        for member in range(NUM_MEMBERS)
    }


def write_pairs(folder: Path, labels: list[str] | None, *, number: int = 600) -> SplitSettings:
    """Random pairs of the family members with these labels by turns (None: without a column of labels)."""
    names, generator = list(family_sequences()), np.random.default_rng(5)
    fasta, table = folder / "proteins.fasta", folder / "pairs.tsv"
    fasta.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in family_sequences().items()))
    pairs = generator.permutation(np.column_stack(np.triu_indices(len(names), 1)))[:number]
    cells = {"Interactor A": [names[a] for a in pairs[:, 0]], "Interactor B": [names[b] for b in pairs[:, 1]]}
    if labels is not None:
        cells["interaction"] = [labels[row % len(labels)] for row in range(number)]
    pd.DataFrame(cells).to_csv(table, sep="\t", index=False)
    return SplitSettings(
        data=str(table), sequences=str(fasta), out=str(folder / "split.tsv"), val_fraction=0.2, test_fraction=0.2,
        search="builtin", threads=1,
    )  # fmt: skip


def table_of(path: str | Path) -> pd.DataFrame:
    return pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)


def families(rows: pd.DataFrame) -> set[str]:
    return set(pd.concat([rows["protein_a"], rows["protein_b"]]).str[:3])


def test_no_family_is_in_two_parts_of_a_table_split_by_cluster(tmp_path):
    report = peftide.split(write_pairs(tmp_path, ["1", "0"]))
    table = table_of(tmp_path / "split.tsv")
    parts = [families(table[table["split"] == split]) for split in ("train", "val", "test")]
    assert all(parts)
    assert len(set.union(*parts)) == sum(map(len, parts))
    assert report.num_clusters == NUM_FAMILIES
    assert report.by == "cluster"


def test_families_are_torn_apart_by_protein(tmp_path):
    settings = dataclasses.replace(write_pairs(tmp_path, ["1", "0"]), by="protein")
    columns = split_table(settings).columns
    table = pd.DataFrame(columns)
    parts = [table[table["split"] == split] for split in ("train", "test")]
    assert len(families(parts[0]) & families(parts[1])) > NUM_FAMILIES // 2
    proteins = [set(part["protein_a"]) | set(part["protein_b"]) for part in parts]
    assert not proteins[0] & proteins[1]


def test_the_written_table_keeps_rows_and_labels_and_is_read_again_as_it_was_split(tmp_path):
    settings = write_pairs(tmp_path, ["interacts", "does not"])
    report = peftide.split(settings)
    given, table = table_of(settings.data), table_of(settings.out)
    assert list(table.columns) == [
        "protein_a", "protein_b", "label", "split", "pair_class", "cluster_a", "cluster_b",
    ]  # fmt: skip
    for old, new in zip(given.columns, table.columns[:3], strict=True):
        assert given[old].tolist() == table[new].tolist()
    dataset = read_dataset(DataSettings(data=settings.out, sequences=settings.sequences))
    assert dataset.split_N.tolist() == table["split"].tolist()
    assert dataset.classes == ("does not", "interacts")
    family_P = np.array([name[:3] for name in dataset.proteins.ids])
    assert dataset.cluster_P is not None
    same_family, same_cluster = (given[:, None] == given for given in (family_P, dataset.cluster_P))
    assert np.array_equal(same_family, same_cluster)
    counted = {part.name: (part.num_examples, part.class_counts) for part in report.parts}
    for split in ("train", "val", "test", "unused"):
        rows = table[table["split"] == split]
        assert counted[split] == (len(rows), rows["label"].value_counts().sort_index().to_dict())


def test_clusters_of_pairs_with_empty_cells_are_left_alone_and_a_protein_in_two_is_told(tmp_path):
    settings = write_pairs(tmp_path, ["1", "0"])
    peftide.split(settings)
    table = table_of(settings.out)
    reading = DataSettings(data=settings.out, sequences=settings.sequences)
    table.assign(cluster_b=["", *table["cluster_b"][1:]]).to_csv(settings.out, sep="\t", index=False)
    dataset = read_dataset(reading)
    assert dataset.cluster_P is None
    assert any("column 'cluster_b' is not read as cluster" in note for note in dataset.notes)
    row = int(np.flatnonzero(table["protein_a"].duplicated())[0])
    table.assign(cluster_a=["other" if at == row else name for at, name in enumerate(table["cluster_a"])]).to_csv(
        settings.out, sep="\t", index=False
    )
    with pytest.raises(UserError, match="is in another cluster than at"):
        read_dataset(reading)


def test_sizes_are_near_those_asked_for_and_lost_pairs_are_counted(tmp_path):
    report = split_table(write_pairs(tmp_path, ["1", "0"])).report
    parts = {part.name: part for part in report.parts}
    for name, asked in (("train", 0.6), ("val", 0.2), ("test", 0.2)):
        assert parts[name].asked_fraction == pytest.approx(asked)
        assert parts[name].fraction == pytest.approx(asked, abs=0.07)
        assert parts[name].class_counts["1"] / parts[name].num_examples == pytest.approx(0.5, abs=0.15)
    assert sum(part.num_examples for part in report.parts) == report.num_examples == 600
    assert any(f"{parts['unused'].num_examples} of 600 pairs" in note for note in report.notes)


def test_test_pairs_are_unseen_and_unused_ones_are_told_by_how_much_of_them_is(tmp_path):
    settings = write_pairs(tmp_path, ["1", "0"])
    report = peftide.split(settings)
    table = table_of(settings.out)
    trained = families(table[table["split"] == "train"])
    for _, row in table.iterrows():
        num_seen = (row["protein_a"][:3] in trained) + (row["protein_b"][:3] in trained)
        is_told = row["split"] in ("test", "unused")
        assert row["pair_class"] == (["C3", "C2", "C1"][num_seen] if is_told else "")
    assert report.pair_classes["test"] == {"C1": 0, "C2": 0, "C3": int((table["split"] == "test").sum())}
    assert report.pair_classes["unused"]["C2"] > 0


def test_the_report_beside_the_table_says_what_was_done(tmp_path):
    settings = dataclasses.replace(write_pairs(tmp_path, ["1", "0"]), out=str(tmp_path / "split.tsv.gz"), seed=3)
    report = peftide.split(settings)
    written = json.loads((tmp_path / "split.report.json").read_text("utf-8"))
    assert written["settings"] == dataclasses.asdict(settings)
    assert set(written["data"]["sha256"]) == {settings.data, settings.sequences}
    assert written["num_clusters"] == report.num_clusters
    assert "30 clusters at 30% identity over 50% of either protein" in written["clusters"]
    assert "builtin k-mer search" in written["clusters"]
    assert [part["name"] for part in written["parts"]] == ["train", "val", "test", "unused"]


def test_the_same_seed_writes_the_same_file_and_another_one_another(tmp_path):
    settings = write_pairs(tmp_path, ["1", "0"])
    contents = []
    for number, seed in enumerate((0, 0, 1)):
        again = dataclasses.replace(settings, out=str(tmp_path / f"{number}.tsv"), seed=seed)
        peftide.split(again)
        contents.append(Path(again.out).read_bytes())
    assert contents[0] == contents[1] != contents[2]


def test_repeated_pairs_are_written_once_and_an_old_split_is_not_read(tmp_path):
    settings = write_pairs(tmp_path, ["1", "0"], number=300)
    given = table_of(settings.data).assign(split="training")
    again = given.iloc[:2].rename(columns={"Interactor A": "Interactor B", "Interactor B": "Interactor A"})
    pd.concat([given, again[given.columns].assign(split="test")]).to_csv(settings.data, sep="\t", index=False)
    done = split_table(settings)
    assert done.columns["protein_a"] == given["Interactor A"].tolist()
    assert any("its column 'split' is not read" in note for note in done.report.notes)
    assert any("2 rows that repeat a pair" in note for note in done.report.notes)


@pytest.mark.parametrize(
    ("kind", "labels"),
    [
        ("symmetry", ["C12", "d2 C1", "C3"]),
        ("regression", ["50.50", "61.0", "7"]),
        ("multilabel", ["a;b", "b", "c; a"]),
    ],
)
def test_labels_of_proteins_stay_as_they_were_written(tmp_path, kind, labels):
    table = pd.DataFrame({"id": list(family_sequences()), "sequence": list(family_sequences().values())})
    table["label"] = [labels[row % 3] for row in range(len(table))]
    table.to_csv(tmp_path / "given.tsv", sep="\t", index=False)
    task = {"task": "symmetry"} if kind == "symmetry" else {"task": "protein", "target": kind}
    settings = SplitSettings(
        data=str(tmp_path / "given.tsv"), **task, out=str(tmp_path / "split.tsv"), search="builtin", threads=1
    )
    peftide.split(settings)
    written = table_of(settings.out)
    assert list(written.columns) == ["id", "sequence", "label", "split", "cluster"]
    for column in ("id", "sequence", "label"):
        assert written[column].tolist() == table[column].tolist()
    by_family = written.groupby(written["id"].str[:3])["split"].nunique()
    assert by_family.tolist() == [1] * NUM_FAMILIES


def test_sequences_in_the_table_of_pairs_are_written_with_ids_and_read_again(tmp_path):
    sequences, generator = list(family_sequences().values()), np.random.default_rng(2)
    pairs = generator.permutation(np.column_stack(np.triu_indices(len(sequences), 1)))[:300]
    cells = {f"sequence_{end}": [sequences[row] for row in column] for end, column in zip("ab", pairs.T, strict=True)}
    pd.DataFrame(cells | {"label": [row % 2 for row in range(300)]}).to_csv(tmp_path / "given.csv", index=False)
    settings = SplitSettings(data=str(tmp_path / "given.csv"), out=str(tmp_path / "split.parquet"), by="protein")
    peftide.split(settings)
    written = pd.read_parquet(settings.out)
    expected = ["protein_a", "protein_b", "sequence_a", "sequence_b", "label", "split", "pair_class"]
    assert list(written.columns) == expected
    assert written["sequence_a"].tolist() == cells["sequence_a"]
    dataset = read_dataset(DataSettings(data=settings.out))
    assert dataset.split_N.tolist() == written["split"].tolist()


@pytest.mark.parametrize(
    ("labels", "negative"), [(None, "0"), (["1"], "0"), (["yes", "1"], "0"), (["binds"], "non-binds")]
)
def test_negatives_follow_positive_pairs_and_stay_within_their_part(tmp_path, labels, negative):
    settings = dataclasses.replace(write_pairs(tmp_path, labels, number=200), negatives=2.0)
    report = peftide.split(settings)
    table = table_of(settings.out)
    given, sampled = table.iloc[:200], table.iloc[200:]
    assert given["label"].tolist() == [(labels or ["1"])[row % len(labels or "1")] for row in range(200)]
    assert set(sampled["label"]) == {negative}
    assert report.num_negatives == len(sampled)
    assert len(sampled) == pytest.approx(2 * (given["split"] != "unused").sum(), rel=0.1)
    keys = [frozenset(pair) for pair in zip(table["protein_a"], table["protein_b"], strict=True)]
    assert len(set(keys)) == len(keys)
    parts = [families(table[table["split"] == split]) for split in ("train", "val", "test")]
    assert len(set.union(*parts)) == sum(map(len, parts))
    dataset = read_dataset(DataSettings(data=settings.out, sequences=settings.sequences))
    assert dataset.targets.tolist() == [1.0] * 200 + [0.0] * len(sampled)


@pytest.mark.parametrize("label", ["1", "yes", "TRUE", "+", "+1", "positive", "interacting", "Y", "2", "P", "set-7"])
def test_the_label_of_sampled_negatives_is_read_as_the_negative_class(tmp_path, label):
    settings = write_pairs(tmp_path, [label, negative_of(label)])
    assert read_dataset(settings).classes == (negative_of(label), label)


@pytest.mark.parametrize("labels", [["1", "0"], ["0"], ["binds", "stays"]])
def test_negatives_are_not_sampled_where_labels_are_not_all_positive(tmp_path, labels):
    with pytest.raises(UserError, match="for tables of positive pairs alone, and its labels are"):
        split_table(dataclasses.replace(write_pairs(tmp_path, labels), negatives=1.0))


@pytest.mark.parametrize("labels", [None, ["1"]])
def test_a_table_of_positive_pairs_alone_is_told_how_to_get_negatives(tmp_path, labels):
    with pytest.raises(UserError, match="peftide split --negatives 1 adds as many presumed negatives"):
        split_table(write_pairs(tmp_path, labels))


def test_one_family_alone_cannot_be_split_by_cluster_and_the_message_says_what_can_be_done(tmp_path):
    settings = write_pairs(tmp_path, ["1", "0"])
    rows = [f"F00_{a}\tF00_{b}\t{(a + b) % 2}\n" for a in range(NUM_MEMBERS) for b in range(a)]
    Path(settings.data).write_text("".join(["protein_a\tprotein_b\tlabel\n", *rows]))
    with pytest.raises(UserError, match="or split by protein, which lets similar proteins fall in different splits"):
        split_table(settings)


def test_a_place_that_cannot_be_written_is_refused_before_the_work_and_the_input_is_not_replaced(tmp_path):
    settings = write_pairs(tmp_path, ["1", "0"])
    for out, message in (
        (str(tmp_path / "nowhere" / "split.tsv"), "there is no folder"),
        (str(tmp_path / "split.fasta"), "name a table to write"),
        (settings.data, "is a file to be read .* would be overwritten"),
    ):
        with pytest.raises(UserError, match=message):
            peftide.split(dataclasses.replace(settings, out=out))


@pytest.mark.parametrize("by", ["protein", "cluster"])
def test_clusters_that_are_given_are_kept_however_the_table_is_split(tmp_path, by):
    data, out = tmp_path / "proteins.csv", str(tmp_path / "split.csv")
    rows = [f"p{i},{random_sequence(30, seed=i)},{i % 2},f{i // 2}" for i in range(60)]
    data.write_text("\n".join(["id,sequence,label,family", *rows]))
    peftide.split(SplitSettings(data=str(data), task="protein", by=by, column_cluster="family", out=out))
    table = pd.read_csv(out)
    assert table.groupby("cluster").size().tolist() == [2] * 30
    assert (table.groupby("cluster").split.nunique() == 1).all() == (by == "cluster")


def test_a_split_table_is_trained_on_as_it_is(tmp_path, esm_folder):
    settings = write_pairs(tmp_path, ["1", "0"], number=300)
    peftide.split(settings)
    files = {"data": settings.out, "sequences": settings.sequences, "out": str(tmp_path / "run")}
    tiny = {"backbone": str(esm_folder), "method": "head", "head_width": 8, "epochs": 1, "device": "cpu"}
    run = peftide.train(peftide.TrainSettings(**files, **tiny, strict=True, baselines="none"))
    assert table_of(run.folder / "split.tsv")["split"].tolist() == table_of(settings.out)["split"].tolist()


def test_the_examples_of_all_tests_can_be_split_by_protein(tmp_path):
    data = write_examples(tmp_path, "multiclass")
    settings = SplitSettings(**data, out=str(tmp_path / "s.tsv"), val_fraction=0.3, test_fraction=0.3, by="protein")
    assert {part.name for part in split_table(settings).report.parts} == {"train", "val", "test"}
