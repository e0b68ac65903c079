"""The benchmarks on a tiny backbone and tiny data: they run, agree with the stock recipes, and write what they say."""

import importlib
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from conftest import write_examples
from peftide.errors import UserError

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ROW_FIELDS = {"variant", "meaning", "residues_per_second", "peak_memory_bytes", "units_timed"}


@pytest.fixture
def load(monkeypatch):
    """Import a module of the benchmarks as the scripts do, from their own folder."""
    monkeypatch.syspath_prepend(BENCHMARKS)

    def load_module(name: str) -> ModuleType:
        return importlib.import_module(name)

    return load_module


@pytest.fixture
def options(tmp_path, esm_folder) -> list[str]:
    """Tiny data and a tiny backbone, hardly any time."""
    files = write_examples(tmp_path, "pair")
    return [
        *("--data", files["data"], "--sequences", files["sequences"], "--backbone", str(esm_folder)),
        *("--device", "cpu", "--seconds-per-variant", "0.05", "--rounds", "2", "--json", str(tmp_path / "out.json")),
    ]


def written(options: list[str]) -> dict:
    return json.loads(Path(options[-1]).read_text("utf-8"))


def pair_set(load, members):
    members_N2 = np.array(members)
    sequences = tuple("A" * (10 + row) for row in range(members_N2.max() + 1))
    return load("pairs").PairSet("made up", sequences, members_N2, np.zeros(len(members_N2), dtype=np.float32))


def test_training_speed_writes_a_row_for_each_variant_and_the_ratios(load, options):
    load("training_speed").main(
        [*options[:-2], "--pairs", "16", "--proteins", "18", "--batch-examples", "64,8", *options[-2:]]
    )
    results = written(options)
    assert results["benchmark"] == "training_speed"
    assert {"device_name", "torch", "transformers", "peft", "threads"} <= results["machine"].keys()
    assert results["arguments"]["pairs"] == 16
    assert results["data"]["pairs"] == 16
    rows = {row["variant"]: row for row in results["rows"]}
    assert {"paper", "packed-fp32", "cached", "once-64", "blocks-64", "blocks-8"} <= rows.keys()
    for name, row in rows.items():
        assert row.keys() >= ROW_FIELDS | {"pairs_per_second", "tokens_encoded_per_second", "loss", "ratio_to_paper"}
        assert row["pairs_per_second"] > 0, name
        assert row["units_timed"] >= 2, name
        assert len(row["epoch_seconds_by_round"]) == 2, name
    assert results["ratio_variant"] == "blocks-64" or results["ratio_variant"] == "once-64"
    best = rows[results["ratio_variant"]]
    assert results["ratio_pairs_per_second"] == pytest.approx(best["ratio_to_paper"])
    assert results["ratio_with_cache_filling_over_10_epochs"] > 0
    checks = results["checks"]
    assert checks["packed-fp32"]["loss"] == pytest.approx(checks["paper"]["loss"], abs=1e-5)
    assert checks["every technique in float32"]["loss"] == pytest.approx(checks["paper"]["loss"], abs=1e-5)


def test_training_speed_runs_only_the_rows_asked_for_on_pairs_that_share_no_protein(load, options):
    words = [*options, "--no-shared-proteins", "--variants", "packed-fp32", "--layers", "all"]
    results = load("training_speed").main(words)
    assert [row["variant"] for row in results["rows"]] == ["paper", "packed-fp32"]
    assert results["data"]["pairs_per_protein"] == 1
    with pytest.raises(UserError, match="no row blocks-7"):
        load("training_speed").main([*options, "--variants", "blocks-7"])


def test_embedding_speed_writes_a_row_for_each_variant(load, options):
    load("embedding_speed").main([*options[:-2], "--proteins", "12", *options[-2:]])
    results = written(options)
    rows = {row["variant"]: row for row in results["rows"]}
    assert {"stock", "stock-one-at-a-time", "peftide-fp32"} <= rows.keys()
    for row in rows.values():
        assert row.keys() >= ROW_FIELDS | {"operations_per_second", "fraction_of_matrix_product", "ratio_to_stock"}
        assert row["residues_per_second"] > 0
        assert row["least_cosine"] > 0.999
    assert results["data"]["proteins"] == 12
    assert results["ratio_to_stock"] > 0


def test_screening_writes_a_row_for_each_head_and_the_time_of_all_pairs(load, tmp_path):
    out = tmp_path / "out.json"
    words = ["--proteins", "300", "--width", "16", "--head-width", "32", "--top-k", "5", "--device", "cpu"]
    load("screening").main([*words, "--threads", "1", "--seconds-per-variant", "0.01", "--json", str(out)])
    results = json.loads(out.read_text("utf-8"))
    assert results["benchmark"] == "screening"
    assert {"before", "after"} == results["load_average"].keys()
    rows = {row["variant"]: row for row in results["rows"]}
    assert {"mlp, float32", "paper, float32", "linear, float32"} <= rows.keys()
    for row in rows.values():
        assert row["pairs"] == 300 * 299 // 2
        assert 0 < row["pairs_timed"] <= row["pairs"]
        assert row["seconds_in_all"] >= row["scoring_seconds"] == pytest.approx(row["pairs"] / row["pairs_per_second"])
        assert row["ratio_to_predict"] > 0


def test_streaming_measures_each_command_at_each_size(load, tmp_path):
    out = tmp_path / "out.json"
    words = ["--proteins", "40", "--commands", "predict to TSV", "--threads", "1", "--width", "16", "--json", str(out)]
    load("streaming").main(words)
    (row,) = json.loads(out.read_text("utf-8"))["rows"]
    assert row["variant"] == "predict to TSV"
    assert row["proteins"] == 40
    assert row["output_bytes"] > 40 * len("P000000000")
    assert row["proteins_per_second"] == pytest.approx(40 / row["seconds"])
    assert row["growth_bytes"] is None or 0 <= row["growth_bytes"] < row["peak_memory_bytes"]


def test_streaming_measures_pairs_of_few_proteins(load, tmp_path):
    words = ["--pairs", "60", "--proteins-of-pairs", "9", "--commands", "predict pairs to TSV", "--threads", "1"]
    (row,) = load("streaming").main([*words, "--width", "16", "--json", str(tmp_path / "out.json")])["rows"]
    assert (row["proteins"], row["pairs"]) == (9, 60)
    assert row["output_bytes"] > 60 * len("P000000000\tP000000000")
    assert row["pairs_per_second"] == pytest.approx(60 / row["seconds"])


def test_a_neighbourhood_has_the_pairs_asked_for_among_the_proteins_asked_for(load):
    clique = [(a, b) for a in range(12) for b in range(a)]
    pairs = pair_set(load, [*clique, *((12 + n, 13 + n) for n in range(200))])
    chosen = load("pairs").neighbourhood(pairs, num_pairs=20, num_proteins=10, generator=np.random.default_rng(0))
    assert len(chosen) == 20
    assert len(chosen.sequences) <= 10
    assert len(np.unique(chosen.members_N2, axis=0)) == 20


def test_pairs_without_shared_proteins_share_none(load):
    pairs = pair_set(load, [(0, 1), (1, 2), (2, 3), (3, 3), (4, 5), (5, 0)])
    chosen = load("pairs").without_shared_proteins(pairs, num_pairs=9, generator=np.random.default_rng(0))
    assert len(np.unique(chosen.members_N2)) == 2 * len(chosen) == len(chosen.sequences)
    assert len(chosen) >= 2


def test_every_stretch_of_the_timed_units_samples_the_whole_epoch(load):
    costs = np.random.default_rng(0).lognormal(size=101)
    order = load("rounds").spread_order(costs.tolist())
    assert sorted(order) == list(range(101))
    ranks = np.argsort(np.argsort(costs))[order]
    for start in (0, 17, 60):
        assert abs(ranks[start : start + 20].mean() / 100 - 0.5) < 0.05


def test_the_time_of_an_epoch_does_not_depend_on_the_slice_that_is_timed(load, monkeypatch):
    import torch

    rounds = load("rounds")
    clock = iter(range(10**6))
    now = {"seconds": 0.0}
    costs = np.random.default_rng(1).lognormal(size=50)
    units = [rounds.Unit(np.array([row]), cost, 1) for row, cost in enumerate(costs.tolist())]

    def run(unit):
        now["seconds"] += 0.01 * unit.cost
        next(clock)

    monkeypatch.setattr(rounds.time, "perf_counter", lambda: now["seconds"])
    variant = rounds.Variant("a", "a", units, run, lambda: np.zeros(1), 0, is_exact=True)
    timings = rounds.time_in_turn([variant], seconds_per_variant=0.1, num_rounds=2, device=torch.device("cpu"))
    assert timings["a"].num_units < len(units)
    assert timings["a"].epoch_seconds == pytest.approx(0.01 * costs.sum())
