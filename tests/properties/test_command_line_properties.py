"""The command that repeats a run, typed into a shell, gives the settings of the run."""

import json
import shlex
from dataclasses import asdict

from hypothesis import example, given
from hypothesis import strategies as st

from peftide.cli import parse
from peftide.config import CompareSettings, TrainSettings
from peftide.report.command_line import command_line

texts = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=12)
matrices = st.lists(
    st.sampled_from(["query", "key", "value", "output", "feed-forward"]), min_size=1, unique=True
)  # fmt: skip


@given(
    data=texts,
    out=texts,
    column=st.none() | texts,
    rate=st.none() | st.floats(1e-12, 1e3),
    matrices=matrices,
    compiles=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_command_of_a_run_gives_its_settings_back(data, out, column, rate, matrices, compiles, seed) -> None:
    settings = TrainSettings(
        data=data, out=out, column_label=column, learning_rate=rate, lora_matrices=tuple(matrices), compile=compiles,
        seed=seed,
    )  # fmt: skip
    words = shlex.split(command_line(json.loads(json.dumps(asdict(settings)))))
    assert words[:2] == ["peftide", "train"]
    assert parse(words[1:])[1] == settings


@example(data="-:", methods=["head"])
@given(data=texts, methods=st.lists(st.sampled_from(["head", "lora", "full"]), min_size=1, unique=True))
def test_the_command_of_a_comparison_gives_its_settings_back(data, methods) -> None:
    settings = CompareSettings(data=data, out="o", methods=tuple(methods))
    words = shlex.split(command_line(asdict(settings), command="compare", kind=CompareSettings))
    assert parse(words[1:])[1] == settings
