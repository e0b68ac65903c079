"""Metrics against scikit-learn, scipy and hand-counted examples."""

import json

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics as reference

from peftide.errors import UserError
from peftide.evaluation.metrics import (
    METRIC_NAMES,
    higher_is_better,
    main_metric,
    measure,
    measure_classes,
    statistic,
)

BINARY = ("no", "yes")
ABC = ("a", "b", "c")


@pytest.fixture(params=[0, 1, 2])
def binary_case(request) -> tuple[np.ndarray, np.ndarray]:
    """Targets and scores; the scores are rounded, so that many tie."""
    generator = np.random.default_rng(request.param)
    targets = (generator.random(400) < (0.5, 0.1, 0.9)[request.param]).astype(np.float32)
    scores = np.round(np.clip(0.3 * targets + 0.7 * generator.random(400), 0, 1), 2)
    return targets, scores


@pytest.fixture
def class_case() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(3)
    targets = generator.choice(3, size=300, p=[0.6, 0.3, 0.1])
    logits = generator.normal(size=(300, 3)) + 1.2 * np.eye(3)[targets]
    return targets, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def test_binary_metrics_equal_those_of_scikit_learn(binary_case):
    targets, scores = binary_case
    found = measure("binary", targets, scores, classes=BINARY)
    said = scores >= 0.5
    expected = {
        "aupr": reference.average_precision_score(targets, scores),
        "auroc": reference.roc_auc_score(targets, scores),
        "accuracy": reference.accuracy_score(targets, said),
        "balanced_accuracy": reference.balanced_accuracy_score(targets, said),
        "precision": reference.precision_score(targets, said),
        "recall": reference.recall_score(targets, said),
        "specificity": reference.recall_score(targets, said, pos_label=0),
        "f1": reference.f1_score(targets, said),
        "mcc": reference.matthews_corrcoef(targets, said),
        "brier": reference.brier_score_loss(targets, scores),
        "log_loss": reference.log_loss(targets, np.clip(scores, 1e-7, 1 - 1e-7)),
        "prevalence": targets.mean(),
        "num_examples": 400,
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-12), name


def test_weighted_binary_metrics_equal_those_of_scikit_learn(binary_case):
    targets, scores = binary_case
    weights = np.random.default_rng(9).integers(0, 4, size=len(targets)).astype(np.float64)
    found = measure("binary", targets, scores, classes=BINARY, weights_N=weights)
    said = scores >= 0.5
    expected = {
        "aupr": reference.average_precision_score(targets, scores, sample_weight=weights),
        "auroc": reference.roc_auc_score(targets, scores, sample_weight=weights),
        "f1": reference.f1_score(targets, said, sample_weight=weights),
        "mcc": reference.matthews_corrcoef(targets, said, sample_weight=weights),
        "brier": reference.brier_score_loss(targets, scores, sample_weight=weights),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-12), name


def test_precision_at_recall_is_that_of_the_shortest_list_that_reaches_it():
    targets = np.array([1, 0, 1, 0, 0, 1, 1, 0])
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2])
    found = measure("binary", targets, scores, classes=BINARY)
    assert found["precision_at_recall_25"] == 1.0
    assert found["precision_at_recall_50"] == pytest.approx(2 / 3)
    assert found["precision_at_recall_75"] == pytest.approx(3 / 6)
    assert found["precision_at_recall_90"] == pytest.approx(4 / 7)


def test_calibration_error_of_hand_counted_bins():
    targets = np.array([0, 0, 1, 1])
    scores = np.array([0.11, 0.11, 0.11, 0.95])  # bin 1: promised 0.11, observed 1/3; bin 14: 0.95 against 1
    found = measure("binary", targets, scores, classes=BINARY)
    assert found["ece"] == pytest.approx(0.75 * (1 / 3 - 0.11) + 0.25 * 0.05)


def test_multiclass_metrics_equal_those_of_scikit_learn(class_case):
    targets, scores = class_case
    found = measure("multiclass", targets, scores, classes=ABC)
    said = scores.argmax(axis=1)
    expected = {
        "macro_aupr": reference.average_precision_score(np.eye(3)[targets], scores, average="macro"),
        "macro_auroc": reference.roc_auc_score(targets, scores, multi_class="ovr", average="macro"),
        "macro_f1": reference.f1_score(targets, said, average="macro"),
        "macro_precision": reference.precision_score(targets, said, average="macro"),
        "accuracy": reference.accuracy_score(targets, said),
        "balanced_accuracy": reference.balanced_accuracy_score(targets, said),
        "mcc": reference.matthews_corrcoef(targets, said),
        "log_loss": reference.log_loss(targets, scores),
        "num_classes_scored": 3,
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-12), name


def test_multilabel_metrics_equal_those_of_scikit_learn():
    generator = np.random.default_rng(5)
    targets = (generator.random((200, 3)) < [0.5, 0.2, 0.05]).astype(np.float32)
    scores = np.round(np.clip(0.4 * targets + 0.6 * generator.random((200, 3)), 0, 1), 2)
    found = measure("multilabel", targets, scores, classes=ABC)
    said = scores >= 0.5
    expected = {
        "macro_aupr": reference.average_precision_score(targets, scores, average="macro"),
        "macro_auroc": reference.roc_auc_score(targets, scores, average="macro"),
        "macro_f1": reference.f1_score(targets, said, average="macro"),
        "macro_mcc": np.mean([reference.matthews_corrcoef(targets[:, c], said[:, c]) for c in range(3)]),
        "accuracy": 1 - reference.hamming_loss(targets, said),
        "subset_accuracy": reference.accuracy_score(targets, said),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-12), name


def test_regression_metrics_equal_those_of_scipy_and_scikit_learn():
    generator = np.random.default_rng(6)
    targets = np.round(generator.normal(size=150), 1)
    scores = np.round(targets + generator.normal(size=150), 1)
    found = measure("regression", targets, scores, classes=())
    expected = {
        "spearman": scipy.stats.spearmanr(targets, scores).statistic,
        "pearson": scipy.stats.pearsonr(targets, scores).statistic,
        "rmse": reference.root_mean_squared_error(targets, scores),
        "mae": reference.mean_absolute_error(targets, scores),
        "r2": reference.r2_score(targets, scores),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-12), name


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel", "regression"])
def test_whole_weights_count_an_example_that_often(kind, class_case):
    generator = np.random.default_rng(7)
    classes_N, probabilities_NC = class_case
    targets, scores = {
        "binary": (classes_N == 0, probabilities_NC[:, 0]),
        "multiclass": (classes_N, probabilities_NC),
        "multilabel": (np.eye(3)[classes_N], probabilities_NC),
        "regression": (np.round(probabilities_NC[:, 0], 1), np.round(probabilities_NC[:, 1], 1)),
    }[kind]
    weights_N = generator.integers(0, 4, size=len(targets))
    rows = np.repeat(np.arange(len(targets)), weights_N)
    weighted = statistic(kind, targets, scores, classes=ABC)(weights_N.astype(np.float64))
    repeated = statistic(kind, targets[rows], scores[rows], classes=ABC)(None)
    assert {**weighted, "num_examples": 0} == pytest.approx({**repeated, "num_examples": 0}, abs=1e-12)


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel", "regression"])
def test_every_named_metric_is_measured_and_fit_for_json(kind, class_case):
    classes_N, probabilities_NC = class_case
    one_column = kind in ("binary", "regression")
    targets = {"binary": classes_N == 0, "multiclass": classes_N, "multilabel": np.eye(3)[classes_N]}.get(
        kind, probabilities_NC[:, 1]
    )
    found = measure(kind, targets, probabilities_NC[:, 0] if one_column else probabilities_NC, classes=ABC)
    assert set(METRIC_NAMES[kind]) <= set(found)
    assert main_metric(kind) in METRIC_NAMES[kind]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_class_without_a_positive_is_left_out_of_the_macro_averages(class_case):
    targets, scores = class_case
    two = targets < 2
    found = measure("multiclass", targets[two], scores[two], classes=ABC)
    table = measure_classes("multiclass", targets[two], scores[two], classes=ABC)
    assert found["num_classes_scored"] == 2
    assert found["macro_aupr"] == pytest.approx((table["a"]["aupr"] + table["b"]["aupr"]) / 2)
    assert table["c"]["support"] == 0
    assert "aupr" not in table["c"]


def test_the_table_of_classes_equals_the_report_of_scikit_learn(class_case):
    targets, scores = class_case
    table = measure_classes("multiclass", targets, scores, classes=ABC)
    report = reference.classification_report(targets, scores.argmax(axis=1), target_names=ABC, output_dict=True)
    for column, name in enumerate(ABC):
        assert table[name]["precision"] == pytest.approx(report[name]["precision"])
        assert table[name]["f1"] == pytest.approx(report[name]["f1-score"])
        assert table[name]["support"] == report[name]["support"]
        assert table[name]["auroc"] == pytest.approx(reference.roc_auc_score(targets == column, scores[:, column]))


def test_equal_scores_for_all_give_the_value_of_chance():
    targets = np.array([1, 0, 0, 0, 1, 0, 0, 0])
    found = measure("binary", targets, np.full(8, 0.3), classes=BINARY)
    assert (found["aupr"], found["auroc"], found["mcc"], found["precision"]) == (0.25, 0.5, 0.0, 0.0)
    numbers = measure("regression", np.arange(8.0), np.full(8, 3.5), classes=())
    assert (numbers["spearman"], numbers["pearson"]) == (0.0, 0.0)


def test_what_a_set_of_one_class_cannot_say_is_absent():
    only_negatives = measure("binary", np.zeros(4), np.array([0.1, 0.2, 0.6, 0.7]), classes=BINARY)
    assert {"aupr", "auroc", "recall", "f1", "precision_at_recall_50"}.isdisjoint(only_negatives)
    assert (only_negatives["specificity"], only_negatives["accuracy"], only_negatives["precision"]) == (0.5, 0.5, 0.0)
    only_positives = measure("binary", np.ones(4), np.array([0.1, 0.2, 0.6, 0.7]), classes=BINARY)
    assert {"aupr", "auroc", "specificity"}.isdisjoint(only_positives)
    assert only_positives["recall"] == 0.5
    equal_targets = measure("regression", np.ones(3), np.array([1.0, 2.0, 3.0]), classes=())
    assert set(equal_targets) == {"rmse", "mae", "num_examples"}


def test_scores_that_cannot_be_measured_are_named_by_row():
    targets = np.array([1, 0, 1, 0])
    with pytest.raises(UserError, match="1 of 4 scores are not finite numbers, the first in row 2"):
        measure("binary", targets, np.array([0.1, 0.2, np.nan, 0.3]), classes=BINARY)
    with pytest.raises(UserError, match="2 of 4 scores lie outside 0 to 1, the first in row 1"):
        measure("binary", targets, np.array([0.1, -3.0, 4.0, 0.3]), classes=BINARY)
    with pytest.raises(UserError, match="no examples"):
        measure("binary", np.empty(0), np.empty(0), classes=BINARY)


def test_certain_and_wrong_single_precision_probabilities_have_a_finite_log_loss():
    found = measure("binary", np.array([0.0, 1.0]), np.array([1.0, 0.0], dtype=np.float32), classes=BINARY)
    assert found["log_loss"] == pytest.approx(-np.log(1e-7))


def test_errors_are_better_low_and_agreement_is_better_high():
    lower = {name for names in METRIC_NAMES.values() for name in names if not higher_is_better(name)}
    assert lower == {"brier", "log_loss", "ece", "rmse", "mae"}


def test_the_correlation_of_a_single_answer_is_zero_whatever_the_weights():
    generator = np.random.default_rng(0)
    for _ in range(200):
        truths, weights = generator.integers(5, size=40), 1 / generator.integers(1, 8, size=40)
        said = np.eye(5)[np.full(40, 2)]
        assert measure("multiclass", truths, said, classes=tuple("abcde"), weights_N=weights)["mcc"] == 0
