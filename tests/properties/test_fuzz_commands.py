"""Every command, with files, settings and places as they should not be: exit code 0 and a whole result, or 2, one clear
error, and nothing half written.

Training is asked to do with one megabyte of memory, so that a run ends, with that as its error, where it would begin.
"""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pyarrow.parquet
import pytest
from fuzz_cases import (
    BLANK,
    MERGED,
    Ended,
    check_output,
    fuzzed,
    left_out,
    num_records,
    odd_file,
    run_command,
    sources,
    texts,
    untrained_bundle,
)
from hypothesis import given
from hypothesis import strategies as st

from peftide.cli import COMMANDS, main, parse
from peftide.config import settings_of
from peftide.data.findings import Findings
from peftide.data.tables import read_table
from peftide.errors import UserError

MACHINE = ("--device", "cpu", "--precision", "fp32", "--cache-limit-gb", "0")
NO_MEMORY = ("--memory", "1MB")
KINDS = ("pair", "protein")
FORMER = b"an earlier result"


@pytest.fixture(scope="module")
def bundles(esm_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bundles")
    return {kind: untrained_bundle(folder / kind, kind, esm_folder) for kind in KINDS}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a command, with room above it for whatever climbs."""
    folder = tmp_path / "a" / "b" / "c" / "d" / "work"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


def fresh(folder: Path) -> Path:
    """A new folder of its own for one case."""
    case = folder / f"case{len(list(folder.iterdir()))}"
    (case / "out").mkdir(parents=True)
    return case


def files_for(data: st.DataObject, kind: str, case: Path) -> tuple[Path, list[str]]:
    """A table of examples in the case's folder and the flags of its sequences; one of the two files is odd."""
    if kind == "protein":
        names = ("proteins.tsv", "proteins.csv", "proteins.parquet", "symmetry.tsv", "sequences.fasta")
        return _write(case, *data.draw(odd_file(data.draw(st.sampled_from(names))))), []
    odd = data.draw(st.sampled_from(("pairs.tsv", "pairs.tsv", "pairs.csv", "pairs.parquet", "sequences.fasta")))
    table, fasta = ("pairs.tsv", odd) if odd == "sequences.fasta" else (odd, "sequences.fasta")
    files = [
        _write(case, *(data.draw(odd_file(name)) if name == odd else (name, sources()[name])))
        for name in (table, fasta)
    ]
    return files[0], ["--sequences", str(files[1])]


def _write(case: Path, name: str, content: bytes) -> Path:
    (case / name).write_bytes(content)
    return case / name


def former_result(data: st.DataObject, path: Path) -> bytes | None:
    """Now and then the output is there already."""
    if data.draw(st.booleans()):
        path.write_bytes(FORMER)
        return FORMER
    return None


def rows_of(table: Path) -> int:
    return len(read_table(str(table), findings=Findings()))


def lost_of(ended: Ended, table: Path, *, merged: bool) -> int:
    """Rows of the table that the notes account for."""
    said = "\n".join(line for line in ended.out.splitlines() if line.startswith(f"note: {table}:"))
    return left_out(said, BLANK) + (left_out(said, MERGED) if merged else 0)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@fuzzed(10)
def test_predict_answers_every_row_in_order_or_writes_nothing(place, bundles, kind, data):
    case = fresh(place)
    table, flags = files_for(data, kind, case)
    out = case / "out" / data.draw(st.sampled_from(("scores.tsv", "scores.csv.gz", "scores.parquet")))
    former = former_result(data, out)
    ended = run_command("predict", bundles[kind], table, *flags, "--out", out, *MACHINE)
    check_output(out, ended, former=former)
    if ended.code == 0:
        assert rows_of(out) + lost_of(ended, table, merged=False) == num_records(table)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@fuzzed(8)
def test_evaluate_scores_every_row_or_writes_nothing(place, bundles, kind, data):
    case = fresh(place)
    table, flags = files_for(data, kind, case)
    split = data.draw(st.sampled_from(("all", "all", "train", "val", "test")))
    words = ["evaluate", bundles[kind], table, *flags, "--split", split, "--out", case / "out" / "test", *MACHINE]
    ended = run_command(*words)
    written = sorted(path.name for path in (case / "out").rglob("*") if path.is_file())
    assert written == (["metrics.json", "predictions.tsv"] if ended.code == 0 else []), ended
    if ended.code == 0:
        assert json.loads((case / "out" / "test" / "metrics.json").read_text())["metrics"]
    if ended.code == 0 and split == "all":
        num_rows = rows_of(case / "out" / "test" / "predictions.tsv")
        assert num_rows + lost_of(ended, table, merged=True) == num_records(table)


@given(data=st.data())
@fuzzed(8)
def test_embed_gives_every_protein_a_vector_or_writes_nothing(place, esm_folder, data):
    case = fresh(place)
    names = ("sequences.fasta", "sequences.fasta", "proteins.tsv", "proteins.parquet")
    table = _write(case, *data.draw(odd_file(data.draw(st.sampled_from(names)))))
    out = case / "out" / data.draw(st.sampled_from(("vectors.h5", "vectors.parquet")))
    former = former_result(data, out)
    more = data.draw(st.sampled_from(((), ("--per-residue",), ("--pooling", "cls"), ("--max-residues", "9"))))
    ended = run_command("embed", table, "--out", out, "--backbone", esm_folder, *more, *MACHINE)
    check_output(out, ended, former=former)
    if ended.code == 0:
        if out.suffix == ".h5":
            with h5py.File(out) as file:
                num_proteins = len(file)
        else:
            num_proteins = len(set(pyarrow.parquet.read_table(out)["id"].to_pylist()))
        assert num_proteins + lost_of(ended, table, merged=True) == num_records(table)


@given(data=st.data())
@fuzzed(8)
def test_screen_scores_every_pair_or_writes_nothing(place, bundles, data):
    case = fresh(place)
    table = _write(case, *data.draw(odd_file(data.draw(st.sampled_from(("sequences.fasta", "proteins.tsv"))))))
    out = case / "out" / "pairs.parquet"
    former = former_result(data, out)
    ended = run_command("screen", bundles["pair"], table, "--out", out, *MACHINE)
    check_output(out, ended, former=former)
    if ended.code == 0:
        num_records_used = (num_records(table) or 0) - lost_of(ended, table, merged=True)
        assert pyarrow.parquet.read_metadata(out).num_rows == num_records_used * (num_records_used - 1) // 2


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@fuzzed(8)
def test_train_reads_or_refuses_and_ends_before_it_writes(place, esm_folder, kind, data):
    case = fresh(place)
    table, flags = files_for(data, kind, case)
    method = data.draw(st.sampled_from(("head", "lora", "full")))
    words = ["train", table, *flags, "--task", kind, "--method", method, "--backbone", esm_folder]
    ended = run_command(*words, "--out", case / "out" / "bundle", *NO_MEMORY, *MACHINE)
    assert ended.code == 2
    assert [path for path in (case / "out").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@fuzzed(4)
def test_plan_plans_or_refuses(place, esm_folder, kind, data):
    case = fresh(place)
    table, flags = files_for(data, kind, case)
    out = case / "out" / "plan.json"
    words = ["plan", table, *flags, "--task", kind, "--backbones", esm_folder, "--methods", "head", "lora"]
    ended = run_command(*words, "--json", out, *NO_MEMORY, "--device", "cpu", "--precision", "fp32")
    check_output(out, ended, former=None)
    if ended.code == 0:
        assert [row["fits"] for row in json.loads(out.read_text())["rows"]] == [False, False]


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@fuzzed(8)
def test_split_keeps_every_row_or_writes_nothing(place, kind, data):
    case = fresh(place)
    table, flags = files_for(data, kind, case)
    by = data.draw(st.sampled_from(("protein", "cluster")))
    words = ["split", table, *flags, "--task", kind, "--by", by, "--search", "builtin", "--threads", "1"]
    ended = run_command(*words, "--out", case / "out" / "split.tsv")
    written = sorted(path.name for path in (case / "out").iterdir())
    assert written == (["split.report.json", "split.tsv"] if ended.code == 0 else []), ended
    if ended.code == 0:
        num_rows = rows_of(case / "out" / "split.tsv")
        assert num_rows + lost_of(ended, table, merged=True) == num_records(table)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@fuzzed(8)
def test_audit_counts_every_row_or_refuses(place, kind, data):
    case = fresh(place)
    table, flags = files_for(data, kind, case)
    out = case / "out" / "audit.json"
    words = ["audit", table, *flags, "--task", kind, "--search", "builtin", "--threads", "1", "--json", out]
    ended = run_command(*words)
    check_output(out, ended, former=None)
    if ended.code == 0:
        found = json.loads(out.read_text())
        if not any("left out" in text for text in found["refused"]):
            assert found["num_examples"] + lost_of(ended, table, merged=False) == num_records(table)


def good_words(command: str, folder: Path, bundles: dict[str, Path], esm_folder: Path) -> list[str]:
    """A command on sound files, which ends well, or where training would begin."""
    for name in ("pairs.tsv", "sequences.fasta"):
        _write(folder, name, sources()[name])
    pairs = [str(folder / "pairs.tsv"), "--sequences", str(folder / "sequences.fasta")]
    out = str(folder / "out")
    words = {
        "train": [*pairs, "--out", f"{out}/bundle", "--backbone", str(esm_folder), *NO_MEMORY],
        "plan": [*pairs, "--json", f"{out}/plan.json", "--backbones", str(esm_folder), "--methods", "head", *NO_MEMORY],
        "evaluate": [str(bundles["pair"]), *pairs, "--out", f"{out}/test"],
        "predict": [str(bundles["pair"]), *pairs, "--out", f"{out}/scores.tsv"],
        "embed": [str(folder / "sequences.fasta"), "--out", f"{out}/vectors.h5", "--backbone", str(esm_folder)],
        "screen": [str(bundles["pair"]), str(folder / "sequences.fasta"), "--out", f"{out}/pairs.parquet"],
        "compare": [*pairs, "--out", f"{out}/compare", "--backbones", str(esm_folder), "--seeds", "1", *NO_MEMORY],
        "sweep": [*pairs, "--out", f"{out}/sweep", "--backbone", str(esm_folder), "--vary", "seed=1,2", *NO_MEMORY],
        "split": [*pairs, "--out", f"{out}/split.tsv", "--search", "builtin", "--by", "protein"],
        "audit": [*pairs, "--json", f"{out}/audit.json", "--search", "none"],
    }
    return [command, *words[command]]


FUZZED = ("train", "plan", "compare", "sweep", "evaluate", "predict", "embed", "screen", "split", "audit")
# Not drawn: what ends a training run before it begins, what takes a compiler a minute, what the hub would be asked for,
# how many runs there are
KEPT = {"memory", "compile", "backbone", "backbones", "seeds", "trials"}
ODD_NUMBERS = ("0", "1", "-1", "2", "7", "0.5", "1e9", "1e-9", "1000000000", "9" * 25, "nan", "inf", "1e400")
odd_values = st.one_of(st.sampled_from(ODD_NUMBERS), texts).map(lambda text: text.replace("/", "_").replace("\0", ""))


@pytest.mark.parametrize("command", FUZZED)
@given(data=st.data())
@fuzzed(5)
def test_settings_of_anything_are_used_or_refused(place, bundles, esm_folder, command, data):
    case = fresh(place)
    words = good_words(command, case, bundles, esm_folder)
    known = {name: item for name, item in settings_of(COMMANDS[command][0]).items() if name not in KEPT}
    for name in data.draw(st.lists(st.sampled_from(sorted(known)), min_size=1, max_size=3, unique=True)):
        item = known[name]
        if item.is_positional:
            continue
        if item.base is bool:
            words.append(data.draw(st.sampled_from((item.flag, item.flag.replace("--", "--no-", 1)))))
        else:
            choices = st.sampled_from(item.choices) if item.choices and data.draw(st.booleans()) else odd_values
            words.append(f"{item.flag}={data.draw(choices)}")
    ended = run_command(*words)
    assert ended.code == 2 or command not in ("train", "compare", "sweep")
    leftovers = [path for path in place.rglob("*") if path.suffix in (".new", ".part")]
    assert leftovers == [], ended


def toml_of(value: Any) -> str:
    """A value as TOML has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(toml_of, value))}]"
    return json.dumps(value) if isinstance(value, str) else str(value)


toml_scalars = st.one_of(st.booleans(), st.integers(), st.floats(), st.sampled_from(ODD_NUMBERS), texts)
toml_values = st.one_of(toml_scalars, toml_scalars, st.lists(toml_scalars, max_size=3), st.just([[]]))


@st.composite
def odd_toml(draw: Callable, command: str) -> bytes:
    """Settings of a command with values of anything, or text that is hardly TOML."""
    known = sorted(settings_of(COMMANDS[command][0]))
    names = st.one_of(st.sampled_from(known), st.sampled_from(("lerning_rate", '"a b"', "a.b", "[table]", "x" * 300)))
    pairs = draw(st.dictionaries(names, toml_values, max_size=4))
    content = "".join(f"{name} = {toml_of(value)}\n" for name, value in pairs.items()).encode("utf-8", "replace")
    if draw(st.integers(0, 2)) == 0:
        place = draw(st.integers(0, len(content)))
        odd = draw(
            st.one_of(
                st.binary(max_size=6), st.sampled_from((b"\0", b"\xff", b"[[", b"[" * 3000, b'"""', b"\xef\xbb\xbf"))
            )
        )
        content = content[:place] + odd + content[place:]
    return content


@pytest.mark.parametrize("command", COMMANDS)
@given(data=st.data())
@fuzzed(8)
def test_a_settings_file_of_anything_is_read_or_refused(tmp_path, command, data):
    path = tmp_path / "run.toml"
    path.write_bytes(data.draw(odd_toml(command)))
    required = [item for item in settings_of(COMMANDS[command][0]).values() if item.is_required]
    words = [command, "--config", str(path)]
    for item in required:
        words += [item.name] if item.is_positional else [item.flag, item.name]
    try:
        _, settings, _ = parse(words)
    except UserError as error:
        said = str(error)
    else:
        said = ""
        assert isinstance(settings, COMMANDS[command][0])
    assert len(said) < 20_000


@pytest.mark.parametrize("command", FUZZED)
@given(data=st.data())
@fuzzed(3)
def test_a_command_with_a_settings_file_of_anything_ends_as_it_should(place, bundles, esm_folder, command, data):
    case = fresh(place)
    words = good_words(command, case, bundles, esm_folder)
    names = sorted(set(settings_of(COMMANDS[command][0])) - KEPT)
    pairs = data.draw(st.dictionaries(st.sampled_from(names), toml_values, max_size=2))
    lines = [f"{name} = {toml_of(value)}\n" for name, value in pairs.items()]
    (case / "run.toml").write_bytes("".join(lines).encode("utf-8", "replace"))
    run_command(*words, "--config", case / "run.toml")


NO_SETTINGS = {
    "a folder": Path.mkdir,
    "a circle": lambda path: path.symlink_to(path),
    "an empty file": Path.touch,
    "nothing": lambda path: None,
    "many brackets": lambda path: path.write_text("a = " + "[" * 100_000),
    "a huge number": lambda path: path.write_text("epochs = " + "9" * 100_000),
    "bytes": lambda path: path.write_bytes(bytes(range(256))),
}


@pytest.mark.parametrize("made", NO_SETTINGS)
def test_what_is_no_settings_file_is_refused(tmp_path, made):
    path = tmp_path / "run.toml"
    NO_SETTINGS[made](path)
    ended = run_command("train", "--config", path, "--out", tmp_path / "out")
    assert ended.code == 2


@given(
    st.lists(
        st.one_of(texts, st.sampled_from(("--out", "--config", "--help=", "-h=1", "--", "-", "--no-compile"))),
        max_size=5,
    )
)
@fuzzed(20)
def test_words_of_anything_are_refused_in_words(words):
    for command in ("train", "predict"):
        ended = run_command(command, *(word for word in words if word not in ("-h", "--help")))
        assert ended.code == 2


OUTPUTS = {  # the flag and the suffix of what a command writes
    "plan": ("--json", ".json"),
    "evaluate": ("--out", ""),
    "predict": ("--out", ".tsv"),
    "embed": ("--out", ".h5"),
    "screen": ("--out", ".parquet"),
    "split": ("--out", ".tsv"),
    "audit": ("--json", ".json"),
}
WRONG_PLACES: dict[str, Callable[[Path, str], object]] = {
    "folder{}": lambda path, suffix: path.write_text("in the way") if suffix == "" else path.mkdir(),
    "circle{}": lambda path, suffix: path.symlink_to(path),
    "file/x{}": lambda path, suffix: path.parent.write_text("in the way"),
    "x" * 300 + "{}": lambda path, suffix: None,
    "/".join(["x" * 200] * 30) + "{}": lambda path, suffix: None,
    "/proc/1/x{}": lambda path, suffix: None,
}


@pytest.mark.skipif(not Path("/proc/1").is_dir(), reason="the last place is one of Linux")
@pytest.mark.parametrize("command", OUTPUTS)
@pytest.mark.parametrize("where", WRONG_PLACES, ids=lambda where: where[:12])
def test_an_output_that_cannot_be_written_is_told(place, bundles, esm_folder, command, where):
    case = fresh(place)
    words = good_words(command, case, bundles, esm_folder)
    flag, suffix = OUTPUTS[command]
    out = case / where.format(suffix)
    WRONG_PLACES[where](out, suffix)
    before = sorted(case.rglob("*"))
    words[words.index(flag) + 1] = str(out)
    assert run_command(*words).code == 2
    assert sorted(case.rglob("*")) == before


@pytest.mark.parametrize("command", OUTPUTS)
def test_a_folder_that_is_not_there_is_made_or_asked_for(place, bundles, esm_folder, command):
    case = fresh(place)
    words = good_words(command, case, bundles, esm_folder)
    flag, suffix = OUTPUTS[command]
    words[words.index(flag) + 1] = str(case / "new" / f"x{suffix}")
    is_made = command in ("evaluate", "plan")
    assert run_command(*words).code == (0 if is_made else 2)
    assert (case / "new").exists() == is_made


@pytest.mark.parametrize("command", FUZZED)
def test_a_name_that_no_file_can_have_is_refused(place, bundles, esm_folder, command):
    """The command line cannot hold it, a settings file can."""
    for name in ("data", "sequences", "out", "json", "bundle", "cache_dir", "backbone", "column_id"):
        if name not in settings_of(COMMANDS[command][0]):
            continue
        case = fresh(place)
        words = good_words(command, case, bundles, esm_folder)
        (case / "run.toml").write_text(f'{name} = "a\\u0000b"\n')
        flag = "--" + name.replace("_", "-")
        if flag in words:
            del words[words.index(flag) : words.index(flag) + 2]
        elif name in ("data", "bundle"):
            del words[1 if name == "bundle" or command not in ("evaluate", "predict") else 2]
            if command in ("evaluate", "predict"):
                continue  # the other positional word would take its place
        run_command(*words, "--config", case / "run.toml")


def test_a_name_with_marks_of_a_console_is_printed_as_it_is(place, bundles, esm_folder):
    """Square brackets and colons are marks of rich."""
    case = fresh(place) / "[/b] [red] :smile: \udce9"
    case.mkdir(parents=True)
    for name in ("pairs.tsv", "sequences.fasta"):
        _write(case, name, sources()[name] + (b"[/x]\t[/x]\t1\ttest\n" if name == "pairs.tsv" else b">[/x]\nMKV\n"))
    words = [bundles["pair"], case / "pairs.tsv", "--sequences", case / "sequences.fasta", "--allow-self-pairs"]
    commands = [["predict", *words, "--out", case / "scores.tsv"]]
    commands += [["predict", bundles["protein"], case / "sequences.fasta", "--out", case / "alone.tsv"]]
    commands += [["embed", case / "sequences.fasta", "--out", case / "vectors.parquet", "--backbone", esm_folder]]
    for command in commands:
        ended = run_command(*command, *MACHINE)
        assert ended.code == 0, ended.err
        assert f"{command[command.index('--out') + 1]}" in ended.out


def test_a_console_that_lacks_a_letter_ends_no_command(place, bundles, monkeypatch):
    case = fresh(place) / "é \udce9"
    case.mkdir()
    for name in ("pairs.tsv", "sequences.fasta"):
        _write(case, name, sources()[name])
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    words = [bundles["pair"], case / "pairs.tsv", "--sequences", case / "sequences.fasta", "--out", case / "scores.tsv"]
    assert main(["predict", *map(str, words), *MACHINE]) == 0
    sys.stdout.flush()
    assert b"18 predictions written to" in written.getvalue()
    assert b"\\xe9 \\udce9" in written.getvalue()
