"""Calibration, reliability and precision where positives are rare."""

import json

import numpy as np
import pytest
from scipy.special import expit, logit, softmax

from peftide.evaluation.calibration import Calibration, _folds, fit_calibration
from peftide.evaluation.metrics import measure
from peftide.evaluation.prevalence import precision_at_prevalence, rare_positives_table, threshold_for_precision
from peftide.evaluation.reliability import reliability_curve

CLASSES = ("no", "yes")


def binary_sample(generator: np.random.Generator, num_examples: int, *, sharpness: float) -> tuple:
    """Targets drawn from true probabilities, and those probabilities with logits multiplied by `sharpness`."""
    logits = 1.5 * generator.normal(size=num_examples)
    targets = (generator.random(num_examples) < expit(logits)).astype(np.float32)
    return targets, expit(sharpness * logits)


def bent_sample(generator: np.random.Generator, num_examples: int) -> tuple:
    """Targets and scores whose true probability bends in a way that no temperature mends."""
    scores = generator.random(num_examples)
    return (generator.random(num_examples) < 0.1 + 0.4 * (scores > 0.5)).astype(np.float32), scores


def test_a_model_three_times_too_sure_gets_temperature_three():
    targets, scores = binary_sample(np.random.default_rng(0), 4000, sharpness=3.0)
    found = fit_calibration("binary", targets, scores, generator=np.random.default_rng(0))
    assert found.kind == "temperature"
    assert found.temperature == pytest.approx(3.0, rel=0.1)
    mended = found.apply(scores)
    assert mended == pytest.approx(expit(logit(scores) / found.temperature), abs=1e-6)
    assert measure("binary", targets, mended, classes=CLASSES)["ece"] < 0.03


def test_a_bent_curve_is_mended_by_isotonic_regression_on_new_examples():
    generator = np.random.default_rng(1)
    targets, scores = bent_sample(generator, 4000)
    found = fit_calibration("binary", targets, scores, generator=generator)
    new_targets, new_scores = bent_sample(generator, 4000)
    before = measure("binary", new_targets, new_scores, classes=CLASSES)
    after = measure("binary", new_targets, found.apply(new_scores), classes=CLASSES)
    assert found.kind == "isotonic"
    assert after["ece"] < 0.04 < before["ece"]
    assert after["log_loss"] < before["log_loss"]


def test_ten_right_answers_make_none_of_them_certain():
    targets = np.repeat([1.0, 0.0], 5)
    found = fit_calibration("binary", targets, np.where(targets > 0, 0.7, 0.3), generator=np.random.default_rng(0))
    assert found.kind == "temperature"
    assert 0.7 < found.apply(np.array([0.7]))[0] < 0.9


def test_near_copies_are_held_out_together_so_that_isotonic_regression_does_not_win_by_memory():
    chosen = {True: [], False: []}
    for seed in range(12):
        generator = np.random.default_rng(seed)
        logits = 1.5 * generator.normal(size=30)
        targets = np.repeat(generator.random(30) < expit(logits), 20).astype(np.float32)
        scores = expit(np.repeat(logits, 20) + 0.05 * generator.normal(size=600))
        families = np.repeat(np.arange(30), 20)[:, None]
        for groups_NK in (families, None):
            found = fit_calibration("binary", targets, scores, groups_NK=groups_NK, generator=generator)
            chosen[groups_NK is None].append(found.kind)
    assert chosen[True].count("isotonic") > 6
    assert chosen[False].count("isotonic") <= 2


def test_pairs_of_one_protein_are_held_out_together():
    generator = np.random.default_rng(0)
    pairs = np.column_stack([np.repeat(np.arange(10), 20), 10 + np.arange(200)])
    fold_N = _folds("binary", generator.integers(2, size=200), pairs, generator)
    assert all(len(np.unique(fold_N[pairs[:, 0] == hub])) == 1 for hub in range(10))
    assert sorted(np.unique(fold_N)) == list(range(5))


@pytest.mark.parametrize("sharpness", [0.5, 4.0])
def test_calibration_changes_no_ranking(sharpness):
    targets, scores = binary_sample(np.random.default_rng(2), 300, sharpness=sharpness)
    bent_targets, bent_scores = bent_sample(np.random.default_rng(2), 300)
    for truths, raw in ((targets, scores), (bent_targets, bent_scores)):
        found = fit_calibration("binary", truths, raw, generator=np.random.default_rng(0))
        mended = found.apply(raw)
        assert np.array_equal(np.argsort(raw, kind="stable"), np.argsort(mended, kind="stable"))
        assert np.all(np.diff(mended[np.argsort(raw)]) > 0)


def test_a_calibrated_model_is_not_made_worse_by_a_choice_from_few_examples():
    excess = []
    for seed in range(20):
        generator = np.random.default_rng(seed)
        targets, scores = binary_sample(generator, 60, sharpness=1.0)
        found = fit_calibration("binary", targets, scores, generator=generator)
        new_targets, new_scores = binary_sample(generator, 2000, sharpness=1.0)
        before, after = (
            measure("binary", new_targets, values, classes=CLASSES)["log_loss"]
            for values in (new_scores, found.apply(new_scores))
        )
        excess.append(after - before)
    assert np.mean(excess) < 0.02


def test_the_choice_is_the_lowest_cross_fitted_loss_and_isotonic_cannot_win_by_memory():
    generator = np.random.default_rng(3)
    targets = (generator.random(60) < 0.5).astype(np.float32)
    scores = np.clip(0.5 + 0.01 * generator.normal(size=60), 0, 1)  # says 0.5 for a coin: nothing to mend
    found = fit_calibration("binary", targets, scores, generator=generator)
    losses = dict(found.log_losses)
    assert losses["isotonic"] > losses["none"]
    assert found.kind == min(losses, key=losses.get)


def test_isotonic_probabilities_are_never_certain():
    scores = np.linspace(0.05, 0.95, 200)
    targets = (scores > 0.2).astype(np.float32)
    found = fit_calibration("binary", targets, scores, generator=np.random.default_rng(0))
    assert found.kind == "isotonic"
    said = found.apply(np.array([0.0, 0.05, 0.95, 1.0]))
    assert said[0] > 0
    assert said[-1] < 1


def test_a_multiclass_model_too_sure_is_cooled_and_its_rows_still_sum_to_one():
    generator = np.random.default_rng(4)
    logits = 1.5 * generator.normal(size=(3000, 4))
    targets = np.array([generator.choice(4, p=row) for row in softmax(logits, axis=1)])
    sure = softmax(2.5 * logits, axis=1).astype(np.float32)
    found = fit_calibration("multiclass", targets, sure, generator=generator)
    assert found.kind == "temperature"
    assert found.temperature == pytest.approx(2.5, rel=0.1)
    assert found.apply(sure).sum(axis=1) == pytest.approx(1.0)


def test_several_labels_share_one_temperature():
    generator = np.random.default_rng(5)
    columns = [binary_sample(generator, 1500, sharpness=2.0) for _ in range(3)]
    targets, scores = (np.stack(part, axis=1) for part in zip(*columns, strict=True))
    found = fit_calibration("multilabel", targets, scores, generator=generator)
    assert found.temperature == pytest.approx(2.0, rel=0.1)
    assert found.apply(scores).shape == (1500, 3)


def test_too_few_examples_leave_the_probabilities_alone():
    found = fit_calibration(
        "binary", np.array([1, 0, 0, 0, 0, 0, 0]), np.linspace(0, 1, 7), generator=np.random.default_rng(0)
    )
    assert found.kind == "none"
    assert found.apply(np.array([0.2, 0.9])).tolist() == [0.2, 0.9]


@pytest.mark.parametrize("sample", ["sharp", "bent"])
def test_a_calibration_survives_json(sample):
    generator = np.random.default_rng(6)
    targets, scores = bent_sample(generator, 800) if sample == "bent" else binary_sample(generator, 800, sharpness=3.0)
    found = fit_calibration("binary", targets, scores, generator=generator)
    assert Calibration.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False))) == found


def test_the_reliability_curve_of_hand_counted_bins():
    curve = reliability_curve(np.array([0, 1, 1, 1]), np.array([0.05, 0.15, 0.95, 1.0]), num_bins=5)
    assert [(step.mean_probability, step.observed_fraction, step.num_examples) for step in curve] == [
        (pytest.approx(0.1), 0.5, 2),
        (pytest.approx(0.975), 1.0, 2),
    ]


def test_precision_at_a_prevalence_is_that_of_a_set_with_so_many_negatives_one_more_of_which_had_passed():
    targets = np.array([1, 1, 0, 0, 0, 0])
    scores = np.array([0.9, 0.2, 0.8, 0.3, 0.2, 0.1])
    many = np.concatenate([[0, 1], np.tile([2, 2, 3, 4, 5], 40)])
    at_real = precision_at_prevalence(targets, scores, threshold=0.5, prevalence=2 / 202)
    assert at_real == pytest.approx(measure("binary", targets[many], scores[many], classes=CLASSES)["precision"])
    assert precision_at_prevalence(targets, scores, threshold=0.95, prevalence=0.1) is None


def test_rarer_positives_lower_the_precision_and_keep_the_recall():
    targets, scores = binary_sample(np.random.default_rng(7), 3000, sharpness=1.0)
    table = rare_positives_table(targets, scores, threshold=0.8)
    assert [row.negatives_per_positive for row in table] == [10, 100, 1000]
    assert table[0].precision > table[1].precision > table[2].precision > 0
    assert {row.recall for row in table} == {
        measure("binary", targets, scores, classes=CLASSES, threshold=0.8)["recall"]
    }
    assert rare_positives_table(targets, scores, threshold=1.5) == ()


def test_the_threshold_for_a_precision_reaches_it_and_no_lower_one_does():
    targets, scores = binary_sample(np.random.default_rng(8), 5000, sharpness=1.0)
    threshold = threshold_for_precision(targets, scores, precision=0.3, prevalence=1 / 11)
    assert threshold is not None
    assert precision_at_prevalence(targets, scores, threshold=threshold, prevalence=1 / 11) >= 0.3
    lower = np.sort(scores[scores < threshold])[-200:]
    found = [precision_at_prevalence(targets, scores, threshold=score, prevalence=1 / 11) for score in lower]
    assert max(found) < 0.302


def test_no_threshold_is_promised_that_the_number_of_negatives_cannot_support():
    targets = np.repeat([1.0, 0.0], [100, 1000])
    scores = np.concatenate([np.full(100, 0.9), np.full(1000, 0.1)])  # no error in the sample
    assert threshold_for_precision(targets, scores, precision=0.9, prevalence=1 / 11) == 0.9
    assert threshold_for_precision(targets, scores, precision=0.9, prevalence=1 / 1001) is None
