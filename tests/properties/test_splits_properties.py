"""Whatever the pairs, clusters and seeds: what a split and sampled negatives promise holds."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from peftide.data.clusters import Clustering
from peftide.data.negatives import sample_negatives
from peftide.data.partition import deal_groups
from peftide.data.splits import cluster_split
from peftide.errors import UserError
from peftide.records import SPLITS, UNUSED, Dataset, Proteins

NUM_PROTEINS = 24
pairs = st.lists(st.tuples(*[st.integers(0, NUM_PROTEINS - 1)] * 2), min_size=20, max_size=60)
clusters = st.lists(st.integers(0, 9), min_size=NUM_PROTEINS, max_size=NUM_PROTEINS)


def make_dataset(members: list[tuple[int, int]], targets: np.ndarray | None) -> Dataset:
    ids = tuple(f"P{row}" for row in range(NUM_PROTEINS))
    return Dataset("pair", "binary", Proteins(ids, ids), np.array(members), targets, ("no", "yes"))


@settings(max_examples=15, deadline=None)
@given(members=pairs, cluster=clusters, seed=st.integers(0, 99))
def test_a_pair_has_the_split_of_both_of_its_clusters_or_none(
    members: list[tuple[int, int]], cluster: list[int], seed: int
):
    dataset, clustering = make_dataset(members, None), Clustering(np.array(cluster), 0.3, 0.5, "drawn")
    try:
        done, _ = cluster_split(
            dataset, clustering, val_fraction=0.2, test_fraction=0.2, generator=np.random.default_rng(seed)
        )
    except UserError:  # too few clusters to give each split some
        assume(False)
        raise
    clusters_of = {name: set(clustering.cluster_P[done.part(name).members_NK].ravel().tolist()) for name in SPLITS}
    assert all(clusters_of.values())
    assert sum(map(len, clusters_of.values())) == len(set.union(*clusters_of.values()))
    within_N = clustering.cluster_P[done.members_NK][:, 0] == clustering.cluster_P[done.members_NK][:, 1]
    assert not (done.split_N[within_N] == UNUSED).any()
    assert (done.members_NK == dataset.members_NK).all()


@settings(max_examples=100, deadline=None)
@given(sizes=st.lists(st.integers(1, 4), min_size=40, max_size=80), seed=st.integers(0, 99))
def test_groups_are_dealt_out_in_the_asked_fractions_to_within_a_group(sizes: list[int], seed: int):
    count_GC = np.eye(2)[np.arange(len(sizes)) % 2] * np.array(sizes)[:, None]
    wanted = np.array([0.6, 0.2, 0.2])
    part_G = deal_groups(count_GC, fractions_S=wanted, generator=np.random.default_rng(seed))
    got_SC = np.stack([count_GC[part_G == part].sum(axis=0) for part in range(3)])
    assert (np.abs(got_SC - wanted[:, None] * count_GC.sum(axis=0)) <= max(sizes)).all()


@settings(max_examples=60, deadline=None)
@given(members=pairs, seed=st.integers(0, 99), ratio=st.sampled_from([0.5, 1.0, 3.0]))
def test_no_negative_is_a_known_positive_a_self_pair_or_a_repetition(
    members: list[tuple[int, int]], seed: int, ratio: float
):
    done, _ = sample_negatives(make_dataset(members, None), ratio=ratio, generator=np.random.default_rng(seed))
    assert (done.targets[: len(members)] == 1).all()
    negatives = [frozenset(pair) for pair in done.members_NK[len(members) :].tolist()]
    assert (done.targets[len(members) :] == 0).all()
    assert len(set(negatives)) == len(negatives)
    assert not set(negatives) & {frozenset(pair) for pair in members}
    assert all(len(pair) == 2 for pair in negatives)


@pytest.mark.parametrize("seed", range(5))
def test_every_protein_is_in_as_many_negatives_as_positives(seed: int):
    generator = np.random.default_rng(seed)
    weight_P = generator.lognormal(size=300)
    members = np.stack([generator.choice(300, 2, replace=False, p=weight_P / weight_P.sum()) for _ in range(600)])
    ids = tuple(f"P{row}" for row in range(300))
    dataset = Dataset("pair", "binary", Proteins(ids, ids), members, None, ("no", "yes"))
    done, _ = sample_negatives(dataset, generator=generator)
    degrees = [np.bincount(part.ravel(), minlength=300) for part in (members, done.members_NK[600:])]
    np.testing.assert_array_equal(*degrees)
