"""Losses against scikit-learn and closed forms for every kind of target; scores; the balance of classes."""

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from peftide.models.target import Target, loss, make_target, scores

NUM_EXAMPLES = 40


def generator(seed=0):
    return np.random.default_rng(seed)


def logits(num_outputs, *, seed=0):
    return torch.from_numpy(2 * generator(seed).standard_normal((NUM_EXAMPLES, num_outputs))).float()


def sigmoid(values):
    return 1 / (1 + np.exp(-values.double().numpy()))


def softmax(values):
    powers = np.exp(values.double().numpy())
    return powers / powers.sum(axis=1, keepdims=True)


def binary_targets():
    return (generator(1).random(NUM_EXAMPLES) < 0.2).astype(np.float32)


def multiclass_targets():
    return generator(2).choice(3, NUM_EXAMPLES, p=[0.7, 0.2, 0.1]).astype(np.int64)


def multilabel_targets():
    return (generator(3).random((NUM_EXAMPLES, 3)) < [0.1, 0.5, 0.8]).astype(np.float32)


def regression_targets():
    return (generator(4).standard_normal(NUM_EXAMPLES) * 20 + 300).astype(np.float32)


def value_of(logits_BC, targets, target):
    return loss(logits_BC, torch.from_numpy(targets), target).item()


def test_the_binary_loss_is_sklearns():
    logits_B1, targets = logits(1), binary_targets()
    target = make_target("binary", ("no", "yes"), targets, balanced=False)
    assert value_of(logits_B1, targets, target) == pytest.approx(log_loss(targets, sigmoid(logits_B1[:, 0])), rel=1e-6)


def test_the_balanced_binary_loss_is_the_mean_of_the_losses_within_the_two_classes():
    logits_B1, targets = logits(1), binary_targets()
    target = make_target("binary", ("no", "yes"), targets, balanced=True)
    probability = sigmoid(logits_B1[:, 0])
    within = [-np.log(1 - probability)[targets == 0].mean(), -np.log(probability)[targets == 1].mean()]
    assert value_of(logits_B1, targets, target) == pytest.approx(np.mean(within), rel=1e-6)


def test_the_multiclass_loss_is_sklearns():
    logits_BC, targets = logits(3), multiclass_targets()
    target = make_target("multiclass", ("a", "b", "c"), targets, balanced=False)
    expected = log_loss(targets, softmax(logits_BC), labels=[0, 1, 2])
    assert value_of(logits_BC, targets, target) == pytest.approx(expected, rel=1e-6)


def test_the_balanced_multiclass_loss_is_sklearns_with_balanced_weights():
    logits_BC, targets = logits(3), multiclass_targets()
    target = make_target("multiclass", ("a", "b", "c"), targets, balanced=True)
    weights = (NUM_EXAMPLES / (3 * np.bincount(targets)))[targets]
    expected = log_loss(targets, softmax(logits_BC), labels=[0, 1, 2], sample_weight=weights)
    assert value_of(logits_BC, targets, target) == pytest.approx(expected, rel=1e-6)


def test_the_multilabel_loss_is_the_mean_of_sklearns_over_the_labels():
    logits_BC, targets = logits(3), multilabel_targets()
    target = make_target("multilabel", ("a", "b", "c"), targets, balanced=False)
    expected = np.mean([log_loss(targets[:, c], sigmoid(logits_BC[:, c])) for c in range(3)])
    assert value_of(logits_BC, targets, target) == pytest.approx(expected, rel=1e-6)


def test_the_balanced_multilabel_loss_weighs_positives_of_each_label_by_negatives_over_positives():
    logits_BC, targets = logits(3), multilabel_targets()
    target = make_target("multilabel", ("a", "b", "c"), targets, balanced=True)
    probability = sigmoid(logits_BC)
    weight_C = (1 - targets).sum(axis=0) / targets.sum(axis=0)
    losses = -(weight_C * targets * np.log(probability) + (1 - targets) * np.log(1 - probability))
    assert value_of(logits_BC, targets, target) == pytest.approx(losses.mean(), rel=1e-5)
    assert target.class_weights == pytest.approx(weight_C)


def test_the_regression_loss_is_the_squared_error_of_standard_values():
    logits_B1, targets = logits(1), regression_targets()
    target = make_target("regression", (), targets, balanced=False)
    standard = (targets - targets.mean()) / targets.std()
    expected = np.mean((logits_B1[:, 0].numpy() - standard) ** 2)
    assert value_of(logits_B1, targets, target) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_balanced_weights_leave_the_mean_weight_at_one_and_make_classes_equal(kind):
    targets = binary_targets() if kind == "binary" else multiclass_targets()
    classes = ("no", "yes") if kind == "binary" else ("a", "b", "c")
    weights = np.array(make_target(kind, classes, targets, balanced=True).class_weights)
    per_example = weights[targets.astype(int)]
    assert per_example.mean() == pytest.approx(1)
    totals = [per_example[targets == c].sum() for c in range(len(classes))]
    assert totals == pytest.approx([totals[0]] * len(classes))


def test_a_class_without_training_example_does_not_disturb_the_balance():
    weights = make_target("multiclass", ("a", "b", "none"), np.array([0, 0, 0, 1]), balanced=True).class_weights
    assert weights[:2] == pytest.approx((4 / (2 * 3), 4 / (2 * 1)))
    assert np.isfinite(weights).all()


def test_the_weight_of_a_rare_label_is_bounded():
    targets = np.zeros((5000, 2), dtype=np.float32)
    targets[0, 0] = 1
    assert make_target("multilabel", ("rare", "never"), targets, balanced=True).class_weights == (100.0, 100.0)


def test_scores_are_probabilities():
    assert scores(logits(1), Target("binary", ("no", "yes"))) == pytest.approx(sigmoid(logits(1)[:, 0]), abs=1e-6)
    of_labels = scores(logits(3), Target("multilabel", ("a", "b", "c")))
    assert of_labels == pytest.approx(sigmoid(logits(3)), abs=1e-6)
    of_classes = scores(logits(3), Target("multiclass", ("a", "b", "c")))
    assert of_classes == pytest.approx(softmax(logits(3)), abs=1e-6)
    assert of_classes.sum(axis=1) == pytest.approx(np.ones(NUM_EXAMPLES), abs=1e-6)


def test_scores_and_losses_of_extreme_logits_are_finite():
    extreme = torch.tensor([[1e4], [-1e4]])
    target = Target("binary", ("no", "yes"))
    assert scores(extreme, target).tolist() == [1.0, 0.0]
    assert value_of(extreme, np.array([0, 1], dtype=np.float32), target) == pytest.approx(1e4)


def test_standard_values_of_a_regression_come_back_in_their_unit():
    targets = regression_targets()
    target = make_target("regression", (), targets, balanced=False)
    standard = (torch.from_numpy(targets) - target.center) / target.scale
    assert standard.mean().item() == pytest.approx(0, abs=1e-4)
    assert standard.std(correction=0).item() == pytest.approx(1, rel=1e-4)
    assert scores(standard[:, None], target) == pytest.approx(targets, rel=1e-6)
    assert value_of(standard[:, None], targets, target) == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("value", [0.1, -7.0, 3e20])
def test_a_regression_target_that_never_varies_has_a_finite_loss(value):
    targets = np.full(1000, value, dtype=np.float32)
    target = make_target("regression", (), targets, balanced=False)
    assert value_of(torch.zeros(1000, 1), targets, target) < 1
    assert scores(torch.zeros(1000, 1), target) == pytest.approx(targets, rel=1e-6)


@pytest.mark.parametrize("size", [1e-12, 1e25])
def test_a_regression_target_of_any_size_is_standardised(size):
    targets = (regression_targets() - 300) * np.float32(size)
    target = make_target("regression", (), targets, balanced=False)
    standard = (torch.from_numpy(targets) - target.center) / target.scale
    assert standard.std(correction=0).item() == pytest.approx(1, rel=1e-3)
    assert scores(standard[:, None], target) == pytest.approx(targets, rel=1e-4)


def test_the_loss_of_a_group_is_that_of_any_of_its_classes():
    logits_BC, targets = logits(3), multilabel_targets()
    alone = Target("multilabel", ("a", "b", "c"))
    grouped = Target("multilabel", ("a", "b", "c"), groups=((0, 1), (1, 2)), group_weight=0.5)
    none = 1 - sigmoid(logits_BC)
    expected = [
        log_loss(targets[:, list(columns)].max(axis=1), 1 - none[:, columns].prod(axis=1))
        for columns in ([0, 1], [1, 2])
    ]
    found = value_of(logits_BC, targets, grouped) - value_of(logits_BC, targets, alone)
    assert found == pytest.approx(0.5 * np.mean(expected), rel=1e-5)


@pytest.mark.parametrize("size", [-200.0, 200.0])
def test_the_loss_of_a_group_and_its_gradient_are_finite_for_sure_predictions(size):
    logits_BC = torch.full((NUM_EXAMPLES, 3), size, requires_grad=True)
    target = Target("multilabel", ("a", "b", "c"), groups=((0, 1, 2),), group_weight=1.0)
    value = loss(logits_BC, torch.from_numpy(multilabel_targets()), target)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(logits_BC.grad).all()
