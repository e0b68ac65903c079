"""Planning: what is counted, what is measured, what follows from it, and how it is told."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from conftest import write_examples
from peftide.cli import main
from peftide.config import PlanSettings, TrainSettings
from peftide.data.datasets import read_dataset
from peftide.inference.cache_folder import stores
from peftide.models.machine import choose_machine
from peftide.training.batches import encoding_cost
from peftide.training.forecast import CacheNeed, Forecast, Row, forecast
from peftide.training.line import Line
from peftide.training.memory import Execution, Footprint
from peftide.training.plan import run_plan
from peftide.training.plan_table import duration, plan_table, recommendation
from peftide.training.probe import Measured, Probe
from peftide.training.subject import count, make_subject
from peftide.training.work import StepWork, Work, count_work, sample_rows

NEED = Footprint(
    weights=1000, gradients=100, optimizer=200, rounded=50, best=100, layers=(20, 20), per_state=4,
    has_frozen_layers=True, transient=10, transient_checkpointed=12, per_token_encoding=15,
)  # fmt: skip
EXECUTION = Execution(token_budget=60, checkpoint_layers=False, is_frugal=False, holds_states=False, planned_bytes=9999)
WORK = Work(
    steps=(StepWork(50), StepWork(20, (40,))), occurrences_P=np.ones(4), standardizing=(10, 20), validation=(30,),
    everything=(60, 40), batching_seconds=0.5,
)  # fmt: skip
PROBE = Probe(
    gradient=Measured(Line(1.0, 0.1), 1050, num_tokens=25),
    update_seconds=2.0,
    encode=Measured(Line(0.5, 0.01), 400, num_tokens=20),
    frozen=Line(0.25, 0.02),
    scoring_seconds=3.0,
    startup_seconds=4.0,
    held_bytes=5000,
    is_resident=False,
)
CACHE = CacheNeed(num_bytes=4000, new_tokens=100, is_kept=True, note="")


def plan(folder, esm_folder, *, said=None, **options):
    given = {
        "backbones": (str(esm_folder),), "device": "cpu", "precision": "fp32", "epochs": 3, "batch_examples": 8,
        "token_budget": 150, "cache_dir": str(folder / "cache"),
    }  # fmt: skip
    settings = PlanSettings(**write_examples(folder, "pair"), **(given | options))
    return run_plan(settings, Console(file=said or io.StringIO(), width=200))


def test_seconds_are_read_off_a_line_that_one_disturbed_call_does_not_move():
    points = [(100, 1.2), (200, 2.2), (300, 9.0), (400, 4.2), (800, 8.2)]
    line = Line.through(points)
    assert line.per_token == pytest.approx(0.01)
    assert line(1000) == pytest.approx(10.2)


def test_neither_the_fixed_nor_the_growing_part_of_a_time_is_below_zero():
    assert Line.through([(100, 1.0), (200, 3.0)]) == Line(0.0, pytest.approx(0.0125))
    assert Line.through([(100, 3.0), (200, 1.0)]) == Line(2.0, 0.0)
    assert Line.through([(100, 3.0), (100, 3.0)]) == Line(0.0, 0.03)


def test_a_sample_of_proteins_has_the_lengths_and_squared_lengths_of_all():
    tokens_P = np.random.default_rng(0).lognormal(6, 0.6, 2000).astype(int)
    weights_P = np.random.default_rng(1).integers(0, 5, 2000).astype(float)
    rows = sample_rows(tokens_P, weights_P, 40_000)
    assert len(rows) == len(set(rows))
    assert (weights_P[rows] > 0).all()
    assert tokens_P[rows].sum() == pytest.approx(40_000, rel=0.05)
    for power in (1, 2):
        expected = np.average(tokens_P.astype(float) ** power, weights=weights_P)
        assert (tokens_P[rows].astype(float) ** power).mean() == pytest.approx(expected, rel=0.1)


def test_the_smallest_sample_is_one_protein():
    assert sample_rows(np.array([5, 100, 30]), np.array([1.0, 0.0, 1.0]), 1).tolist() in ([0], [2])


def test_the_work_is_that_of_the_batches_of_an_epoch(tmp_path, esm_folder):
    settings = TrainSettings(
        **write_examples(tmp_path, "pair"), backbone=str(esm_folder), out="none", batch_examples=8, token_budget=60
    )
    dataset, machine = read_dataset(settings), choose_machine("cpu", "fp32", None)
    counted = count(settings, dataset, machine, held_bytes=0, limit_bytes=2**33)
    trainer = make_subject(settings, dataset, machine, counted.execution).trainer(dataset, None)
    work = count_work(trainer, encodes=True)
    batches = trainer.epoch_batches(1)
    cost = encoding_cost(batches, trainer.train.members_NK, trainer.tokens_P)
    assert len(work.steps) == len(batches)
    assert sum(sum(step.calls) for step in work.steps) == cost.encoded_tokens
    assert max(sum(step.calls) for step in work.steps) > 60 >= work.most_kept
    assert work.most_repeats > 0
    assert work.occurrences_P @ trainer.tokens_P == cost.encoded_tokens
    assert sum(work.everything) == trainer.tokens_P.sum()


def test_time_is_the_sum_of_all_calls():
    found = forecast(WORK, PROBE, NEED, CACHE, EXECUTION, epochs=10, base_bytes=0)
    steps = (1 + 5) + (1 + 4) + (1 + 2) + (0.5 + 0.4) + 2 * 2  # three parts, one of them encoded twice, two updates
    epoch = 0.5 + steps + (0.5 + 0.3) + 3
    assert found.epoch_seconds == pytest.approx(epoch)
    assert found.fill_seconds == pytest.approx(2 * 0.25 + 100 * 0.02)
    standardizing, everything = 2 * 0.5 + 0.3, 2 * 0.5 + 1.0
    assert found.total_seconds == pytest.approx(4 + found.fill_seconds + standardizing + 10 * epoch + everything + 3)


def test_what_the_cache_knows_is_not_computed_again():
    half = replace(CACHE, new_tokens=50)
    found = forecast(WORK, PROBE, NEED, half, EXECUTION, epochs=1, base_bytes=0)
    whole = forecast(WORK, PROBE, NEED, CACHE, EXECUTION, epochs=1, base_bytes=0)
    assert found.fill_seconds == pytest.approx(whole.fill_seconds / 2)
    head = replace(NEED, layers=())
    assert forecast(WORK, PROBE, head, half, EXECUTION, epochs=1, base_bytes=0).fill_seconds == pytest.approx(1.0)


def test_memory_grows_with_the_largest_part_above_what_is_held():
    found = forecast(WORK, PROBE, NEED, CACHE, EXECUTION, epochs=1, base_bytes=700)
    in_step = 50 + (1050 - 50) * 50 / 25  # copies of the weights do not grow with the tokens
    assert found.peak_memory_bytes == 700 + 5000 + 100 + in_step
    assert found.is_measured


def test_gradients_do_not_add_to_a_step_of_one_part():
    one_part = replace(WORK, steps=(StepWork(50),))
    found = forecast(one_part, PROBE, NEED, CACHE, EXECUTION, epochs=1, base_bytes=0)
    assert found.peak_memory_bytes == 5000 + 100 + 2050 - 100


def test_resident_memory_grows_by_what_is_kept_and_not_by_the_holes_of_a_small_sample():
    probe = replace(PROBE, is_resident=True)
    found = forecast(WORK, probe, NEED, CACHE, EXECUTION, epochs=1, base_bytes=700)
    in_step = 1050 + 1.25 * (20 + 20) * (50 - 25)
    assert found.peak_memory_bytes == 700 + 5000 + 100 + in_step


def test_a_large_validation_can_be_the_peak():
    large = replace(WORK, validation=(500,))
    found = forecast(large, PROBE, NEED, CACHE, EXECUTION, epochs=1, base_bytes=0)
    assert found.peak_memory_bytes == 5000 + 100 + 400 * 500 / 20 - 100


def test_memory_that_the_system_does_not_tell_is_counted():
    blind = replace(PROBE, gradient=Measured(PROBE.gradient.seconds, None, 25))
    found = forecast(WORK, blind, NEED, CACHE, EXECUTION, epochs=1, base_bytes=0)
    assert (found.peak_memory_bytes, found.is_measured) == (9999, False)


def test_a_plan_has_a_row_for_every_backbone_and_method_as_table_and_as_json(tmp_path, esm_folder):
    said = io.StringIO()
    nowhere = str(tmp_path / "nowhere")
    found = plan(
        tmp_path,
        esm_folder,
        said=said,
        backbones=(str(esm_folder), nowhere),
        json=str(tmp_path / "plans" / "plan.json"),
    )
    written = json.loads((tmp_path / "plans" / "plan.json").read_text("utf-8"))
    assert [(row["backbone"], row["method"]) for row in written["rows"]] == [
        (backbone, method) for backbone in (str(esm_folder), nowhere) for method in ("head", "lora", "full")
    ]
    for row in written["rows"][:3]:
        assert row["fits"] is True
        assert row["trained_parameters"] > 0
        assert row["steps_per_epoch"] == 3
        assert row["execution"]["token_budget"] == 150
        assert row["forecast"]["peak_memory_bytes"] > 0
        assert row["forecast"]["total_seconds"] > row["forecast"]["epoch_seconds"] * 3 > 0
    for row in written["rows"][3:]:
        assert row["fits"] is None
        assert "no such folder" in row["reason"]
    head, lora, full = (row["trained_parameters"] for row in written["rows"][:3])
    assert head < lora < full
    assert written["settings"]["epochs"] == 3
    assert written["machine"]["device"] == "cpu"
    assert written["recommendation"] == found.recommendation
    assert f"lora on {esm_folder} fits" in said.getvalue()
    assert f"head on {nowhere}: backbone {nowhere}: no such folder" in said.getvalue()
    for heading in ("backbone", "memory", "tokens at once", "epoch", "to the end"):
        assert heading in said.getvalue()


def test_the_cache_of_a_plan_is_what_training_would_keep_and_the_probe_leaves_none(tmp_path, esm_folder):
    head, lora, full = plan(tmp_path, esm_folder).rows
    num_tokens = sum(8 + 3 * i for i in range(18))
    assert lora.cache.num_bytes == num_tokens * 48 * 4 + 32 * 19
    assert lora.cache.new_tokens == head.cache.new_tokens == num_tokens
    assert head.cache.num_bytes == 18 * 48 * 4 + 32 * 19
    assert (full.cache.num_bytes, full.cache.is_kept) == (0, False)
    assert sum(store.num_bytes for store in stores(tmp_path / "cache")) == 0


def test_what_the_cache_holds_of_lower_layers_is_planned_too(tmp_path, esm_folder):
    """The states are those below the adapters; of lower layers only vectors are kept."""
    planned = plan(tmp_path, esm_folder, methods=("lora",), state_layers="1,4", lora_layers="3,4")
    plain = plan(tmp_path, esm_folder, methods=("lora",), lora_layers="3,4")
    assert planned.rows[0].cache.num_bytes == plain.rows[0].cache.num_bytes > 0
    assert "states after layer 2 of 4" in planned.rows[0].cache.note


def test_a_cache_beyond_its_limit_is_said_not_to_be_kept(tmp_path, esm_folder):
    (lora,) = plan(tmp_path, esm_folder, methods=("lora",), cache_limit_gb=1e-6).rows
    assert lora.fits
    assert not lora.cache.is_kept
    assert "do not fit" in lora.cache.note


def test_a_memory_that_nothing_fits_in_is_told_with_what_would(tmp_path, esm_folder):
    said = io.StringIO()
    found = plan(tmp_path, esm_folder, said=said, memory="1MB")
    assert [row.fits for row in found.rows] == [False, False, False]
    assert all("needs at least" in row.reason for row in found.rows)
    assert found.recommendation.startswith("nothing fits in 1 MiB")


def test_proteins_with_labels_are_planned_too(tmp_path, esm_folder):
    settings = PlanSettings(
        **write_examples(tmp_path, "multiclass"), backbones=(str(esm_folder),), methods=("head", "lora"), device="cpu"
    )
    assert [row.fits for row in run_plan(settings, Console(file=io.StringIO())).rows] == [True, True]


def test_the_command_prints_the_plan(tmp_path, esm_folder, capsys):
    data = write_examples(tmp_path, "pair")
    words = ["plan", data["data"], "--sequences", data["sequences"], "--backbones", str(esm_folder), "--device", "cpu"]
    assert main([*words, "--methods", "head"]) == 0
    assert "fits" in capsys.readouterr().out


def row(backbone, method, *, seconds=100.0, fits=True, trained=1000):
    return Row(
        backbone, method, fits, trained_parameters=trained, execution=EXECUTION, steps_per_epoch=2,
        tokens_per_epoch=110, most_repeats=1, cache=CACHE,
        forecast=Forecast(5 * 2**30, True, 10.0, seconds / 20, seconds),
    )  # fmt: skip


def test_lora_on_the_largest_backbone_that_ends_within_a_day_is_recommended():
    rows = [
        row("small", "head"),
        row("small", "lora", trained=1000),
        row("large", "lora", seconds=7200, trained=5000),
        row("huge", "lora", seconds=10**6, trained=9000),
        row("huge", "full", seconds=10**6, trained=10**9, fits=False),
    ]
    said = recommendation(rows, limit_bytes=4 * 2**30).splitlines()
    assert said[0] == (
        "lora on large fits: 5.0 GiB, 6 min per epoch, 2.0 h to the end, "
        "to save memory 1 of a step's parts encoded twice"
    )
    assert said[1].startswith("full on huge: 5.0 GiB and more than the 4.0 GiB")


def test_a_run_that_takes_days_is_recommended_only_where_no_other_fits():
    rows = [row("huge", "lora", seconds=10**6), row("small", "full", seconds=100)]
    assert recommendation(rows, limit_bytes=2**40).startswith("full on small fits")
    assert recommendation(rows[:1], limit_bytes=2**40).startswith("lora on huge fits")


def test_checkpointed_layers_and_a_cache_that_is_not_kept_are_marked_in_the_table():
    marked = replace(
        row("large", "lora"),
        execution=replace(EXECUTION, checkpoint_layers=True),
        cache=replace(CACHE, is_kept=False, note="too large"),
    )
    console = Console(file=io.StringIO(), width=200)
    console.print(plan_table([marked], limit_bytes=2**33, epochs=20))
    text = console.file.getvalue()
    assert "60 *" in text
    assert "4 kB (no)" in text
    assert "lora on large: too large" in recommendation([marked], limit_bytes=2**33)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (5, "5.0 s"), (45, "45 s"), (720, "12 min"), (12_600, "3.5 h"), (181_440, "2.1 days")],
)
def test_a_duration_is_told_in_the_unit_that_suits_it(seconds, text):
    assert duration(seconds) == text
