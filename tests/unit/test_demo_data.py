"""The shipped demo data are what their README says."""

import csv
import gzip
from collections import Counter
from pathlib import Path

from peftide.config import DataSettings
from peftide.data.datasets import read_dataset
from peftide.training.demo import DEMO_DATA, TASKS


def table(path: Path) -> list[dict[str, str]]:
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
    return list(csv.DictReader(text.splitlines(), delimiter="\t"))


def sequences() -> dict[str, str]:
    lines = gzip.decompress((DEMO_DATA / "ppi_proteins.fasta.gz").read_bytes()).decode().splitlines()
    return dict(zip([line[1:] for line in lines[::2]], lines[1::2], strict=True))


def test_no_protein_is_in_two_splits():
    pairs, oligomers = table(DEMO_DATA / "ppi_pairs.tsv"), table(DEMO_DATA / "oligomer.tsv.gz")
    found = {(row[column], row["split"]) for row in pairs for column in ("protein_a", "protein_b")}
    assert len(found) == len({name for name, _ in found})
    assert len({row["id"] for row in oligomers}) == len({row["sequence"] for row in oligomers}) == len(oligomers)


def test_the_sizes_are_those_of_the_readme():
    pairs = Counter((row["split"], row["label"]) for row in table(DEMO_DATA / "ppi_pairs.tsv"))
    assert pairs == {(s, c): n for s, n in (("train", 723), ("val", 165), ("test", 372)) for c in "01"}
    oligomers = Counter(row["split"] for row in table(DEMO_DATA / "oligomer.tsv.gz"))
    assert oligomers == {"train": 393, "val": 100, "test": 223}


def test_every_protein_is_in_as_many_negative_as_positive_pairs_of_its_split():
    degrees = {label: Counter() for label in "01"}
    for row in table(DEMO_DATA / "ppi_pairs.tsv"):
        degrees[row["label"]].update([row["protein_a"], row["protein_b"]])
    assert degrees["0"] == degrees["1"]


def test_no_pair_is_repeated_or_of_a_protein_with_itself_and_each_protein_has_a_sequence():
    pairs = [frozenset((row["protein_a"], row["protein_b"])) for row in table(DEMO_DATA / "ppi_pairs.tsv")]
    assert all(len(pair) == 2 for pair in pairs)
    assert len(set(pairs)) == len(pairs)
    assert {name for pair in pairs for name in pair} == set(sequences())


def test_the_product_reads_both_tasks_with_every_class_in_every_split():
    for task in TASKS:
        dataset = read_dataset(task.data)
        assert isinstance(task.data, DataSettings)
        for split in ("train", "val", "test"):
            assert set(dataset.part(split).targets.tolist()) == {0.0, 1.0}
