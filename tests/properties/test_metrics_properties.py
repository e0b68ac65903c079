"""Properties that hold for any targets and scores."""

import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import given
from hypothesis import strategies as st

from peftide.evaluation.metrics import METRIC_NAMES, measure

CLASSES = ("no", "yes")
answers = st.lists(st.tuples(st.booleans(), st.integers(0, 20)), min_size=2, max_size=60).filter(
    lambda rows: len({target for target, _ in rows}) == 2
)


def as_arrays(rows: list[tuple[bool, int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([target for target, _ in rows], dtype=np.float32), np.array([score for _, score in rows]) / 20


@given(answers)
def test_any_tied_scores_are_ranked_as_scikit_learn_ranks_them(rows):
    targets, scores = as_arrays(rows)
    found = measure("binary", targets, scores, classes=CLASSES)
    assert found["aupr"] == pytest.approx(reference.average_precision_score(targets, scores))
    assert found["auroc"] == pytest.approx(reference.roc_auc_score(targets, scores))


@given(answers, st.randoms(use_true_random=False))
def test_the_order_of_the_examples_changes_nothing(rows, random):
    shuffled = list(rows)
    random.shuffle(shuffled)
    first = measure("binary", *as_arrays(rows), classes=CLASSES)
    second = measure("binary", *as_arrays(shuffled), classes=CLASSES)
    assert first == pytest.approx(second)


@given(answers)
def test_a_rising_change_of_scale_keeps_every_metric_of_order(rows):
    targets, scores = as_arrays(rows)
    first = measure("binary", targets, scores, classes=CLASSES)
    second = measure("binary", targets, 0.1 + 0.5 * scores**3, classes=CLASSES)
    of_order = [name for name in METRIC_NAMES["binary"] if name in ("aupr", "auroc") or "recall_" in name]
    assert {name: first[name] for name in of_order} == pytest.approx({name: second[name] for name in of_order})


@given(answers)
def test_swapping_the_classes_mirrors_the_area_under_the_roc(rows):
    targets, scores = as_arrays(rows)
    first = measure("binary", targets, scores, classes=CLASSES)
    second = measure("binary", 1 - targets, 1 - scores, classes=CLASSES)
    assert first["auroc"] == pytest.approx(second["auroc"])


@given(answers)
def test_every_metric_stays_in_its_range(rows):
    found = measure("binary", *as_arrays(rows), classes=CLASSES)
    for name in METRIC_NAMES["binary"]:
        lowest, highest = (-1, 1) if name == "mcc" else (0, 17 if name == "log_loss" else 1)
        assert lowest - 1e-12 <= found[name] <= highest + 1e-12, name


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=3, max_size=40))
def test_correlations_never_leave_minus_one_to_one(rows):
    targets, scores = np.array(rows).T
    found = measure("regression", targets, scores, classes=())
    for name in ("spearman", "pearson"):
        assert -1 <= found.get(name, 0.0) <= 1
