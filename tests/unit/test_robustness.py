"""What is concluded from the trials of a sweep."""

import itertools

import numpy as np
import pytest

from peftide.evaluation.robustness import Trial, conclude, effects_of


def grid(function, **values) -> list[Trial]:
    """A finished trial for each combination, with the metric that the function gives it."""
    found = [dict(zip(values, combination, strict=True)) for combination in itertools.product(*values.values())]
    return [Trial(one, "finished", value=function(**one), seconds=1.0) for one in found]


def test_a_setting_alone_explains_all_that_it_decides():
    trials = grid(lambda rank, layers: {1: 0.5, 4: 0.7}[rank], rank=(1, 4), layers=("all", "last"))
    rank, layers = effects_of(trials, {"rank": "listed", "layers": "listed"})
    assert (rank.range_share, rank.variance_share) == (1.0, pytest.approx(1.0))
    assert (layers.range_share, layers.variance_share) == (0.0, 0.0)
    assert [(level.label, level.num_trials, level.median) for level in rank.levels] == [("1", 2, 0.5), ("4", 2, 0.7)]


def test_shares_of_the_variance_add_up_where_effects_do():
    trials = grid(lambda a, b: 0.1 * a + 0.3 * b, a=(0, 1, 2), b=(0, 1))
    a, b = effects_of(trials, {"a": "listed", "b": "listed"})
    assert a.variance_share + b.variance_share == pytest.approx(1)
    assert a.range_share + b.range_share == pytest.approx(1)
    assert b.range_share == pytest.approx(0.3 / 0.5)


def test_trials_that_are_all_alike_explain_nothing():
    (only,) = effects_of(grid(lambda a: 0.5, a=(1, 2)), {"a": "listed"})
    assert (only.range_share, only.variance_share) == (0.0, 0.0)


def test_a_range_is_told_in_quarters_of_its_trials():
    rates = np.geomspace(1e-4, 1e-2, 20)
    trials = [Trial({"rate": float(rate)}, "finished", value=float(rate)) for rate in rates]
    (rate,) = effects_of(trials, {"rate": "logarithmic"})
    assert [level.num_trials for level in rate.levels] == [5, 5, 5, 5]
    assert rate.levels[0].label == f"{rates[0]:.3g} to {rates[4]:.3g}"
    assert rate.levels[0].median == pytest.approx(rates[2])


def test_equal_numbers_are_in_one_quarter():
    trials = [Trial({"rank": rank}, "finished", value=0.1 * rank) for rank in (1, 1, 1, 1, 1, 2, 3)]
    (rank,) = effects_of(trials, {"rank": "linear"})
    assert sum(level.num_trials for level in rank.levels) == 7
    assert rank.levels[0].label == "1"
    assert rank.levels[0].num_trials == 5


def test_numbers_stand_in_their_order_and_words_in_that_of_the_trials():
    trials = [Trial({"a": a, "b": b}, "finished", value=0.5) for a, b in ((8, "z"), (1, "a"), (16, "z"))]
    a, b = effects_of(trials, {"a": "listed", "b": "listed"})
    assert [level.label for level in a.levels] == ["1", "8", "16"]
    assert [level.label for level in b.levels] == ["z", "a"]


@pytest.mark.parametrize(("metric", "best"), [("aupr", 2), ("rmse", 0)])
def test_the_best_trial_is_the_best_of_the_finished_ones(metric, best):
    trials = [
        Trial({"a": 1}, "finished", value=0.2),
        Trial({"a": 2}, "pruned", value=0.9),
        Trial({"a": 3}, "finished", value=0.7),
        Trial({"a": 4}, "failed", reason="out of memory"),
        Trial({"a": 5}, "pruned", value=0.1),
    ]
    found = conclude(trials, {"a": "listed"}, metric)
    assert found.best == best
    assert sum(level.num_trials for level in found.effects[0].levels) == 2
    assert found.verdict[-2:] == (
        "2 of 5 trials were ended early, as they fell behind.",
        "1 of 5 trials failed.",
    )


def test_the_verdict_tells_the_spread_and_the_settings_that_matter_most_first():
    trials = grid(lambda a, b: 0.5 + 0.1 * a + 0.3 * b, a=(0, 1), b=(0, 1))
    said = conclude(trials, {"a": "listed", "b": "listed"}, "aupr").verdict
    assert said[0] == "Best validation aupr: 0.9000, with a=1, b=1."
    assert said[1].startswith("4 trials from 0.5000 to 0.9000, median 0.7000; half of them between ")
    assert said[2].startswith("b explains 75% of that range: the median is 0.5500 at 0 and 0.8500 at 1 (90% of the")
    assert said[3].startswith("a explains 25% of that range")
