"""What a sweep varies: how it is written, what is refused, and which combinations come of it."""

from typing import Any

import pytest

from peftide.cli import parse
from peftide.config import SweepSettings, TrainSettings, check_settings, load_settings, to_toml
from peftide.config.vary import USUAL, Choices, Range, combinations, read_variations, text_of, trial_settings, varied
from peftide.errors import UserError


def sweep(words: str) -> SweepSettings:
    settings = parse(f"sweep d --out o {words}".split())[1]
    assert isinstance(settings, SweepSettings)
    return settings


def refused(words: str) -> str:
    with pytest.raises(UserError) as caught:
        sweep(words)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("lora_rank=1,4,8", (1, 4, 8)),
        ("lora-rank=1, 4", (1, 4)),
        ("lora_matrices=key+value,query", (("key", "value"), ("query",))),
        ("lora_layers=all,last:2,5+7-9", ("all", "last:2", "5,7-9")),
        ("learning_rate=1e-4,0.001", (1e-4, 1e-3)),
        ("head=mlp,paper", ("mlp", "paper")),
        ("seed=0,1", (0, 1)),
    ],
)
def test_values_are_read_by_the_type_of_their_setting(text: str, values: tuple[Any, ...]) -> None:
    [one], problems = read_variations([text])
    assert problems == []
    assert isinstance(one, Choices)
    assert one.values == values


def test_a_range_is_logarithmic_where_its_lower_end_is_above_zero() -> None:
    found, problems = read_variations(["learning_rate=1e-4..1e-2", "head_dropout=0..0.3", "lora_rank=1..16"])
    assert problems == []
    assert found == [
        Range("learning_rate", 1e-4, 1e-2, is_whole=False),
        Range("head_dropout", 0.0, 0.3, is_whole=False),
        Range("lora_rank", 1, 16, is_whole=True),
    ]
    assert [one.is_log for one in found if isinstance(one, Range)] == [True, False, True]


def test_every_mistake_is_listed_at_once() -> None:
    said = refused("--vary lora_rank=0,4 --vary epochs --vary data=x,y --vary seed=1,1 --vary warmup_fraction=0.5..0.1")
    for problem in (
        "(5 problems)",
        "lora_rank must be a whole number at least 1 and below",
        "epochs: write NAME=V1,V2,... or NAME=LOW..HIGH",
        "data cannot be varied; choose among ",
        "seed names a value twice",
        "warmup_fraction must go from a lower to a higher end, not from 0.5 to 0.1",
    ):
        assert problem in said


def test_what_would_change_the_examples_or_the_metric_cannot_be_varied() -> None:
    for name in ("metric", "split_seed", "val_fraction", "task", "column_label", "out", "device", "cache_dir"):
        assert "cannot be varied" in refused(f"--vary {name}=1,2")


def test_a_setting_that_is_varied_twice_is_refused() -> None:
    assert "lora_rank is varied twice" in refused("--vary lora_rank=1,2 --vary lora-rank=4")


def test_a_setting_that_a_combination_would_ignore_is_refused() -> None:
    assert "lora_rank has no effect: method is head, not lora" in refused("--method head --vary lora_rank=1,2")
    said = refused("--vary method=head,lora --vary lora_rank=1,2")
    assert "(1 problem)" in said
    assert "(method=head, lora_rank=1)" in said
    assert sweep("--vary method=head,lora --vary epochs=1,2").method == "lora"


def test_layers_that_cannot_be_read_are_refused_before_the_first_trial() -> None:
    said = refused("--vary lora_layers=last-quarter,last-half,1-,5+7-9 --vary lora_rank=1,2")
    assert "(2 problems)" in said
    assert "lora_layers must be last, last-quarter, last:K, spread, all, or layers counted from 1 such as" in said
    assert "not 'last-half'" in said
    assert "not '1-'" in said
    assert sweep("--vary lora_layers=all,last:4,5+7-9").lora_layers == "last-quarter"


def test_a_range_needs_optuna() -> None:
    assert "say --search optuna" in refused("--vary learning_rate=1e-4..1e-2")
    assert sweep("--vary learning_rate=1e-4..1e-2 --search optuna").search == "optuna"


def test_trials_are_ignored_by_a_grid() -> None:
    warnings = parse(["sweep", "d", "--out", "o", "--trials", "5"])[2]
    assert warnings == ("trials is ignored: search is grid, which tries every combination",)
    assert parse(["sweep", "d", "--out", "o", "--trials", "5", "--search", "optuna"])[2] == ()


def test_the_flag_can_be_repeated_before_and_after_the_data() -> None:
    settings = parse(["sweep", "--vary", "lora_rank=1,4", "d", "--out", "o", "--vary", "lora_layers=all,5+7-9"])[1]
    assert settings == SweepSettings(data="d", out="o", vary=("lora_rank=1,4", "lora_layers=all,5+7-9"))


def test_what_is_varied_survives_toml(tmp_path: Any) -> None:
    settings = sweep("--vary lora_rank=1,4 --vary lora_matrices=key+value,query")
    path = tmp_path / "sweep.toml"
    path.write_text(to_toml(settings), "utf-8")
    assert load_settings(SweepSettings, str(path), {}) == settings


@pytest.mark.parametrize("method", USUAL)
def test_what_is_varied_by_default_fits_the_method(method: Any) -> None:
    settings = SweepSettings(data="d", out="o", method=method)
    assert check_settings(settings) == ()
    assert varied(settings) == USUAL[method]


def test_every_combination_comes_once_the_last_setting_changing_fastest() -> None:
    found, _ = read_variations(["lora_rank=1,4", "lora_matrices=key,value", "epochs=1,2,3"])
    values = [tuple(one.values()) for one in combinations(found)]
    assert len(values) == len(set(values)) == 12
    assert values[:4] == [(1, ("key",), 1), (1, ("key",), 2), (1, ("key",), 3), (1, ("value",), 1)]


def test_a_trial_has_the_settings_of_the_sweep_and_its_split() -> None:
    settings = sweep("--epochs 3 --seed 5 --vary lora_rank=1,4")
    trial = trial_settings(settings, {"lora_rank": 4, "seed": 9}, out="x")
    assert trial == TrainSettings(data="d", out="x", epochs=3, lora_rank=4, seed=9, split_seed=5)
    assert trial_settings(settings, {"lora_rank": 4}, out="x").split_seed is None
    given = trial_settings(sweep("--seed 5 --split-seed 2"), {"seed": 9}, out="x")
    assert (given.seed, given.split_seed) == (9, 2)


@pytest.mark.parametrize(
    ("value", "text"),
    [(("key", "value"), "key+value"), (0.0001, "0.0001"), ("5,7-9", "5+7-9"), (True, "true"), (4, "4")],
)
def test_a_value_is_told_as_it_is_written(value: object, text: str) -> None:
    assert text_of(value) == text
