"""What a run is trained on: split by clusters unless the table says otherwise, audited, and told."""

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from conftest import random_sequence, write_examples
from peftide.config import TrainSettings
from peftide.errors import UserError
from peftide.training.examples import MOST_SEARCHED, Examples, read_examples

NUM_FAMILIES, NUM_MEMBERS = 40, 3


def read(**options) -> tuple[Examples, str]:
    """The examples and what was said of them."""
    said = io.StringIO()
    settings = TrainSettings(**({"out": "not written", "threads": 1} | options))
    return read_examples(settings, Console(file=said, soft_wrap=True)), said.getvalue()


def family_table(folder: Path, *, split: str | None = None) -> dict[str, str]:
    """Settings for 40 families of 3 proteins each that differ in the last tenth of their residues."""
    lines = ["id\tsequence\tlabel" + ("\tsplit" if split else "")]
    for family in range(NUM_FAMILIES):
        founder = random_sequence(100, seed=family)
        for member in range(NUM_MEMBERS):
            sequence = founder[:90] + random_sequence(10, seed=100 * family + member)
            cells = [f"F{family:02d}_{member}", sequence, str((family + member) % 2)]
            lines.append("\t".join([*cells, *([split.split()[member]] if split else [])]))
    table = folder / "families.tsv"
    table.write_text("\n".join(lines) + "\n")
    return {"data": str(table), "task": "protein"}


def families_by_split(examples: Examples) -> dict[str, set[str]]:
    dataset = examples.dataset
    return {
        split: {dataset.proteins.ids[row][:3] for row in dataset.part(split).members_NK[:, 0]}
        for split in ("train", "val", "test")
    }


def test_without_a_split_column_no_family_is_in_two_parts(tmp_path):
    examples, said = read(**family_table(tmp_path))
    parts = families_by_split(examples)
    assert all(parts.values())
    assert sum(map(len, parts.values())) == len(set.union(*parts.values())) == NUM_FAMILIES
    assert len(np.unique(examples.dataset.cluster_P)) == NUM_FAMILIES
    assert examples.dataset.cluster_P[::3].tolist() == examples.dataset.cluster_P[2::3].tolist()
    assert "note: 120 proteins in 40 clusters at 30% identity" in said
    assert "audit: PASSED: no protein of one split, nor a close relative of it, is in another" in said
    assert any("120 proteins in 40 clusters" in note for note in examples.dataset.notes)


def test_by_protein_families_are_torn_apart_and_the_audit_says_so(tmp_path):
    examples, said = read(**family_table(tmp_path), split_by="protein")
    parts = families_by_split(examples)
    assert parts["train"] & parts["test"]
    assert examples.dataset.cluster_P is None
    assert "audit: FLAGGED: a score on these splits would mislead" in said


def test_relatives_above_the_asked_identity_alone_stay_together(tmp_path):
    examples, _ = read(**family_table(tmp_path), split_identity=0.99)
    assert len(np.unique(examples.dataset.cluster_P)) > NUM_FAMILIES


def test_the_seed_of_the_split_alone_decides_it(tmp_path):
    table = family_table(tmp_path)

    def split(**options) -> list[str]:
        return read(**table, **options)[0].dataset.split_N.tolist()

    assert split(seed=1, split_seed=5) == split(seed=2, split_seed=5) == split(seed=5)
    assert split(seed=5) != split(seed=6)


def test_a_flagged_split_is_refused_where_settings_are_strict_and_named_where_not(tmp_path):
    table = family_table(tmp_path, split="train val test")
    examples, said = read(**table)
    assert len(examples.audit.flags) == 3
    assert f"audit: {examples.audit.verdict}\n" in said
    with pytest.raises(UserError, match=r"FLAGGED.*peftide split makes a better split"):
        read(**table, strict=True)


def test_a_sound_split_is_trained_on_where_settings_are_strict(tmp_path):
    examples, _ = read(**write_examples(tmp_path, "pair"), strict=True)
    assert examples.audit.flags == ()
    assert examples.dataset.cluster_P is None


def test_a_fast_audit_searches_no_relatives_and_none_is_none(tmp_path):
    table = family_table(tmp_path, split="train val test")
    fast, said = read(**table, audit="fast")
    assert fast.audit.homology_tool is None
    assert "similar sequences were not searched" in said
    none, said = read(**table, audit="none")
    assert none.audit is None
    assert "audit:" not in said


def test_a_search_of_minutes_is_left_out_unless_it_is_asked_for(tmp_path):
    rows = [f"P{number}\t{random_sequence(12, seed=number)}\t{number % 2}\t" for number in range(MOST_SEARCHED + 5)]
    table = tmp_path / "many.tsv"
    splits = ["train"] * 4 + ["val"] * (MOST_SEARCHED + 1)
    table.write_text("\n".join(["id\tsequence\tlabel\tsplit", *map(str.__add__, rows, splits)]) + "\n")
    examples, said = read(data=str(table), task="protein")
    assert examples.audit.homology_tool is None
    assert "note: the audit leaves out the search for relatives of 8,001 validation and test proteins" in said


def test_settings_of_a_split_that_the_table_brings_are_named_as_ignored(tmp_path):
    _, said = read(**write_examples(tmp_path, "pair"), val_fraction=0.2, split_seed=3)
    assert "has a split column, so val_fraction, split_seed is ignored" in said
    _, said = read(**write_examples(tmp_path, "pair"))
    assert "ignored" not in said


def test_a_table_without_validation_examples_is_refused(tmp_path):
    with pytest.raises(UserError, match="40 training and 0 validation examples"):
        read(**family_table(tmp_path, split="train test test"))


def clustered_table(folder: Path, *, empty: bool = False) -> dict[str, str]:
    """The families, each with its number in a column `cluster`, and without a split."""
    settings = family_table(folder)
    lines = Path(settings["data"]).read_text().splitlines()
    rows = [f"{line}\tfamily {number // NUM_MEMBERS}" for number, line in enumerate(lines[1:])]
    if empty:
        rows[5] = f"{lines[6]}\t"
    Path(settings["data"]).write_text("\n".join([f"{lines[0]}\tcluster", *rows]) + "\n")
    return settings


def test_clusters_of_the_table_are_taken_and_not_looked_for(tmp_path):
    examples, said = read(**clustered_table(tmp_path))
    assert examples.dataset.cluster_P.tolist() == [number // NUM_MEMBERS for number in range(120)]
    parts = families_by_split(examples)
    assert sum(map(len, parts.values())) == len(set.union(*parts.values())) == NUM_FAMILIES
    assert "note: 120 proteins in 40 clusters as given (largest: 3)" in said


def test_a_column_of_clusters_with_gaps_is_left_alone_unless_it_is_named(tmp_path):
    table = clustered_table(tmp_path, empty=True)
    examples, said = read(**table)
    assert "column 'cluster' is not read as cluster: some of its cells are empty" in said
    assert "at 30% identity" in said
    assert len(np.unique(examples.dataset.cluster_P)) == NUM_FAMILIES
    with pytest.raises(UserError, match=r"families.tsv:7: no value in column 'cluster'"):
        read(**table, column_cluster="cluster")


def test_a_protein_in_two_clusters_is_a_problem(tmp_path):
    table = clustered_table(tmp_path)
    path = Path(table["data"])
    first = path.read_text().splitlines()[1]
    path.write_text(path.read_text() + first.replace("family 0", "family 1") + "\n")
    with pytest.raises(UserError, match=r"families.tsv:122: 'F00_0' is in another cluster than at .*:2; keep one"):
        read(**table)


def test_sampling_by_clusters_looks_for_them_where_the_table_has_none(tmp_path):
    table = family_table(tmp_path, split="train val test")
    assert read(**table)[0].dataset.cluster_P is None
    examples, said = read(**table, sampling="clusters")
    assert len(np.unique(examples.dataset.cluster_P)) == NUM_FAMILIES
    assert "120 proteins in 40 clusters at 30% identity" in said
