"""`peftide split` and `peftide audit` as commands: exit codes, files, what is printed, the shipped data."""

import json
from pathlib import Path

import pytest

from conftest import write_examples
from peftide.cli import main
from peftide.training.demo import TASKS


def leaky_pairs(folder: Path) -> list[str]:
    """The words for a table of pairs whose test proteins are mostly in training."""
    data = write_examples(folder, "pair")
    text = Path(data["data"]).read_text()
    rows = [line.rsplit("\t", 1)[0] for line in text.splitlines()[1:23]]
    splits = ["train", "train", "test", "test"] * 6
    table = folder / "leaky.tsv"
    lines = [
        "protein_a\tprotein_b\tlabel\tsplit",
        *(f"{row}\t{split}" for row, split in zip(rows, splits, strict=False)),
    ]
    table.write_text("\n".join(lines) + "\n")
    return ["audit", str(table), "--sequences", data["sequences"], "--search", "none"]


def test_a_flagged_audit_ends_with_1_only_where_it_is_strict(tmp_path, capsys):
    words = leaky_pairs(tmp_path)
    assert main(words) == 0
    assert main([*words, "--strict"]) == 1
    said = capsys.readouterr()
    assert said.out.count("FLAGGED: a score on these splits would mislead: 75.0% of the") == 2
    assert said.err == ""


def test_a_passed_audit_ends_with_0_where_it_is_strict(tmp_path):
    data = write_examples(tmp_path, "pair")
    assert main(["audit", data["data"], "--sequences", data["sequences"], "--search", "builtin", "--strict"]) == 0


def test_the_audit_as_json_holds_what_is_printed(tmp_path, capsys):
    main([*leaky_pairs(tmp_path), "--json", str(tmp_path / "audit.json")])
    written = json.loads((tmp_path / "audit.json").read_text("utf-8"))
    said = capsys.readouterr().out
    assert written["verdict"] in said
    assert all(flag in said for flag in written["flags"])
    assert [split["name"] for split in written["splits"]] == ["train", "test"]


def test_a_table_without_splits_ends_with_2_and_the_way_to_make_one(tmp_path, capsys):
    data = write_examples(tmp_path, "pair")
    table = tmp_path / "bare.tsv"
    table.write_text("".join(line.rsplit("\t", 1)[0] + "\n" for line in Path(data["data"]).read_text().splitlines()))
    assert main(["audit", str(table), "--sequences", data["sequences"]]) == 2
    assert "make one with peftide split" in capsys.readouterr().err


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_the_audit_passes_the_shipped_data(task, capsys):
    files = [task.data.data] + (["--sequences", task.data.sequences] if task.data.sequences else [])
    assert main(["audit", *files, "--task", task.data.task, "--search", "builtin", "--threads", "1", "--strict"]) == 0
    assert "PASSED: no protein of one split, nor a close relative of it, is in another" in capsys.readouterr().out


def test_the_split_of_a_table_passes_the_audit(tmp_path, capsys):
    pairs = TASKS[0].data
    out = tmp_path / "split.csv"
    words = ["--sequences", pairs.sequences, "--search", "builtin", "--threads", "1"]
    assert main(["split", pairs.data, "--out", str(out), *words]) == 0
    assert f"table written to {out}, report to {tmp_path / 'split.report.json'}" in capsys.readouterr().out
    assert main(["audit", str(out), "--strict", *words]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["split.csv", "split.report.json"]


def test_a_mistake_in_the_files_ends_with_2(tmp_path, capsys):
    data = write_examples(tmp_path, "pair")
    Path(data["data"]).write_text("protein_a\tprotein_b\tlabel\nP00\tP00\t1\nP01\tQ9\t0\n")
    assert main(["split", data["data"], "--sequences", data["sequences"], "--out", str(tmp_path / "o.tsv")]) == 2
    said = capsys.readouterr().err
    assert "(2 problems)" in said
    assert "'P00' is paired with itself" in said
    assert "'Q9' is not in" in said
    assert not (tmp_path / "o.tsv").exists()
