"""Bootstrap intervals over proteins: weights, agreement with plain resampling, coverage, paired differences."""

import numpy as np
import pytest

from peftide.evaluation.intervals import (
    bootstrap_intervals,
    num_independent,
    one_vote_per_group,
    paired_difference,
    replicate_weights,
    spread_over_seeds,
)
from peftide.evaluation.metrics import measure, statistic

CLASSES = ("no", "yes")


def simulate_pairs(generator: np.random.Generator, num_proteins: int, num_pairs: int, *, effect: float) -> tuple:
    """Pairs, targets and probabilities; proteins differ by `effect` in their scores and in how well these separate."""
    offset_P, signal_P = effect * generator.normal(size=(2, num_proteins))
    first = generator.integers(num_proteins, size=num_pairs)
    second = (first + generator.integers(1, num_proteins, size=num_pairs)) % num_proteins
    pairs = np.stack([first, second], axis=1)
    targets = generator.random(num_pairs) < 0.5
    signal_N = targets * (0.7 + signal_P[pairs].sum(axis=1))
    logits = signal_N + offset_P[pairs].sum(axis=1) + generator.normal(size=num_pairs)
    return pairs, targets.astype(np.float32), 1 / (1 + np.exp(-logits))


def test_a_pair_counts_as_the_product_of_its_proteins_draws_and_a_self_pair_as_its_protein():
    members = np.array([[10, 20], [20, 30], [10, 10], [30, 30], [20, 20], [10, 30]])
    for weights in replicate_weights(members, np.random.default_rng(0), 200):
        ten, thirty, twenty = weights[[2, 3, 4]]
        assert ten + twenty + thirty == 3
        assert weights.tolist() == [ten * twenty, twenty * thirty, ten, thirty, twenty, ten * thirty]


def test_single_proteins_are_drawn_as_often_as_there_are_clusters():
    clusters = np.array([[0], [0], [1], [2], [2], [2]])
    for weights in replicate_weights(clusters, np.random.default_rng(0), 100):
        assert weights[0] == weights[1]
        assert weights[3] == weights[4] == weights[5]
        assert weights[0] + weights[2] + weights[3] == 3


def test_a_replicate_is_never_empty():
    members = np.array([[0, 1], [2, 3]])
    assert all(weights.any() for weights in replicate_weights(members, np.random.default_rng(0), 300))


def test_the_interval_equals_that_of_resampling_rows_one_by_one():
    generator = np.random.default_rng(1)
    targets = (generator.random(60) < 0.5).astype(np.float32)
    scores = np.round(np.clip(0.4 * targets + 0.6 * generator.random(60), 0, 1), 1)
    found = bootstrap_intervals(
        statistic("binary", targets, scores, classes=CLASSES),
        np.arange(60)[:, None],
        generator=np.random.default_rng(2),
        num_replicates=100,
    )
    draws = np.random.default_rng(2)
    resampled = []
    for _ in range(100):
        rows = draws.integers(60, size=60)
        resampled.append(measure("binary", targets[rows], scores[rows], classes=CLASSES))
    for name in ("aupr", "auroc", "f1", "precision_at_recall_50"):
        low, high = np.quantile([values[name] for values in resampled], [0.025, 0.975])
        assert (found[name].low, found[name].high) == pytest.approx((low, high), abs=1e-12), name
    assert "ece" not in found  # which lies below most of its replicates


def test_partners_of_three_antigens_are_three_to_draw_from():
    bipartite = np.column_stack([np.repeat([0, 1, 2], 50), 3 + np.arange(150)])
    assert num_independent(bipartite) == 3
    assert num_independent(np.array([[0, 1], [1, 2]])) == 3
    assert num_independent(np.arange(7)[:, None]) == 7


def test_the_same_seed_gives_the_same_intervals():
    pairs, targets, scores = simulate_pairs(np.random.default_rng(0), 30, 200, effect=0.5)
    values = statistic("binary", targets, scores, classes=CLASSES)
    first, second = (
        bootstrap_intervals(values, pairs, generator=np.random.default_rng(3), num_replicates=50) for _ in range(2)
    )
    assert first == second


def test_intervals_hold_the_estimate_and_widen_with_confidence():
    pairs, targets, scores = simulate_pairs(np.random.default_rng(0), 100, 1000, effect=0.5)
    values = statistic("binary", targets, scores, classes=CLASSES)
    narrow, wide = (
        bootstrap_intervals(
            values, pairs, generator=np.random.default_rng(3), num_replicates=200, confidence=confidence
        )["aupr"]
        for confidence in (0.5, 0.95)
    )
    assert narrow.estimate == measure("binary", targets, scores, classes=CLASSES)["aupr"]
    assert wide.low < narrow.low < narrow.estimate < narrow.high < wide.high


def test_shared_proteins_make_the_interval_wider_than_drawing_pairs():
    pairs, targets, scores = simulate_pairs(np.random.default_rng(0), 50, 2000, effect=1.0)
    values = statistic("binary", targets, scores, classes=CLASSES)
    by_protein = bootstrap_intervals(values, pairs, generator=np.random.default_rng(3), num_replicates=200)["auroc"]
    by_pair = bootstrap_intervals(
        values, np.arange(len(pairs))[:, None], generator=np.random.default_rng(3), num_replicates=200
    )["auroc"]
    assert by_protein.high - by_protein.low > 2 * (by_pair.high - by_pair.low)


def test_counts_are_no_metrics_and_undefined_metrics_have_no_interval():
    found = bootstrap_intervals(
        statistic("binary", np.zeros(5), np.linspace(0.1, 0.9, 5), classes=CLASSES),
        np.arange(5)[:, None],
        generator=np.random.default_rng(0),
        num_replicates=20,
    )
    assert "specificity" in found
    assert {"aupr", "num_examples"}.isdisjoint(found)


def test_a_model_compared_with_itself_differs_by_nothing():
    pairs, targets, scores = simulate_pairs(np.random.default_rng(0), 30, 200, effect=0.5)
    values = statistic("binary", targets, scores, classes=CLASSES)
    found = paired_difference(values, values, pairs, generator=np.random.default_rng(0), num_replicates=50)["aupr"]
    assert (found.estimate, found.low, found.high, found.probability_a_is_better) == (0.0, 0.0, 0.0, 0.5)


def test_a_clearly_better_model_is_found_better_by_high_and_by_low_metrics():
    pairs, targets, scores = simulate_pairs(np.random.default_rng(0), 100, 1000, effect=0.3)
    better = 0.7 * scores + 0.3 * targets
    found = paired_difference(
        statistic("binary", targets, better, classes=CLASSES),
        statistic("binary", targets, scores, classes=CLASSES),
        pairs,
        generator=np.random.default_rng(0),
        num_replicates=100,
    )
    assert found["auroc"].low > 0
    assert found["log_loss"].high < 0
    assert found["auroc"].probability_a_is_better == found["log_loss"].probability_a_is_better == 1.0


def test_pairing_makes_the_difference_of_similar_models_surer_than_either_model():
    generator = np.random.default_rng(0)
    pairs, targets, scores = simulate_pairs(generator, 100, 1000, effect=1.0)
    similar = np.clip(scores + 0.02 * generator.normal(size=len(scores)), 0, 1)
    first, second = (statistic("binary", targets, s, classes=CLASSES) for s in (scores, similar))
    alone = bootstrap_intervals(first, pairs, generator=np.random.default_rng(1), num_replicates=100)["auroc"]
    paired = paired_difference(first, second, pairs, generator=np.random.default_rng(1), num_replicates=100)["auroc"]
    assert paired.high - paired.low < 0.2 * (alone.high - alone.low)


def test_one_vote_per_group_makes_copies_of_a_protein_count_once():
    targets, scores = np.array([1.0, 0.0, 1.0]), np.array([0.9, 0.8, 0.3])
    copied = np.array([0, 0, 0, 0, 1, 2])
    weights = one_vote_per_group(copied[:, None])
    found = measure("binary", targets[copied], scores[copied], classes=CLASSES, weights_N=weights)
    alone = measure("binary", targets, scores, classes=CLASSES)
    assert found | {"num_examples": 3} == pytest.approx(alone)
    assert one_vote_per_group(np.array([[1, 2], [2, 1], [3, 1]])).tolist() == [0.5, 0.5, 1.0]


def test_seeds_are_summed_up_as_mean_and_spread():
    found = spread_over_seeds([{"aupr": 0.6, "auroc": 0.7}, {"aupr": 0.8}])
    assert set(found) == {"aupr"}
    assert found["aupr"].mean == pytest.approx(0.7)
    assert found["aupr"].standard_deviation == pytest.approx(0.2 / 2**0.5)
    assert (found["aupr"].lowest, found["aupr"].highest, found["aupr"].num_seeds) == (0.6, 0.8, 2)
    assert spread_over_seeds([{"aupr": 0.6}])["aupr"].standard_deviation is None


@pytest.mark.slow
def test_drawing_proteins_covers_the_truth_where_drawing_pairs_does_not():
    generator = np.random.default_rng(1)
    _, targets, scores = simulate_pairs(generator, 20_000, 400_000, effect=1.0)
    truth = measure("binary", targets, scores, classes=CLASSES)["auroc"]
    covered = {"protein": 0, "pair": 0}
    for _ in range(100):
        pairs, targets, scores = simulate_pairs(generator, 200, 2000, effect=1.0)
        values = statistic("binary", targets, scores, classes=CLASSES)
        for drawn, groups in (("protein", pairs), ("pair", np.arange(2000)[:, None])):
            interval = bootstrap_intervals(values, groups, generator=generator, num_replicates=100)["auroc"]
            covered[drawn] += interval.low <= truth <= interval.high
    assert covered["protein"] >= 90
    assert covered["pair"] <= 80


def test_from_one_group_nothing_can_be_drawn():
    targets, scores = np.array([0, 1, 1, 0], dtype=np.float32), np.array([0.1, 0.9, 0.4, 0.6])
    found = statistic("binary", targets, scores, classes=CLASSES)
    one, two = np.zeros((4, 1), dtype=int), np.array([[0], [0], [1], [1]])
    generator = np.random.default_rng(0)
    assert bootstrap_intervals(found, one, generator=generator) == {}
    assert paired_difference(found, found, one, generator=generator) == {}
    assert "aupr" in bootstrap_intervals(found, two, generator=generator)
