"""The parts that pages are made of: typed reading, charts, blocks, words, the command line."""

import re
import subprocess
import sys
from dataclasses import dataclass
from typing import Literal

import matplotlib
import numpy as np
import pytest

from peftide.errors import UserError
from peftide.evaluation.ranking import average_precision, count, rank
from peftide.report.blocks import Cell, Code, Column, Picture, Section, Table, Text
from peftide.report.charts import INK, SERIES, draw
from peftide.report.command_line import command_line
from peftide.report.figures import MOST_CURVE_POINTS, MOST_DOTS, predicted_against_true, ranking_curves
from peftide.report.page import page
from peftide.report.predictions import members
from peftide.report.reading import read_as
from peftide.report.wording import (
    ABSENT,
    MEANINGS,
    METRIC_WORDS,
    duration,
    glossary,
    metric_words,
    number,
    signed,
    threshold_words,
)

MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Inner:
    size: float
    name: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Outer:
    inner: Inner | None
    many: tuple[Inner, ...]
    by_name: dict[str, dict[str, int]]
    anything: object = None
    is_there: bool = False


def test_a_record_is_read_with_its_defaults_and_without_what_it_does_not_know() -> None:
    document = {"inner": None, "many": [{"size": 1, "more": 3}], "by_name": {"x": {"y": 2}}, "unknown": 1}
    assert read_as(Outer, document, title="t") == Outer(None, (Inner(1),), {"x": {"y": 2}})


def test_every_problem_of_a_record_is_listed_with_its_place() -> None:
    document = {
        "inner": {"size": True},
        "many": [{"size": 1}, {"name": "c"}],
        "by_name": {"x": {"y": 2.5}},
        "is_there": 1,
    }
    with pytest.raises(UserError) as caught:
        read_as(Outer, document, title="t")
    assert str(caught.value).splitlines() == [
        "t (5 problems)",
        "  inner.size must be a number, not True",
        "  many[1].size is missing",
        "  many[1].name must be 'a' or 'b', not 'c'",
        "  by_name.x.y must be a whole number, not 2.5",
        "  is_there must be true or false, not 1",
    ]


def paint_two(panels) -> None:
    panels[0].plot([0.4751, 0.4752], [1, 2], color=SERIES[0], label="<b> $x$ 0.12345")
    panels[0].legend()
    panels[1].plot([1, 2], [1, 2], color=INK)


def test_a_chart_shows_texts_as_they_are_and_takes_its_colours_from_the_page() -> None:
    svg = draw(paint_two, name="a", description='"quoted" <b>', panel_widths=(1, 1))
    assert "&lt;b&gt; $x$ 0.12345" in svg
    assert "0.47510" in re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert 'aria-label="&quot;quoted&quot; &lt;b&gt;"' in svg
    assert "var(--series-1)" in svg
    assert "var(--ink)" in svg
    assert re.findall(r"#[0-9a-f]{6}\b", svg) == []


def test_two_charts_on_a_page_share_no_id_and_equal_charts_are_equal() -> None:
    one, again, two = (draw(paint_two, name=name, description="", panel_widths=(1, 1)) for name in ("a", "a", "b"))
    assert one == again
    assert set(re.findall(r' id="([^"]*)"', one)).isdisjoint(re.findall(r' id="([^"]*)"', two))


def test_drawing_leaves_no_trace_in_matplotlib() -> None:
    before = dict(matplotlib.rcParams)
    draw(paint_two, name="a", description="", panel_widths=(1, 1))
    assert dict(matplotlib.rcParams) == before


def test_the_report_needs_neither_pyplot_nor_a_deep_learning_library() -> None:
    code = """
import sys
import peftide.report.run_report
print(sorted({"torch", "transformers", "peft", "matplotlib.pyplot"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_large_sets_are_drawn_with_few_points_and_the_same_area() -> None:
    generator = np.random.default_rng(0)
    truths = (generator.random(30_000) < 0.2).astype(float)
    scores = generator.random(30_000) + 0.3 * truths
    svg = ranking_curves(truths, scores)
    assert len(svg) < 60_000
    assert max(path.count("\nL ") for path in re.findall(r' d="([^"]*)"', svg)) <= 2 * MOST_CURVE_POINTS + 2
    assert f"area {average_precision(count(rank(truths, scores))):.3f}" in svg
    dots = predicted_against_true(scores, truths)
    assert dots.count("<use ") < MOST_DOTS + 200


def test_blocks_become_escaped_html() -> None:
    table = Table(
        columns=(Column("<name>", is_number=False), Column("value")),
        rows=((Cell("a<b"), Cell("1.5", "0.1 & 2", bar=0.25, mark=0.5)), (Cell("c"), Cell("3", shade=0.5))),
        caption="<caption>",
        strong_rows=(1,),
    )
    html = page("<title>", [Section("<section>", (Text("<text>"), table, Code("a 'b c'"), Picture("<svg></svg>")))])
    for text in ("title", "section", "text", "name", "caption"):
        assert f"&lt;{text}&gt;" in html
    assert "a&lt;b" in html
    assert "0.1 &amp; 2" in html
    assert 'style="width:25.0%"' in html
    assert 'style="left:50.0%"' in html
    assert 'class="number shaded" style="--share:0.500"' in html
    assert '<tr class="strong">' in html
    assert "<svg></svg>" in html


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("C1", ["C1"]),
        ("C1;D2", ["C1", "D2"]),
        ("DNA binder", ["DNA binder"]),
        ("binder;DNA binder", ["binder", "DNA binder"]),
    ],
)
def test_joined_classes_are_told_apart_even_with_spaces_in_their_names(text: str, found: list[str]) -> None:
    classes = ("binder", "C1", "C10", "D2", "DNA binder")
    assert members(text, classes) == [name in found for name in classes]


def test_classes_without_spaces_are_joined_by_one() -> None:
    assert members("C1 D2", ("C1", "C10", "D2")) == [True, False, True]


@pytest.mark.parametrize("value", [0.0039306, 0.7928135123, 0.99987654321, 1.0, 3e-9, 0.5])
def test_a_threshold_is_written_so_that_what_passes_it_passes_what_is_written(value: float) -> None:
    assert value * (1 - 1e-6) < float(threshold_words(value)) <= value


def test_a_class_that_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match="'C3' is no class"):
        members("C1 C3", ("C1", "C2"))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.12345, "0.123"), (12.3456, "12.35"), (1234.5, "1,234"), (20, "20"), (None, ABSENT), (-2.5, f"{MINUS}2.500")],
)  # fmt: skip
def test_numbers_are_written_in_few_digits(value: float | None, text: str) -> None:
    assert number(value) == text


def test_differences_carry_their_sign_and_times_their_unit() -> None:
    assert [signed(0.02), signed(-0.02), signed(0.0)] == ["+0.020", f"{MINUS}0.020", "+0.000"]
    assert [duration(t) for t in (0.25, 45, 600, 9000, None)] == ["0.2 s", "45 s", "10 min", "2.5 h", ABSENT]


def test_the_glossary_explains_every_metric_that_has_a_name() -> None:
    counts = {"num_examples", "num_classes_scored"}
    assert set(METRIC_WORDS) - counts == set(MEANINGS)
    words = dict(glossary(["macro_aupr", "macro_f1", "rmse"]))
    assert {"AUPR", "F1", "RMSE", "macro"} <= words.keys()
    assert metric_words("macro_aupr") == "macro AUPR"
    assert metric_words("unheard_of") == "unheard_of"


def test_the_command_line_has_only_what_differs_from_the_defaults() -> None:
    settings = {"data": "d.tsv", "out": "runs/it's", "method": "head", "compile": True, "seed": 0, "later": 3}
    assert command_line(settings) == """peftide train d.tsv --out 'runs/it'"'"'s' --method head --compile"""
    assert command_line({}) == "peftide train DATA --out OUT"
