import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from peftide.evaluation.assessment import ADDS, Comparison, assess, correct, num_replicates, verdict
from peftide.evaluation.baselines import BASELINES, BaselineScores, held_out, majority
from peftide.evaluation.calibration import fit_calibration
from peftide.evaluation.intervals import Difference
from peftide.evaluation.metrics import measure
from peftide.records import Dataset, Proteins

SIZES = {"train": 60, "val": 80, "test": 90}


def dataset_of(kind, *, num_classes=3, splits=SIZES):
    generator = np.random.default_rng(0)
    total = sum(splits.values())
    sequences = tuple("".join(generator.choice(list("ACDEFGHIKLMNPQRSTVWY"), 30)) for _ in range(total))
    targets = {
        "binary": generator.integers(2, size=total).astype(np.float32),
        "multiclass": generator.integers(num_classes, size=total),
        "multilabel": generator.integers(2, size=(total, num_classes)).astype(np.float32),
        "regression": generator.normal(size=total).astype(np.float32),
    }[kind]
    return Dataset(
        task="protein",
        kind=kind,
        proteins=Proteins(tuple(f"P{number}" for number in range(total)), sequences),
        members_NK=np.arange(total)[:, None],
        targets=targets,
        classes={"binary": ("no", "yes"), "regression": ()}.get(kind, tuple("abc")),
        split_N=np.repeat(list(splits), list(splits.values())),
    )


def scores_of(dataset, *, noise=0.8):
    """Scores that know something of the answer, overconfident."""
    generator = np.random.default_rng(1)
    scores = {}
    for split in held_out(dataset):
        targets = dataset.part(split).targets
        truths = np.eye(3)[targets] if dataset.kind == "multiclass" else targets
        logits = 4 * (truths - 0.5 + generator.normal(scale=noise, size=truths.shape))
        if dataset.kind == "multiclass":
            scores[split] = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        elif dataset.kind == "regression":
            scores[split] = logits
        else:
            scores[split] = 1 / (1 + np.exp(-logits))
    return scores


def judged(kind, *, baselines=None, cluster_P=None, splits=SIZES, noise=0.8, groups=None):
    dataset = replace(dataset_of(kind, splits=splits), cluster_P=cluster_P)
    raw = scores_of(dataset, noise=noise)
    calibration = None
    if kind != "regression":
        generator = np.random.default_rng(0)
        calibration = fit_calibration(kind, dataset.part("val").targets, raw["val"], generator=generator)
    found = assess(
        dataset, raw, calibration, groups=groups or {}, baselines=baselines or {}, generator=np.random.default_rng(0)
    )
    return dataset, raw, calibration, found


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel", "regression"])
def test_every_kind_of_target_is_assessed_and_fits_json(kind):
    dataset, raw, calibration, found = judged(kind, baselines=BASELINES)
    document = json.loads(json.dumps(found.to_json(), allow_nan=False))
    test = dataset.part("test")
    metrics = measure(kind, test.targets, correct(raw["test"], calibration), classes=test.classes)
    interval = document["intervals"]["test"][found.main_metric]
    assert interval["estimate"] == pytest.approx(metrics[found.main_metric])
    assert interval["low"] < interval["estimate"] < interval["high"]
    assert set(document["baselines"]) == set(BASELINES)
    assert (document["calibration"] is None) == (kind == "regression")
    assert bool(document["thresholds"]) == bool(document["rare_positives"]) == (kind == "binary")
    assert set(document["classes"]) == ({"val", "test"} if kind in ("multiclass", "multilabel") else set())


def test_what_is_measured_is_said_of_corrected_scores_and_the_curve_before_of_raw_ones():
    dataset, raw, calibration, found = judged("binary", noise=1.6)
    assert calibration.kind != "none"
    check = found.calibration_checks["val"]
    assert check.ece["after"] < check.ece["before"]
    truths = dataset.part("val").targets
    assert sum(b.num_examples for b in check.reliability["before"]) == len(truths)
    assert check.ece["before"] == pytest.approx(
        measure("binary", truths, raw["val"], classes=("no", "yes"))["ece"], abs=1e-6
    )


def test_the_confusion_matrix_counts_every_test_example_once():
    for kind in ("binary", "multiclass"):
        dataset, raw, calibration, found = judged(kind)
        counts = np.array(found.confusion["counts"])
        test = dataset.part("test")
        said = correct(raw["test"], calibration)
        said = said.argmax(axis=1) if kind == "multiclass" else said >= 0.5
        assert counts.sum() == len(test)
        assert np.trace(counts) == (said == test.targets).sum()


def test_a_threshold_keeps_its_promise_on_validation():
    dataset, raw, calibration, found = judged("binary", noise=0.5)
    truths, scores = dataset.part("val").targets > 0.5, correct(raw["val"], calibration)
    assert [row.wanted_precision for row in found.thresholds][:2] == [0.5, 0.75]
    for row in found.thresholds:
        said = scores >= row.threshold
        assert truths[said].mean() >= row.wanted_precision
        assert row.recall == pytest.approx(said[truths].mean())


def test_a_model_that_knows_something_adds_to_the_majority_and_one_that_guesses_does_not():
    good = judged("binary", baselines={"majority": majority}, noise=0.5)[-1]
    assert good.verdict.startswith("The language model adds to what simple predictors know: test aupr")
    assert good.baselines["majority"].difference.low > 0
    guess = judged("binary", baselines={"majority": majority}, noise=50.0)[-1]
    assert guess.verdict.startswith("The language model is not shown to add anything")


def test_a_random_order_is_not_called_better_than_the_same_answer_for_all():
    splits = {"train": 60, "val": 40, "test": 50}
    better = 0
    for seed in range(20):
        generator = np.random.default_rng(seed)
        dataset = dataset_of("binary", splits=splits)
        dataset = replace(dataset, targets=(np.arange(150) % 5 == 0).astype(np.float32))
        raw = {split: generator.random(splits[split]) for split in ("val", "test")}
        found = assess(dataset, raw, None, groups={}, baselines={"majority": majority}, generator=generator)
        better += found.verdict.startswith("The language model adds")
    assert better <= 1


def test_a_few_families_are_too_few_for_a_verdict():
    for number, said in ((1, "is of one protein, or of one cluster"), (4, "has only 4 proteins or clusters of them")):
        cluster_P = np.concatenate([np.arange(140), 1000 + np.arange(90) % number])
        found = judged("binary", baselines={"majority": majority}, cluster_P=cluster_P, noise=0.3)[-1]
        assert said in found.verdict
        assert ("aupr" in found.intervals["test"]) == (number > 1)


def test_a_metric_that_the_part_leaves_undefined_is_named_in_the_verdict():
    dataset = dataset_of("binary")
    dataset = replace(dataset, targets=np.where(dataset.split_N == "test", 0, dataset.targets).astype(np.float32))
    raw = scores_of(dataset)
    found = assess(dataset, raw, None, groups={}, baselines={"majority": majority}, generator=np.random.default_rng(0))
    assert "The test part leaves aupr undefined" in found.verdict


def test_the_calibration_error_of_several_classes_is_that_of_the_named_one():
    dataset, raw, calibration, found = judged("multiclass")
    test = dataset.part("test")
    for name, scores in (("before", raw["test"]), ("after", correct(raw["test"], calibration))):
        expected = measure("multiclass", test.targets, scores, classes=test.classes)["ece"]
        assert found.calibration_checks["test"].ece[name] == pytest.approx(expected, abs=1e-6)


def test_a_model_worse_than_a_baseline_is_called_worse():
    def oracle(dataset, generator):
        scores = {split: dataset.part(split).targets.astype(float) for split in held_out(dataset)}
        return BaselineScores(scores, "knows the answers")

    found = judged("binary", baselines={"majority": majority, "oracle": oracle})[-1]
    assert found.verdict.startswith("The language model is worse than a simple predictor")
    assert "oracle" in found.verdict


def test_without_baselines_nothing_is_claimed():
    assert "not known" in judged("binary")[-1].verdict
    assert "not known" in verdict({}, "aupr", None)


def test_without_a_test_part_validation_is_judged():
    found = judged("binary", baselines=BASELINES, splits={"train": 60, "val": 80})[-1]
    assert found.judged == "val"
    assert "validation aupr" in found.verdict
    assert set(found.intervals) == {"val"}


def test_intervals_draw_the_groups_that_are_given():
    num_proteins = sum(SIZES.values())
    alone = judged("binary")[-1].intervals["test"]["auroc"]
    together = judged("binary", cluster_P=np.arange(num_proteins) // 15)[-1].intervals["test"]["auroc"]
    assert together.estimate == alone.estimate
    assert together.high - together.low != alone.high - alone.low


def test_one_family_of_copies_counts_as_one_protein_in_the_metrics_per_cluster():
    """Of 90 test proteins 60 are one cluster: the metrics per cluster are those of weights 1/60 and 1."""
    cluster_P = np.arange(sum(SIZES.values()))
    cluster_P[140:200] = 140
    dataset, raw, calibration, found = judged("binary", cluster_P=cluster_P, baselines=BASELINES)
    test, scores = dataset.part("test"), correct(raw["test"], calibration)
    weights_N = np.r_[np.full(60, 1 / 60), np.ones(30)]
    expected = measure("binary", test.targets, scores, classes=test.classes, weights_N=weights_N)
    assert found.per_cluster["test"] == pytest.approx(expected)
    assert found.per_cluster["test"]["aupr"] != pytest.approx(found.intervals["test"]["aupr"].estimate)
    assert found.baselines["majority"].per_cluster["test"]["aupr"] == pytest.approx(expected["prevalence"])
    assert judged("binary")[-1].per_cluster == {}


def test_a_coarse_group_is_measured_as_the_union_of_its_classes():
    dataset, raw, calibration, found = judged("multilabel", groups={"a or b": (0, 1), "c": (2,)})
    test, scores = dataset.part("test"), correct(raw["test"], calibration)
    union = 1 - (1 - scores[:, 0]) * (1 - scores[:, 1])
    truths = test.targets[:, :2].max(axis=1)
    assert found.groups["test"]["a or b"]["aupr"] == pytest.approx(average_precision_score(truths, union))
    assert found.groups["test"]["c"] == pytest.approx(found.classes["test"]["c"])


def test_large_sets_are_drawn_less_often():
    assert num_replicates(100) == 1000
    assert 200 < num_replicates(20_000) < 1000
    assert num_replicates(10**7) == 200


def test_few_positives_are_too_few_to_say_anything():
    row = Comparison("", {"test": {"aupr": 0.1}}, Difference(0.5, 0.4, 0.6, 0.95, 1000, 1.0), 0.0, {})
    said = verdict({"majority": row}, "aupr", "test", value=0.6, num_groups=150, num_rarer=2)
    assert said.startswith("The test part has only 2 examples of one of the two answers, too few to say")
    assert verdict({"majority": row}, "aupr", "test", value=0.6, num_groups=150, num_rarer=30).startswith(ADDS)
