"""The audit flags what cannot be believed, passes what can, and counts what it says."""

import dataclasses
import json

import numpy as np
import pytest

from peftide.data.audit import audit
from peftide.data.audit_text import render
from peftide.data.negatives import sample_negatives
from peftide.data.splits import random_split
from peftide.errors import UserError
from peftide.records import Dataset, Proteins

AMINO_ACIDS = np.array(list("ACDEFGHIKLMNPQRSTVWY"))


def random_sequences(seed: int, number: int, length: int = 150) -> tuple[str, ...]:
    generator = np.random.default_rng(seed)
    return tuple("".join(generator.choice(AMINO_ACIDS, length)) for _ in range(number))


def make_pairs(members: np.ndarray, targets: np.ndarray, split: np.ndarray, number: int) -> Dataset:
    proteins = Proteins(tuple(f"P{row}" for row in range(number)), random_sequences(0, number))
    return Dataset("pair", "binary", proteins, members, targets.astype(np.float32), ("no", "yes"), split)


def sticky_pairs(seed: int, split_of: str) -> Dataset:
    """Labels that follow from the proteins alone: half of them stick to almost anything."""
    generator = np.random.default_rng(seed)
    members = generator.permutation(np.column_stack(np.triu_indices(100, 1)))[:900]
    stickiness = np.where(np.arange(100) % 2 == 0, 0.9, 0.1)
    targets = generator.random(900) < stickiness[members].mean(axis=1)
    if split_of == "pairs":
        return make_pairs(members, targets, generator.permutation(np.repeat(["train", "test"], [700, 200])), 100)
    part = (members >= 60).sum(axis=1)
    return make_pairs(members, targets, np.array(["train", "unused", "test"])[part], 100)


def test_pairs_split_at_random_are_flagged_for_shared_proteins_and_the_label_rate():
    found = audit(sticky_pairs(0, "pairs"), tool=None)
    assert found.verdict.startswith("FLAGGED")
    assert "test proteins are in train" in found.flags[0]
    assert "label rate" in found.flags[1]
    by_rate = found.shortcuts[0]
    assert by_rate.auroc > 0.7
    assert by_rate.seen_fraction == 1


def test_the_same_pairs_split_by_protein_pass():
    found = audit(sticky_pairs(0, "proteins"), tool="builtin")
    assert found.flags == ()
    assert found.verdict.startswith("PASSED: no protein of one split, nor a close relative of it, is in another")
    assert [shortcut.auroc for shortcut in found.shortcuts] == [0.5, 0.5]
    assert found.overlaps[0].num_shared == 0


def test_without_the_search_the_verdict_says_so():
    found = audit(sticky_pairs(0, "proteins"), tool=None)
    assert found.homology_tool is None
    assert found.overlaps[0].num_similar is None
    assert "similar sequences were not searched" in found.verdict


def test_hubs_that_only_positives_have_are_found_by_their_degree():
    generator = np.random.default_rng(4)
    hubs, others = generator.integers(0, 5, 300), generator.integers(5, 200, 300)
    negatives = np.stack([generator.choice(np.arange(5, 200), 2, replace=False) for _ in range(300)])
    members = np.concatenate([np.column_stack([hubs, others]), negatives])
    split = np.tile(["train", "train", "test"], 200)
    found = audit(make_pairs(members, np.repeat([1, 0], 300), split, 200), tool=None)
    by_degree = {shortcut.predictor: shortcut for shortcut in found.shortcuts}["degree"]
    assert by_degree.auroc > 0.95
    assert any("degree in training reaches AUROC" in flag for flag in found.flags)


def single_proteins(sequences: tuple[str, ...], split: list[str], targets: list[int]) -> Dataset:
    proteins = Proteins(tuple(f"P{row}" for row in range(len(sequences))), sequences)
    members = np.arange(len(sequences))[:, None]
    return Dataset(
        "protein", "binary", proteins, members, np.array(targets, dtype=np.float32), ("a", "b"), np.array(split)
    )


def mutated(sequence: str, identity: float) -> str:
    letters = np.array(list(sequence))
    letters[: round((1 - identity) * len(letters))] = "W"
    return "".join(letters)


def test_relatives_and_copies_in_two_splits_are_counted_apart_and_flagged():
    train = random_sequences(1, 10)
    test = (train[0], mutated(train[1], 0.8), mutated(train[2], 0.55), *random_sequences(2, 7))
    found = audit(single_proteins(train + test, ["train"] * 10 + ["test"] * 10, [0, 1] * 10), tool="builtin")
    overlap = found.overlaps[0]
    assert (overlap.num_shared, overlap.num_identical, overlap.num_similar) == (0, 1, 2)
    assert overlap.leaked_fraction == pytest.approx(0.3)
    assert overlap.identity_histogram is not None
    assert sum(overlap.identity_histogram.values()) == 10
    assert overlap.identity_histogram["identical"] == 1
    assert overlap.identity_histogram["below 40%"] == 7
    assert "1 the same under another id, 2 with a relative of 40 % identity or more" in found.flags[0]
    assert found.verdict.startswith("FLAGGED")


def test_a_verdict_on_peptides_says_that_their_relatives_may_have_been_missed():
    peptides = tuple(sequence[:13] for sequence in random_sequences(4, 12))
    split, labels = ["train"] * 6 + ["test"] * 6, [0, 1] * 6
    short = "relatives of the 12 with under 14 residues may have been missed"
    assert short in audit(single_proteins(peptides, split, labels), tool="builtin").verdict
    long = random_sequences(4, 12)
    assert "under 14" not in audit(single_proteins(long, split, labels), tool="builtin").verdict
    assert "under 14" not in audit(single_proteins(peptides, split, labels), tool=None).verdict


def test_every_two_splits_are_compared():
    shared, *others = random_sequences(3, 29)
    sequences = (*others[:10], *others[10:19], shared, *others[19:28], shared)
    split = ["train"] * 10 + ["val"] * 10 + ["test"] * 10
    found = audit(single_proteins(sequences, split, [0, 1] * 15), tool="builtin")
    leaked = {(overlap.of, overlap.within): overlap.leaked_fraction for overlap in found.overlaps}
    assert leaked == {("test", "train"): 0, ("val", "train"): 0, ("test", "val"): 0.1}


def test_examples_that_return_in_another_split_or_order_are_counted():
    members = np.array([[0, 1], [2, 3], [1, 0], [4, 5]])
    split = np.array(["train", "train", "test", "test"])
    found = audit(make_pairs(members, np.array([1, 0, 1, 0]), split, 6), tool=None)
    assert found.overlaps[0].num_repeated_examples == 1
    assert (found.num_repeated, found.num_contradictory) == (1, 0)
    assert "1 of the 2 test examples are also in train" in found.flags


def test_contradictory_labels_are_counted_under_any_id_of_a_sequence():
    train = random_sequences(5, 4)
    found = audit(single_proteins((*train, train[0]), ["train"] * 5, [0, 1, 0, 1, 1]), tool=None)
    assert found.num_contradictory == 2
    assert "2 of 5 examples occur again with another label" in found.flags
    assert found.overlaps == ()


def test_what_a_strict_reading_would_refuse_is_part_of_audit_and_text():
    found = audit(sticky_pairs(0, "proteins"), tool=None, refused=("self pairs (2 problems)",))
    assert found.refused == ("self pairs (2 problems)",)
    assert found.flags == ()
    assert "until they are mended:\n  - self pairs (2 problems)\n" in render(found)


def test_a_few_leaked_proteins_pass_and_are_told():
    train = random_sequences(13, 100)
    test = (mutated(train[0], 0.8), *random_sequences(14, 99))
    found = audit(single_proteins(train + test, ["train"] * 100 + ["test"] * 100, [0, 1] * 100), tool="builtin")
    told = "at most 1.0% of the proteins of one split are in another or have a close relative there"
    assert found.verdict == f"PASSED: {told}"
    assert "    90% to 100%       1\n" in render(found)


def test_identities_are_drawn_only_where_something_leaks():
    found = audit(sticky_pairs(0, "proteins"), tool="builtin")
    assert "0.0% of 40 leaked" in render(found)
    assert "best identity" not in render(found)


def test_one_split_alone_leaves_nothing_to_compare():
    found = audit(single_proteins(random_sequences(6, 4), ["train"] * 4, [0, 1, 0, 1]))
    assert found.verdict.startswith("NOTHING TO COMPARE")


def test_proteins_of_negatives_only_are_named_and_set_against_chance():
    members = np.array([[0, row] for row in range(1, 7)] + [[row, row + 1] for row in range(1, 6)])
    targets = np.array([0] * 6 + [1] * 5)
    found = audit(make_pairs(members, targets, np.array(["train"] * 11), 7), tool=None)
    negatives, positives = found.one_sided
    assert (negatives.label, negatives.num_proteins, negatives.num_often, negatives.names) == ("no", 1, 1, ("P0",))
    assert negatives.num_by_chance == pytest.approx((6 / 11) ** 6)
    assert positives.num_proteins == 0
    assert any("1 proteins occur only in pairs labelled 'no'" in remark and "P0" in remark for remark in found.remarks)


def test_an_uneven_class_is_remarked_and_not_flagged():
    targets = [0] * 50 + [1] * 50 + [0] * 18 + [1] * 2
    found = audit(single_proteins(random_sequences(7, 120), ["train"] * 100 + ["test"] * 20, targets), tool=None)
    assert found.flags == ()
    assert "class 'b' makes up 50.0% of train but 10.0% of test" in found.remarks


def test_long_proteins_and_classes_are_counted_in_each_split():
    sequences = (*random_sequences(8, 3), *random_sequences(9, 2, length=2000))
    found = audit(single_proteins(sequences, ["train"] * 3 + ["test"] * 2, [0, 1, 1, 0, 1]), tool=None)
    train, test = found.splits
    assert (train.num_long_proteins, test.num_long_proteins) == (0, 2)
    assert train.class_counts == {"a": 1, "b": 2}


@pytest.mark.parametrize("kind", ["regression", "multilabel", "multiclass"])
def test_other_targets_than_binary_can_be_audited(kind: str):
    targets = {
        "regression": np.linspace(0, 1, 8, dtype=np.float32),
        "multilabel": np.eye(2, dtype=np.float32)[[0, 1] * 4],
        "multiclass": np.array([0, 1] * 4),
    }[kind]
    dataset = single_proteins(random_sequences(10, 8), ["train"] * 4 + ["test"] * 4, [0] * 8)
    found = audit(dataclasses.replace(dataset, kind=kind, targets=targets), tool=None)
    assert found.verdict.startswith("PASSED")
    assert found.splits[0].class_counts == ({} if kind == "regression" else {"a": 2, "b": 2})
    assert found.shortcuts == ()


def test_an_audit_is_ready_for_json_and_the_text_shows_verdict_flags_and_counts():
    found = audit(sticky_pairs(0, "pairs"), tool="builtin")
    assert json.loads(json.dumps(dataclasses.asdict(found)))["verdict"] == found.verdict
    text = render(found)
    assert text.startswith(found.verdict)
    assert all(f"  - {sentence}" in text for sentence in (*found.flags, *found.remarks))
    assert "train  700 examples, 100 proteins" in text
    assert "label rate  AUROC" in text


def test_a_split_by_protein_passes_the_audit():
    generator = np.random.default_rng(11)
    members = np.stack([generator.choice(150, 2, replace=False) for _ in range(400)])
    dataset = make_pairs(members, generator.random(400) < 0.5, np.array(["train"] * 400), 150)
    unsplit = dataclasses.replace(dataset, split_N=None)
    done, _ = random_split(unsplit, val_fraction=0.1, test_fraction=0.1, generator=generator)
    found = audit(done, tool="builtin")
    assert found.flags == ()
    assert found.num_unused == 400 - sum(split.num_examples for split in found.splits)


def positives() -> Dataset:
    members = np.array([[0, 1], [0, 2], [0, 3], [4, 5], [5, 6], [6, 7], [7, 4]])
    split = np.array(["train"] * 3 + ["test"] * 4)
    return make_pairs(members, np.ones(7), split, 8)


def test_negatives_stay_within_the_split_of_their_proteins():
    dataset, notes = sample_negatives(positives(), ratio=0.5, generator=np.random.default_rng(0))
    negatives = dataset.subset(np.arange(7, len(dataset)))
    assert set(negatives.part("test").members_NK.ravel().tolist()) <= {4, 5, 6, 7}
    assert set(negatives.part("train").members_NK.ravel().tolist()) <= {0, 1, 2, 3}
    assert notes[0] == "2 presumed negatives sampled for 4 positives in test"


def test_a_hub_bound_to_all_gets_fewer_negatives_and_a_note():
    dataset, notes = sample_negatives(positives(), generator=np.random.default_rng(0))
    negatives = dataset.part("train").subset(dataset.part("train").targets == 0)
    assert 0 not in negatives.members_NK
    assert "fewer than asked" in notes[1]


def test_a_positive_under_another_id_of_the_same_sequences_is_no_negative():
    sequences = random_sequences(12, 3)
    proteins = Proteins(("A", "B", "C", "A2"), (*sequences, sequences[0]))
    members = np.array([[0, 1], [3, 2]])
    dataset = Dataset("pair", "binary", proteins, members, None, ())
    done, _ = sample_negatives(dataset, ratio=5, generator=np.random.default_rng(0))
    assert {frozenset(pair) for pair in done.members_NK[2:].tolist()} <= {frozenset({1, 2})}
    assert done.classes == ("0", "1")


@pytest.mark.parametrize(
    ("change", "ratio", "message"),
    [
        ({}, 0.0, "a number above 0"),
        ({"targets": np.array([1, 1, 1, 0, 1, 1, 1])}, 1.0, "1 of 7 pairs are labelled other than positive"),
        ({"members_NK": np.arange(7)[:, None]}, 1.0, "for pairs only"),
    ],
)
def test_negatives_are_refused_where_they_make_no_sense(change: dict, ratio: float, message: str):
    with pytest.raises(UserError, match=message):
        sample_negatives(dataclasses.replace(positives(), **change), ratio=ratio, generator=np.random.default_rng(0))
