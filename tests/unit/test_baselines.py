"""Baselines on small data sets whose answer is known."""

import numpy as np
import pytest

from peftide.evaluation.baselines import (
    BASELINES,
    PAIR_BASELINES,
    composition,
    homology_transfer,
    kmers,
    label_rate,
    majority,
)
from peftide.evaluation.features import (
    RESIDUES,
    dipeptide_composition,
    example_features,
    principal_components,
    residue_composition,
    standardise,
)
from peftide.evaluation.homology import Matches, nearest_training_proteins, transfer_to_pairs
from peftide.evaluation.metrics import measure
from peftide.records import Dataset, Proteins

NO_MATCHES = Matches(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty(0))


def random_sequences(generator: np.random.Generator, num_proteins: int, *, charged: np.ndarray) -> tuple[str, ...]:
    """Sequences of 40 to 80 residues, those of `charged` proteins rich in lysine and glutamate."""
    weights = np.where(charged[:, None] & np.isin(list(RESIDUES), ["K", "E"]), 4.0, 1.0)
    weights /= weights.sum(axis=1, keepdims=True)
    lengths = generator.integers(40, 80, size=num_proteins)
    return tuple(
        "".join(generator.choice(list(RESIDUES), size=length, p=weight))
        for length, weight in zip(lengths, weights, strict=True)
    )


def protein_dataset(kind: str, *, num_proteins: int = 240) -> Dataset:
    """Proteins whose target is whether they are charged, split 4 : 1 : 1."""
    generator = np.random.default_rng(0)
    charged = generator.random(num_proteins) < 0.5
    targets = {
        "binary": charged.astype(np.float32),
        "multiclass": charged.astype(np.int64) * 2,  # the middle class occurs nowhere
        "multilabel": np.stack([charged, ~charged, np.zeros_like(charged)], axis=1).astype(np.float32),
        "regression": (charged + 0.1 * generator.normal(size=num_proteins)).astype(np.float32),
    }[kind]
    return Dataset(
        task="protein",
        kind=kind,
        proteins=Proteins(
            tuple(f"P{n}" for n in range(num_proteins)), random_sequences(generator, num_proteins, charged=charged)
        ),
        members_NK=np.arange(num_proteins)[:, None],
        targets=targets,
        classes={"binary": ("no", "yes"), "regression": ()}.get(kind, ("a", "b", "c")),
        split_N=np.array(["train", "train", "train", "train", "val", "test"] * (num_proteins // 6)),
    )


def pair_dataset(members: list, targets: list, splits: list, *, num_proteins: int) -> Dataset:
    return Dataset(
        task="pair",
        kind="binary",
        proteins=Proteins(tuple(f"P{n}" for n in range(num_proteins)), ("ACDEFGHIKL",) * num_proteins),
        members_NK=np.array(members, dtype=np.int64),
        targets=np.array(targets, dtype=np.float32),
        classes=("no", "yes"),
        split_N=np.array(splits),
    )


def test_composition_counts_residues_and_length():
    table = residue_composition(("AACX", "W"))
    assert table[0, RESIDUES.index("A")] == 0.5
    assert table[0, RESIDUES.index("C")] == 0.25
    assert table[0, :20].sum() == 0.75  # X is a residue of the length, but none of the twenty
    assert table[:, 20] == pytest.approx([np.log(4), 0.0])


def test_dipeptides_are_counted_in_order():
    table = dipeptide_composition(("ACAC", "AXA", "M")) ** 2
    assert table[0, RESIDUES.index("A") * 20 + RESIDUES.index("C")] == pytest.approx(2 / 3)
    assert table[0, RESIDUES.index("C") * 20 + RESIDUES.index("A")] == pytest.approx(1 / 3)
    assert table[1:].sum() == 0


def test_features_of_a_pair_do_not_depend_on_the_order_of_its_proteins():
    table = np.random.default_rng(0).normal(size=(5, 4))
    pairs = np.array([[0, 1], [3, 2]])
    assert np.array_equal(example_features(table, pairs), example_features(table, pairs[:, ::-1]))
    assert example_features(table, pairs).shape == (2, 12)
    assert np.array_equal(example_features(table, np.array([[4], [0]])), table[[4, 0]])


def test_principal_components_keep_distances_and_put_the_widest_direction_first():
    generator = np.random.default_rng(0)
    table = generator.normal(size=(50, 3)) * [1.0, 10.0, 3.0]
    turned = principal_components(table, fitted_on=np.arange(50), num_components=3)
    assert np.linalg.norm(turned[0] - turned[1]) == pytest.approx(np.linalg.norm(table[0] - table[1]), rel=1e-5)
    assert turned.std(axis=0)[0] > turned.std(axis=0)[1] > turned.std(axis=0)[2]


def test_a_constant_feature_stays_finite_when_standardised():
    table = standardise(np.array([[1.0, 2.0], [1.0, 4.0], [5.0, 6.0]]), fitted_on=np.array([0, 1]))
    assert np.array_equal(table, [[0, -1], [0, 1], [4, 3]])


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel", "regression"])
@pytest.mark.parametrize("name", [*BASELINES, "homology_transfer"])
def test_every_baseline_scores_both_parts_for_every_kind_of_target(name, kind):
    dataset = protein_dataset(kind)
    baseline = {**BASELINES, "homology_transfer": homology_transfer(NO_MATCHES)}[name]
    found = baseline(dataset, np.random.default_rng(0))
    for split in ("val", "test"):
        part = dataset.part(split)
        assert "num_examples" in measure(kind, part.targets, found.scores[split], classes=dataset.classes)
    assert found.note


@pytest.mark.parametrize("baseline", [composition, kmers])
@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_composition_and_kmers_find_a_property_that_is_written_in_the_residues(baseline, kind):
    dataset = protein_dataset(kind)
    found = baseline(dataset, np.random.default_rng(0))
    metrics = measure(kind, dataset.part("test").targets, found.scores["test"], classes=dataset.classes)
    assert metrics["auroc"] > 0.75 if kind == "binary" else metrics["spearman"] > 0.5


def test_the_same_seed_gives_the_same_baseline():
    dataset = protein_dataset("binary")
    first, second = (composition(dataset, np.random.default_rng(1)) for _ in range(2))
    assert np.array_equal(first.scores["test"], second.scores["test"])
    assert first.note == second.note


def test_no_baseline_looks_at_the_answers_of_the_test():
    dataset = protein_dataset("binary")
    targets = dataset.targets.copy()
    targets[dataset.split_N == "test"] = 1 - targets[dataset.split_N == "test"]
    changed = Dataset(**{**vars(dataset), "targets": targets})
    for baseline in (*BASELINES.values(), homology_transfer(NO_MATCHES)):
        first, second = (baseline(data, np.random.default_rng(0)).scores["test"] for data in (dataset, changed))
        assert np.array_equal(first, second)


def test_a_class_that_training_never_shows_gets_probability_zero():
    found = composition(protein_dataset("multiclass"), np.random.default_rng(0)).scores["test"]
    assert np.all(found[:, 1] == 0)
    assert found.sum(axis=1) == pytest.approx(1.0)
    labels = composition(protein_dataset("multilabel"), np.random.default_rng(0)).scores["test"]
    assert np.all(labels[:, 2] == 0)


def test_the_majority_answers_with_the_training_fractions():
    dataset = protein_dataset("multiclass")
    expected = np.bincount(dataset.part("train").targets, minlength=3) / len(dataset.part("train"))
    assert majority(dataset, np.random.default_rng(0)).scores["test"] == pytest.approx(np.tile(expected, (40, 1)))


def test_label_rates_know_hubs_and_give_unseen_proteins_the_overall_rate():
    members = [[0, 1], [0, 2], [0, 3], [4, 1], [4, 2], [4, 3]]
    asked = [[0, 5], [4, 5], [5, 6], [0, 4]]
    dataset = pair_dataset(
        members + asked + asked,
        [1, 1, 1, 0, 0, 0] + [1, 0, 0, 1] * 2,
        ["train"] * 6 + ["val"] * 4 + ["test"] * 4,
        num_proteins=7,
    )
    hub, lonely, unseen, both = label_rate(dataset, np.random.default_rng(0)).scores["test"]
    assert unseen == pytest.approx(0.5)
    assert hub == pytest.approx(3.5 / 4)  # three positives and one smoothing pair at 0.5
    assert lonely == pytest.approx(0.5 / 4)
    assert both == pytest.approx(0.5)


def test_label_rates_explain_labels_made_from_hubs_and_nothing_on_unseen_proteins():
    generator = np.random.default_rng(0)
    hub_P = np.where(np.arange(200) % 10 == 0, 0.9, 0.2)
    pairs = generator.integers(200, size=(4000, 2))
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    targets = generator.random(len(pairs)) < hub_P[pairs].max(axis=1)
    for case, lowest, highest in (("seen", 0.65, 1.0), ("unseen", 0.5, 0.5)):
        old = (pairs < 100).all(axis=1)
        new = (pairs >= 100).all(axis=1)
        split = np.full(len(pairs), "unused", dtype="<U6")
        split[old if case == "unseen" else np.arange(len(pairs)) % 2 == 0] = "train"
        split[new if case == "unseen" else np.arange(len(pairs)) % 2 == 1] = "test"
        dataset = pair_dataset(pairs.tolist(), targets.tolist(), split.tolist(), num_proteins=200)
        part = dataset.part("test")
        scores = label_rate(dataset, generator).scores["test"]
        assert lowest <= measure("binary", part.targets, scores, classes=dataset.classes)["auroc"] <= highest


def test_a_protein_takes_the_label_of_its_nearest_training_protein():
    dataset = Dataset(
        task="protein",
        kind="multiclass",
        proteins=Proteins(tuple("abcdef"), ("ACDE",) * 6),
        members_NK=np.arange(6)[:, None],
        targets=np.array([0, 1, 1, 0, 0, 0]),
        classes=("x", "y"),
        split_N=np.array(["train", "train", "train", "val", "test", "test"]),
    )
    matches = Matches(  # protein 4: nearest 1 (0.9), then 0; protein 3: a test protein alone, which must not count
        np.array([4, 0, 3]), np.array([1, 4, 4]), np.array([0.9, 0.5, 1.0])
    )
    found = homology_transfer(matches)(dataset, np.random.default_rng(0)).scores
    assert found["test"] == pytest.approx(np.array([[0.1 / 3, 0.9 + 0.1 * 2 / 3], [1 / 3, 2 / 3]]))
    assert found["val"] == pytest.approx(np.array([[1 / 3, 2 / 3]]))


def test_equally_near_proteins_are_averaged():
    dataset = Dataset(
        task="protein",
        kind="regression",
        proteins=Proteins(tuple("abcd"), ("ACDE",) * 4),
        members_NK=np.arange(4)[:, None],
        targets=np.array([1.0, 3.0, 0.0, 0.0], dtype=np.float32),
        classes=(),
        split_N=np.array(["train", "train", "val", "test"]),
    )
    matches = Matches(np.array([3, 3]), np.array([0, 1]), np.array([1.0, 1.0]))
    assert homology_transfer(matches)(dataset, np.random.default_rng(0)).scores["test"].tolist() == [2.0]


def brute_force_pairs(dataset: Dataset, similarity: np.ndarray, asked: np.ndarray) -> list[float]:
    """The definition, one pair at a time."""
    train = dataset.part("train")
    prevalence = train.targets.mean()
    scores = []
    for a, b in asked:
        best = [0.0, 0.0]
        for (c, d), label in zip(train.members_NK, train.targets, strict=True):
            near = max(similarity[a, c] * similarity[b, d], similarity[a, d] * similarity[b, c])
            best[int(label)] = max(best[int(label)], near)
        scores.append(prevalence + (1 - prevalence) * best[1] - prevalence * best[0])
    return scores


@pytest.mark.parametrize("candidates_at_once", [1, 50, 4_000_000])
def test_pairs_take_the_labels_of_the_most_similar_training_pairs(candidates_at_once):
    generator = np.random.default_rng(0)
    pairs = np.array([(a, b) for a in range(20) for b in range(a + 1, 20)])
    split = generator.choice(["train", "val", "test"], p=[0.3, 0.1, 0.6], size=len(pairs))
    dataset = pair_dataset(
        pairs.tolist(), (generator.random(len(pairs)) < 0.3).tolist(), split.tolist(), num_proteins=20
    )
    first, second = np.array([(a, b) for a in range(20) for b in range(20) if a < b and generator.random() < 0.3]).T
    identity = generator.uniform(0.3, 1.0, size=len(first))
    similarity = np.eye(20)
    similarity[first, second] = similarity[second, first] = identity
    asked = dataset.part("test").members_NK
    train = dataset.part("train")
    neighbours = nearest_training_proteins(
        Matches(first, second, identity),
        num_proteins=20,
        train_proteins=np.unique(train.members_NK),
        num_nearest=20,
    )
    found = transfer_to_pairs(
        neighbours, train.members_NK, train.targets, asked_M2=asked, most_candidates=candidates_at_once
    )
    assert found == pytest.approx(np.array(brute_force_pairs(dataset, similarity, asked)))


def test_the_names_of_the_pair_baselines_hold_those_of_the_proteins():
    assert set(BASELINES) < set(PAIR_BASELINES)


def test_only_the_nearest_training_proteins_are_kept_nearest_first():
    matches = Matches(np.array([0, 2, 0, 0, 4]), np.array([1, 0, 3, 1, 0]), np.array([0.4, 0.9, 0.6, 0.5, 0.8]))
    found = nearest_training_proteins(matches, num_proteins=5, train_proteins=np.array([1, 2, 3]), num_nearest=2)
    assert found.near_H[: found.start[1]].tolist() == [2, 3]  # 4 is no training protein, 1 is third
    assert found.near_H[found.start[1] : found.start[2]].tolist() == [1]  # itself
    assert found.num_near.tolist() == [2, 1, 1, 1, 0]


def test_fewer_proteins_than_components_leave_no_component_of_rounding():
    generator = np.random.default_rng(0)
    table = generator.random((60, 400)).astype(np.float32)
    fitted_on = np.arange(40)
    found = principal_components(table, fitted_on=fitted_on, num_components=64)
    assert found.shape == (60, 39)
    assert np.abs(standardise(found, fitted_on=fitted_on)).max() < 20


def test_a_column_that_is_constant_but_for_rounding_is_not_blown_up():
    table = np.full((50, 1), 1 / 3, dtype=np.float32)
    table[-1] += 0.01
    assert np.abs(standardise(table, fitted_on=np.arange(49))).max() < 1
