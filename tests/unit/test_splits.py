"""Splits: nothing is in two of them, sizes and labels as asked, as many pairs kept as can be."""

from collections.abc import Callable

import numpy as np
import pytest

from peftide.data.clusters import Clustering
from peftide.data.splits import classify_test_pairs, cluster_split, random_split
from peftide.errors import UserError
from peftide.records import SPLITS, UNUSED, Dataset, Proteins


def make_proteins(number: int) -> Proteins:
    """Ids P0, P1, ... with a sequence of their own each."""
    generator = np.random.default_rng(99)
    letters = np.array(list("ACDEFGHIKLMNPQRSTVWY"))
    return Proteins(
        ids=tuple(f"P{row}" for row in range(number)),
        sequences=tuple("".join(generator.choice(letters, 30)) for _ in range(number)),
    )


def make_pairs(members: np.ndarray, targets: np.ndarray | None, number: int) -> Dataset:
    return Dataset("pair", "binary", make_proteins(number), members, targets, ("no", "yes"))


def random_pairs(seed: int, *, number: int, num_pairs: int) -> Dataset:
    generator = np.random.default_rng(seed)
    members = np.stack([generator.choice(number, 2, replace=False) for _ in range(num_pairs)])
    return make_pairs(members, (generator.random(num_pairs) < 0.5).astype(np.float32), number)


def split_sets(dataset: Dataset) -> dict[str, set[str]]:
    """Sequences in the examples of each split."""
    return {name: {dataset.proteins.sequences[row] for row in dataset.part(name).members_NK.ravel()} for name in SPLITS}


def fractions(dataset: Dataset) -> np.ndarray:
    """Of the kept examples."""
    sizes = np.array([(dataset.split_N == name).sum() for name in SPLITS])
    return sizes / sizes.sum()


def test_hundreds_of_rare_labels_do_not_bend_the_sizes_and_the_common_ones_are_spread():
    generator = np.random.default_rng(0)
    targets = np.zeros((1500, 401), np.float32)
    for label in range(400):
        targets[generator.choice(1500, 3, replace=False), label] = 1
    targets[generator.choice(1500, 100, replace=False), 400] = 1
    classes = tuple(f"L{label}" for label in range(401))
    dataset, notes = random_split(
        Dataset("protein", "multilabel", make_proteins(1500), np.arange(1500)[:, None], targets, classes),
        val_fraction=0.1,
        test_fraction=0.1,
        generator=np.random.default_rng(1),
    )
    assert fractions(dataset) == pytest.approx([0.8, 0.1, 0.1], abs=0.005)
    common = [dataset.part(name).targets[:, 400].sum() for name in SPLITS]
    assert common == pytest.approx([80, 10, 10], abs=1)
    absent = {note.split()[1]: note for note in notes if "has no example of" in note}
    assert absent["test"].count(" L") == 10
    assert absent["test"].endswith("more")


def test_no_protein_of_a_pair_is_in_two_splits():
    dataset, _ = random_split(
        random_pairs(0, number=120, num_pairs=300),
        val_fraction=0.1,
        test_fraction=0.1,
        generator=np.random.default_rng(0),
    )
    sets = split_sets(dataset)
    assert not sets["train"] & sets["val"]
    assert not sets["train"] & sets["test"]
    assert not sets["val"] & sets["test"]


def test_pairs_across_splits_are_unused_and_counted_in_a_note():
    dataset, notes = random_split(
        random_pairs(1, number=60, num_pairs=300),
        val_fraction=0.2,
        test_fraction=0.2,
        generator=np.random.default_rng(0),
    )
    num_unused = int((dataset.split_N == UNUSED).sum())
    assert num_unused > 0
    assert any(note.startswith(f"{num_unused} of 300 pairs") for note in notes)


def test_separate_communities_are_not_torn_apart():
    generator = np.random.default_rng(3)
    blocks = [(0, 80, 800), (80, 105, 100), (105, 130, 100)]
    members = np.concatenate([generator.integers(low, high, (size, 2)) for low, high, size in blocks])
    dataset, _ = random_split(
        make_pairs(members, generator.integers(0, 2, 1000).astype(np.float32), 130),
        val_fraction=0.1,
        test_fraction=0.1,
        generator=np.random.default_rng(0),
    )
    assert (dataset.split_N != UNUSED).mean() > 0.98


def test_far_more_pairs_are_kept_than_by_drawing_proteins_at_random():
    drawn_at_random = 0.6**2 + 0.2**2 + 0.2**2
    dataset, _ = random_split(
        random_pairs(4, number=1500, num_pairs=2500),
        val_fraction=0.2,
        test_fraction=0.2,
        generator=np.random.default_rng(0),
    )
    assert (dataset.split_N != UNUSED).mean() > drawn_at_random + 0.3


@pytest.mark.parametrize("asked", [(0.1, 0.1), (0.2, 0.2), (0.3, 0.1)])
def test_kept_pairs_have_the_asked_fractions_and_the_same_balance_of_labels(asked: tuple[float, float]):
    dataset, _ = random_split(
        random_pairs(5, number=800, num_pairs=3000),
        val_fraction=asked[0],
        test_fraction=asked[1],
        generator=np.random.default_rng(1),
    )
    np.testing.assert_allclose(fractions(dataset)[1:], asked, atol=0.02)
    rates = [dataset.part(name).targets.mean() for name in SPLITS]
    assert max(rates) - min(rates) < 0.06


def test_proteins_are_split_exactly_as_asked_in_every_class():
    targets = np.repeat(np.arange(3), [600, 300, 50])
    dataset, notes = random_split(
        Dataset("protein", "multiclass", make_proteins(950), np.arange(950)[:, None], targets, ("a", "b", "c")),
        val_fraction=0.1,
        test_fraction=0.2,
        generator=np.random.default_rng(0),
    )
    counts = [np.bincount(dataset.part(name).targets).tolist() for name in SPLITS]
    assert counts == [[420, 210, 35], [60, 30, 5], [120, 60, 10]]
    assert notes == ("split by protein: 665 train (70.0%), 95 val (10.0%), 190 test (20.0%)",)


def test_a_class_of_three_proteins_reaches_every_split():
    targets = np.repeat(np.arange(2), [97, 3])
    dataset, _ = random_split(
        Dataset("protein", "multiclass", make_proteins(100), np.arange(100)[:, None], targets, ("usual", "rare")),
        val_fraction=0.1,
        test_fraction=0.1,
        generator=np.random.default_rng(0),
    )
    assert [int(dataset.part(name).targets.sum()) for name in SPLITS] == [1, 1, 1]


def test_a_number_is_spread_evenly_over_the_splits():
    targets = np.random.default_rng(0).lognormal(size=1000).astype(np.float32)
    dataset, _ = random_split(
        Dataset("protein", "regression", make_proteins(1000), np.arange(1000)[:, None], targets, ()),
        val_fraction=0.1,
        test_fraction=0.1,
        generator=np.random.default_rng(0),
    )
    medians = [np.median(dataset.part(name).targets) for name in SPLITS]
    np.testing.assert_allclose(medians, np.median(targets), rtol=0.15)


def test_a_label_of_many_that_is_missing_in_a_split_is_noted_and_not_refused():
    targets = np.zeros((60, 3), dtype=np.float32)
    targets[:, 0], targets[::2, 1], targets[7, 2] = 1, 1, 1
    dataset, notes = random_split(
        Dataset("symmetry", "multilabel", make_proteins(60), np.arange(60)[:, None], targets, ("C1", "C2", "I")),
        val_fraction=0.2,
        test_fraction=0.2,
        generator=np.random.default_rng(0),
    )
    assert dataset.part("train").targets[:, 2].sum() == 1
    assert "split val has no example of I" in notes
    assert "split test has no example of I" in notes


def test_identical_sequences_under_two_ids_stay_together():
    proteins = make_proteins(50)
    doubled = Proteins(proteins.ids + tuple(f"copy of {name}" for name in proteins.ids), proteins.sequences * 2)
    targets = np.tile(np.arange(50) % 2, 2).astype(np.float32)
    dataset, _ = random_split(
        Dataset("protein", "binary", doubled, np.arange(100)[:, None], targets, ("no", "yes")),
        val_fraction=0.2,
        test_fraction=0.2,
        generator=np.random.default_rng(0),
    )
    assert (dataset.split_N[:50] == dataset.split_N[50:]).all()


def test_the_same_seed_gives_the_same_split_and_another_seed_another():
    dataset = random_pairs(6, number=200, num_pairs=500)

    def split(seed: int) -> list[str]:
        generator = np.random.default_rng(seed)
        return random_split(dataset, val_fraction=0.1, test_fraction=0.1, generator=generator)[0].split_N.tolist()

    assert split(0) == split(0)
    assert split(0) != split(1)


def test_pairs_without_labels_can_be_split():
    dataset = random_pairs(7, number=200, num_pairs=500)
    unlabelled = make_pairs(dataset.members_NK, None, 200)
    done, _ = random_split(unlabelled, val_fraction=0.1, test_fraction=0.1, generator=np.random.default_rng(0))
    np.testing.assert_allclose(fractions(done), [0.8, 0.1, 0.1], atol=0.03)


def test_a_split_of_fraction_zero_is_not_made():
    done, _ = random_split(
        random_pairs(8, number=100, num_pairs=200),
        val_fraction=0.2,
        test_fraction=0,
        generator=np.random.default_rng(0),
    )
    assert set(done.split_N.tolist()) <= {"train", "val", UNUSED}


def test_a_class_too_small_for_the_splits_is_refused_with_what_to_do():
    targets = np.zeros(40, dtype=np.float32)
    targets[:2] = 1
    dataset = Dataset("protein", "binary", make_proteins(40), np.arange(40)[:, None], targets, ("no", "yes"))
    with pytest.raises(UserError, match=r"class 'yes' \(2 examples, 2 proteins\) has no example in .* bring more"):
        random_split(dataset, val_fraction=0.1, test_fraction=0.1, generator=np.random.default_rng(0))


def test_a_star_of_pairs_cannot_be_split_and_the_error_says_so():
    members = np.column_stack([np.zeros(30, dtype=np.int64), np.arange(1, 31)])
    dataset = make_pairs(members, (np.arange(30) % 2).astype(np.float32), 31)
    with pytest.raises(UserError, match="got no example"):
        random_split(dataset, val_fraction=0.1, test_fraction=0.1, generator=np.random.default_rng(0))


@pytest.mark.parametrize(
    ("val_fraction", "test_fraction", "message"),
    [(-0.1, 1.5, r"val_fraction is -0.1[\s\S]*test_fraction is 1.5"), (0.5, 0.5, "nothing is left to train on")],
)
def test_impossible_fractions_are_refused_together(val_fraction: float, test_fraction: float, message: str):
    with pytest.raises(UserError, match=message):
        random_split(
            random_pairs(9, number=20, num_pairs=20),
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            generator=np.random.default_rng(0),
        )


def test_an_empty_table_is_refused():
    dataset = make_pairs(np.zeros((0, 2), dtype=np.int64), np.zeros(0, dtype=np.float32), 3)
    with pytest.raises(UserError, match="no examples"):
        random_split(dataset, val_fraction=0.1, test_fraction=0.1, generator=np.random.default_rng(0))


def cluster_of(number: int, num_clusters: int) -> Clustering:
    return Clustering(np.arange(number) % num_clusters, identity=0.3, coverage=0.5, tool="by hand")


@pytest.mark.parametrize("make", [lambda: random_pairs(10, number=300, num_pairs=400), lambda: single_proteins(300)])
def test_no_cluster_is_in_two_splits(make: Callable[[], Dataset]):
    dataset, notes = cluster_split(
        make(), cluster_of(300, 100), val_fraction=0.1, test_fraction=0.1, generator=np.random.default_rng(0)
    )
    clusters = {name: set((dataset.part(name).members_NK % 100).ravel().tolist()) for name in SPLITS}
    assert not clusters["train"] & clusters["val"]
    assert not clusters["train"] & clusters["test"]
    assert not clusters["val"] & clusters["test"]
    assert notes[0] == "300 proteins in 100 clusters at 30% identity over 50% of either protein (largest: 3; by hand)"


def single_proteins(number: int) -> Dataset:
    targets = (np.arange(number) % 7 == 0).astype(np.float32)
    return Dataset("protein", "binary", make_proteins(number), np.arange(number)[:, None], targets, ("no", "yes"))


def test_a_large_family_goes_to_training_and_sizes_stay_as_asked():
    clusters = np.concatenate([np.zeros(120, dtype=np.int64), np.arange(1, 281)])
    dataset, _ = cluster_split(
        single_proteins(400),
        Clustering(clusters, 0.3, 0.5, "by hand"),
        val_fraction=0.2,
        test_fraction=0.2,
        generator=np.random.default_rng(0),
    )
    assert set(dataset.split_N[:120].tolist()) == {"train"}
    np.testing.assert_allclose(fractions(dataset), [0.6, 0.2, 0.2], atol=0.01)


def test_test_pairs_are_classed_by_how_many_of_their_proteins_training_has_seen():
    members = np.array([[0, 1], [0, 1], [1, 2], [3, 4], [5, 5], [2, 3]])
    split = np.array(["train", "test", "test", "test", UNUSED, "val"])
    dataset = Dataset("pair", "binary", make_proteins(6), members, None, ("no", "yes"), split)
    assert classify_test_pairs(dataset).tolist() == ["", "C1", "C2", "C3", "C3", ""]
    assert classify_test_pairs(dataset, np.array([0, 1, 2, 0, 4, 1])).tolist() == ["", "C1", "C2", "C2", "C1", ""]


@pytest.mark.parametrize("number", [10, 20, 30, 50, 80, 200])
def test_a_few_proteins_with_numbers_are_split_as_asked(number):
    targets = np.random.default_rng(1).normal(size=number).astype(np.float32)
    dataset = Dataset("protein", "regression", make_proteins(number), np.arange(number)[:, None], targets, ())
    done, _ = random_split(dataset, val_fraction=0.1, test_fraction=0.1, generator=np.random.default_rng(0))
    counts = [int((done.split_N == name).sum()) for name in SPLITS]
    np.testing.assert_allclose(counts, [0.8 * number, 0.1 * number, 0.1 * number], atol=1)
