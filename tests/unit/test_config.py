"""Settings: defaults, TOML, flags, checks, and the round trip."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from peftide.config import (
    AuditSettings,
    CompareSettings,
    DemoSettings,
    EmbedSettings,
    EvaluateSettings,
    PlanSettings,
    PredictSettings,
    Setting,
    SplitSettings,
    SweepSettings,
    TrainSettings,
    check_settings,
    load_settings,
    settings_of,
    to_toml,
)
from peftide.config.checks import contradictions
from peftide.errors import UserError

KINDS = (
    SplitSettings,
    AuditSettings,
    DemoSettings,
    TrainSettings,
    PlanSettings,
    CompareSettings,
    SweepSettings,
    EvaluateSettings,
    PredictSettings,
    EmbedSettings,
)
FLAGS = {"data": "pairs.tsv", "out": "runs/a"}
MINIMAL = TrainSettings(data="pairs.tsv", out="runs/a")


def toml(folder: Path, text: str) -> str:
    path = folder / "run.toml"
    path.write_text(text, "utf-8")
    return str(path)


def message(kind: type, path: str | None, flags: dict[str, object]) -> str:
    with pytest.raises(UserError) as caught:
        load_settings(kind, path, flags)
    return str(caught.value)


def test_flags_win_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    path = toml(tmp_path, 'data = "other.tsv"\nepochs = 3\nseed = 7\n')
    settings = load_settings(TrainSettings, path, FLAGS | {"epochs": "5"})
    assert settings == dataclasses.replace(MINIMAL, epochs=5, seed=7)


def test_nothing_but_the_required_settings_gives_the_defaults() -> None:
    assert load_settings(TrainSettings, None, FLAGS) == MINIMAL


def test_every_problem_of_file_and_flags_is_listed_at_once_with_its_place(tmp_path: Path) -> None:
    path = toml(tmp_path, 'epochs = "five"\nlearning_rte = 0.1\nqqq = 1\npatience = 0\nclip_norm = true\n')
    text = message(TrainSettings, path, {"data": "x.tsv", "lora_dropout": "1.5", "method": "lara"})
    assert text.splitlines() == [
        "these settings cannot be used (8 problems)",
        f"  {path}: learning_rte: no such setting; the nearest is learning_rate",
        f"  {path}: qqq: no such setting; see --help for those that there are",
        "  --out is missing (folder of the bundle to write), and no TOML file gives out",
        "  --method: must be head, lora or full, not 'lara'",
        "  --lora-dropout: must be a number at least 0 and below 1, not 1.5",
        f"  {path}: epochs: must be a whole number at least 1, not 'five'",
        f"  {path}: clip_norm: must be a number above 0, not true",
        f"  {path}: patience: must be a whole number at least 1, not 0",
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("learning_rate", "0"),
        ("learning_rate", "nan"),
        ("learning_rate", "inf"),
        ("learning_rate", ""),
        ("epochs", "0"),
        ("epochs", "2.5"),
        ("epochs", "-1"),
        ("seed", "-1"),
        ("seed", "4294967296"),
        ("val_fraction", "0"),
        ("val_fraction", "1"),
        ("warmup_fraction", "1"),
        ("weight_decay", "-0.1"),
        ("cache_limit_gb", "-1"),
        ("method", "LORA"),
        ("backbone", ""),
        ("device", "cuda:first"),
        ("device", "gpu"),
        ("memory", "6"),
        ("memory", "0GB"),
        ("memory", "lots"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(name: str, text: str) -> None:
    problem = message(TrainSettings, None, FLAGS | {name: text})
    assert f"  --{name.replace('_', '-')}: must be " in problem
    assert "(1 problem)" in problem


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("learning_rate", "1e-3", 1e-3),
        ("epochs", "1", 1),
        ("warmup_fraction", "0", 0.0),
        ("cache_limit_gb", "0", 0.0),
        ("seed", "4294967295", 2**32 - 1),
        ("device", "cuda:1", "cuda:1"),
        ("compile", True, True),
        ("lora_matrices", ["query,value"], ("query", "value")),
        ("lora_matrices", ["query", "feed-forward"], ("query", "feed-forward")),
        ("lora_matrices", ["query, value", "key"], ("query", "value", "key")),
    ],
)
def test_a_flag_is_read_by_the_type_of_its_setting(name: str, text: object, value: object) -> None:
    read = getattr(load_settings(TrainSettings, None, FLAGS | {name: text}), name)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('epochs = "3"', "epochs: must be a whole number at least 1, not '3'"),
        ("epochs = 3.0", "epochs: must be a whole number at least 1, not 3.0"),
        ("epochs = true", "epochs: must be a whole number at least 1, not true"),
        ("compile = 1", "compile: must be true or false, not 1"),
        ("backbone = 3", "backbone: must be text, not 3"),
        ("lora_alpha = 1" + "0" * 400, "lora_alpha: must be a number above 0, not 1000"),
        ('lora_matrices = "key"', "lora_matrices: must be one or more of query, key, value, output or feed-forward"),
        ("lora_matrices = []", "not none"),
        ('lora_matrices = ["key", ["value"]]', "feed-forward, not ['value']"),
        ('lora_matrices = ["key", "key"]', "lora_matrices: names a value twice: key,key"),
        ("seed = 2026-01-01", "seed: must be a whole number"),
        ("[training]\nepochs = 3", "training: no such setting"),
    ],
)
def test_a_toml_value_of_another_type_is_refused(tmp_path: Path, line: str, problem: str) -> None:
    assert problem in message(TrainSettings, toml(tmp_path, line), dict(FLAGS))


def test_a_toml_array_is_a_tuple_and_a_whole_number_may_stand_for_a_real_one(tmp_path: Path) -> None:
    settings = load_settings(TrainSettings, toml(tmp_path, 'lora_matrices = ["query"]\nlora_alpha = 16'), FLAGS)
    assert settings.lora_matrices == ("query",)
    assert settings.lora_alpha == 16


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"epochs = ", "not valid TOML"),
        (b"epochs = 1\nepochs = 2", "not valid TOML"),
        (b'backbone = "\xff"', "not valid TOML"),
        (b"epochs = " + b"[" * 100_000, "not valid TOML"),
        (b"epochs = 1" + b"0" * 5_000, "not valid TOML"),
        (b"\x00", "not valid TOML"),
    ],
)
def test_a_damaged_toml_file_is_a_user_error_that_names_it(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    assert message(TrainSettings, str(path), dict(FLAGS)).startswith(f"{path}: {problem}")


def test_a_file_that_cannot_be_read_is_a_user_error_that_names_it(tmp_path: Path) -> None:
    absent = str(tmp_path / "absent.toml")
    assert message(TrainSettings, absent, {}) == f"{absent}: cannot be read: No such file or directory"
    assert message(TrainSettings, str(tmp_path), {}) == f"{tmp_path}: cannot be read: Is a directory"


def test_a_byte_order_mark_does_not_hide_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(b"\xef\xbb\xbfepochs = 3\r\nseed = 4\r\n")
    assert load_settings(TrainSettings, str(path), FLAGS) == dataclasses.replace(MINIMAL, epochs=3, seed=4)


def test_contradictory_settings_are_refused_wherever_they_come_from(tmp_path: Path) -> None:
    path = toml(tmp_path, 'test_fraction = 0.5\ntask = "symmetry"')
    text = message(TrainSettings, path, FLAGS | {"val_fraction": "0.5", "target": "binary"})
    assert "--target: must be auto or multilabel where task is symmetry, not 'binary'" in text
    assert f"{path}: test_fraction: leaves nothing to train on" in text
    with pytest.raises(UserError, match="test_fraction: leaves nothing to train on"):
        check_settings(dataclasses.replace(MINIMAL, val_fraction=0.5, test_fraction=0.5))
    with pytest.raises(UserError, match="negatives: can be sampled for pairs only, and task is protein"):
        check_settings(SplitSettings(data="a", out="b", task="protein", negatives=1.0))
    for changes in ({"method": "lora"}, {"method": "full", "compile": True}):
        with pytest.raises(UserError, match="shard: needs method full, without compile"):
            check_settings(dataclasses.replace(MINIMAL, shard=True, **changes))


@pytest.mark.parametrize(
    ("settings", "ignored"),
    [
        (dataclasses.replace(MINIMAL, method="head", lora_rank=4, lora_matrices=("query",)), "lora_rank lora_matrices"),
        (dataclasses.replace(MINIMAL, method="head", checkpoint_layers=True), "checkpoint_layers"),
        (dataclasses.replace(MINIMAL, method="full", cache_limit_gb=5.0), "cache_limit_gb"),
        (dataclasses.replace(MINIMAL, method="head", pair_steps="shuffled"), "pair_steps"),
        (dataclasses.replace(MINIMAL, method="lora", task="protein", pair_steps="shuffled"), "pair_steps"),
        (dataclasses.replace(MINIMAL, method="head", task="protein", pair_steps="shuffled"), "pair_steps"),
        (dataclasses.replace(MINIMAL, method="full", pair_steps="shuffled"), ""),
        (dataclasses.replace(MINIMAL, head="paper", head_width=64, head_dropout=0.0), "head_width head_dropout"),
        (
            dataclasses.replace(MINIMAL, task="protein", column_a="x", allow_self_pairs=True),
            "column_a allow_self_pairs",
        ),
        (dataclasses.replace(MINIMAL, column_split="fold", val_fraction=0.2, split_seed=3), "val_fraction split_seed"),
        (
            dataclasses.replace(MINIMAL, column_split="fold", split_by="protein", split_identity=0.5),
            "split_by split_identity",
        ),
        (dataclasses.replace(MINIMAL, split_by="protein", split_identity=0.5), "split_identity"),
        (dataclasses.replace(MINIMAL, audit="none", strict=True), "strict"),
        (
            SplitSettings(data="a", out="b", by="protein", identity=0.5, search="builtin", column_split="c"),
            "column_split identity search",
        ),
        (SplitSettings(data="a", out="b", task="protein", column_a="x", identity=0.5), "column_a"),
        (AuditSettings(data="a", task="symmetry", allow_self_pairs=True, strict=True), "allow_self_pairs"),
        (dataclasses.replace(MINIMAL, cache_limit_gb=0.0, cache_dir="cache"), "cache_dir"),
        (EmbedSettings(data="a", out="b", bundle="c", backbone="esm2-8m", max_residues=9), "backbone max_residues"),
        (EmbedSettings(data="a", out="b", per_residue=True, pooling="cls"), "pooling"),
        (PredictSettings(bundle="c", data="a", out="b", cache_limit_gb=0.0, cache_dir="d"), "cache_dir"),
        (dataclasses.replace(MINIMAL, lora_rank=4, checkpoint_layers=True, head_width=64, cache_dir="cache"), ""),
        (dataclasses.replace(MINIMAL, method="head"), ""),
        (PlanSettings(data="a", methods=("head", "full"), lora_rank=4, checkpoint_layers=True), "lora_rank"),
        (PlanSettings(data="a", methods=("lora", "full"), lora_rank=4, cache_dir="cache"), ""),
        (
            CompareSettings(data="a", out="b", methods=("head",), lora_rank=4, checkpoint_layers=True),
            "lora_rank checkpoint_layers",
        ),
        (SweepSettings(data="a", out="b", trials=5), "trials"),
        (SweepSettings(data="a", out="b", trials=5, search="optuna"), ""),
        (dataclasses.replace(MINIMAL, method="full", head="linear", task="protein"), ""),
    ],
)
def test_a_setting_without_effect_is_named_and_no_other(settings: Any, ignored: str) -> None:
    assert [warning.split(" is ignored: ")[0] for warning in check_settings(settings)] == ignored.split()


def test_saved_settings_of_a_quiet_run_give_no_warnings(tmp_path: Path) -> None:
    settings = dataclasses.replace(MINIMAL, method="head", head="paper")
    again = load_settings(TrainSettings, toml(tmp_path, to_toml(settings)), {})
    assert again == settings
    assert check_settings(again) == ()


def test_settings_made_in_python_are_checked_like_flags() -> None:
    with pytest.raises(UserError) as caught:
        check_settings(TrainSettings(data=Path("pairs.tsv"), out="", epochs=1.5, lora_matrices=["key"]))  # type: ignore
    assert str(caught.value).splitlines()[1:] == [
        "  out: must be text, not ''",
        f"  data: must be text, not {Path('pairs.tsv')!r}",
        "  lora_matrices: must be one or more of query, key, value, output or feed-forward, not ['key']",
        "  epochs: must be a whole number at least 1, not 1.5",
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_every_default_passes_its_own_check(kind: type) -> None:
    required = {name: "given" for name, item in settings_of(kind).items() if item.is_required}
    assert check_settings(kind(**required)) == ()


@pytest.mark.parametrize("kind", KINDS)
def test_every_setting_has_a_sentence_and_every_number_a_range(kind: type) -> None:
    for item in settings_of(kind).values():
        assert item.help, item.name
        assert not item.help.endswith("."), item.name
        assert (item.within is not None) == (item.base in (int, float)), item.name


def values_of(item: Setting) -> st.SearchStrategy[Any]:
    special = {
        "device": st.sampled_from(["auto", "cpu", "cuda:3", "mps"]),
        "target": st.sampled_from(["auto", "multilabel"]),
        "lora_layers": st.sampled_from(["last-quarter", "all", "last:3", "5,7-9"]),
        "memory": st.sampled_from([None, "6GB", "500 MiB"]),
        "vary": st.sampled_from([None, ("seed=1,2", "epochs=1,2")]),
        "val_fraction": st.floats(0.01, 0.49),
        "test_fraction": st.floats(0.01, 0.49),
    }
    if item.name in special:
        return special[item.name]
    one: st.SearchStrategy[Any] = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
    if item.choices:
        one = st.sampled_from(item.choices)
    elif item.base is bool:
        one = st.booleans()
    elif item.base is int:
        one = st.integers(0, 2**33).filter(lambda number: number in item.within)  # type: ignore
    elif item.base is float:
        one = st.floats(0, 0.999) if item.within.high == 1 else st.floats(0, allow_infinity=False)  # type: ignore
        one = one.filter(lambda number: number in item.within)  # type: ignore
    if item.is_list:
        one = st.lists(one, min_size=1, unique=True).map(tuple)
    return st.none() | one if item.is_optional else one


@st.composite
def any_settings(draw: st.DrawFn) -> Any:
    kind = draw(st.sampled_from(KINDS))
    settings = kind(**{name: draw(values_of(item)) for name, item in settings_of(kind).items()})
    assume(not list(contradictions(settings)))
    return settings


@given(settings=any_settings())
def test_settings_written_as_toml_read_back_the_same(settings: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = toml(tmp_path_factory.getbasetemp(), to_toml(settings))
    assert load_settings(type(settings), path, {}) == settings
