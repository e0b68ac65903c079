"""Steps of an epoch: sizes, sharing of proteins, chunks of tokens."""

import numpy as np
import pytest

from peftide.training.batches import (
    cluster_batches,
    encoding_cost,
    pair_batches,
    plain_batches,
    token_chunks,
    unique_members,
)


def clique(num_proteins: int) -> np.ndarray:
    return np.argwhere(np.triu(np.ones((num_proteins, num_proteins)), 1))


def star(num_partners: int) -> np.ndarray:
    return np.stack([np.zeros(num_partners, np.int64), np.arange(1, num_partners + 1)], axis=1)


def matching(num_pairs: int) -> np.ndarray:
    return np.arange(2 * num_pairs).reshape(num_pairs, 2)


def random_lengths(members_N2: np.ndarray) -> np.ndarray:
    return np.random.default_rng(3).integers(50, 1024, members_N2.max() + 1)


def built(members_N2: np.ndarray, *, seed: int = 0, **settings) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    settings = {"batch_examples": 64} | settings
    return pair_batches(members_N2, random_lengths(members_N2), generator=generator, **settings)


def cost(batches: list[np.ndarray], members_N2: np.ndarray) -> int:
    return encoding_cost(batches, members_N2, random_lengths(members_N2)).encoded_tokens


def test_plain_batches_hold_every_row_once_in_equal_steps():
    batches = plain_batches(1000, batch_examples=64, generator=np.random.default_rng(0))
    assert sorted(np.concatenate(batches)) == list(range(1000))
    assert {len(batch) for batch in batches} == {62, 63}
    assert plain_batches(0, batch_examples=64, generator=np.random.default_rng(0)) == []


def test_no_pairs_make_no_steps():
    assert (
        pair_batches(np.empty((0, 2), int), np.empty(0, int), batch_examples=8, generator=np.random.default_rng()) == []
    )


def test_one_pair_makes_one_step():
    assert [batch.tolist() for batch in built(np.array([[0, 1]]))] == [[0]]


def test_pairs_that_share_nothing_cost_what_both_members_cost():
    members_N2 = matching(200)
    result = encoding_cost(built(members_N2), members_N2, random_lengths(members_N2))
    assert result.encoded_tokens == result.member_tokens
    assert result.reuse == 1


def test_a_star_encodes_its_hub_once_a_step():
    members_N2 = star(640)
    lengths = random_lengths(members_N2)
    assert cost(built(members_N2), members_N2) == lengths[1:].sum() + 10 * lengths[0]


def test_a_clique_costs_less_than_half_of_shuffled_steps():
    members_N2 = clique(60)
    shuffled = plain_batches(len(members_N2), batch_examples=64, generator=np.random.default_rng(0))
    assert cost(built(members_N2), members_N2) < 0.5 * cost(shuffled, members_N2)


def test_separate_cliques_are_each_encoded_in_one_step():
    members_N2 = np.concatenate([clique(12) + 12 * number for number in range(20)])
    batches = built(np.random.default_rng(0).permutation(members_N2), batch_examples=66)
    assert len(batches) == 20
    members_N2 = np.random.default_rng(0).permutation(members_N2)
    assert all(len(np.unique(members_N2[batch])) == 12 for batch in batches)


def test_growth_prefers_short_proteins():
    members_N2 = np.concatenate([star(4), [[0, 5], [0, 6]]])
    tokens_P = np.array([100, 1000, 1000, 1000, 1000, 10, 10])
    generator = np.random.default_rng(0)
    batches = pair_batches(members_N2, tokens_P, batch_examples=3, generator=generator, variety=0.0)
    assert any({4, 5} <= set(batch.tolist()) for batch in batches)


def test_self_pairs_and_repeated_pairs_are_kept():
    members_N2 = np.array([[0, 0], [1, 0], [0, 1], [0, 1], [2, 2], [2, 2]])
    batches = built(members_N2, batch_examples=2)
    assert sorted(np.concatenate(batches)) == list(range(6))
    assert [len(batch) for batch in batches] == [2, 2, 2]


def test_strata_are_shared_out_evenly_on_a_graph_whose_dense_part_is_all_of_one_class():
    members_N2 = np.concatenate([clique(40), matching(780) + 40])
    classes_N = np.repeat([1, 0], 780)
    batches = built(members_N2, strata_N=classes_N, batch_examples=60)
    assert [int(classes_N[batch].sum()) for batch in batches] == [30] * 26
    skewed = [classes_N[batch].mean() for batch in built(members_N2, batch_examples=60)]
    assert np.std(skewed) > 0.3


def test_rare_strata_are_spread_over_the_steps():
    members_N2 = clique(50)
    classes_N = np.random.default_rng(1).permutation(np.repeat([0, 1, 2], [1200, 20, 5]))
    counts = np.stack([np.bincount(classes_N[batch], minlength=3) for batch in built(members_N2, strata_N=classes_N)])
    assert (counts.max(axis=0) - counts.min(axis=0) <= 1).all()
    assert set(counts.sum(axis=1)) <= {61, 62}


def test_variety_trades_reuse_for_other_steps_in_other_epochs():
    members_N2 = clique(120)
    steady = [built(members_N2, seed=seed, variety=0.0) for seed in (1, 2)]
    varied = [built(members_N2, seed=seed, variety=2.0) for seed in (1, 2)]
    assert cost(steady[0], members_N2) < cost(varied[0], members_N2)
    assert share_together(*steady, len(members_N2)) > share_together(*varied, len(members_N2))


def share_together(first: list[np.ndarray], second: list[np.ndarray], num_rows: int) -> float:
    """Of two rows that share a step in `first`, how often they do in `second`."""
    step_of_row = np.empty(num_rows, int)
    for number, batch in enumerate(second):
        step_of_row[batch] = number
    counts = [np.bincount(step_of_row[batch]) for batch in first]
    pairs = sum(len(batch) * (len(batch) - 1) for batch in first)
    return sum((count * (count - 1)).sum() for count in counts) / pairs


def test_unique_members_index_back_to_the_members():
    members_BK = np.array([[7, 3], [3, 9], [7, 7]])
    rows, local_BK = unique_members(members_BK)
    assert rows.tolist() == [3, 7, 9]
    assert (rows[local_BK] == members_BK).all()


def test_chunks_are_few_and_balanced():
    tokens_P = np.random.default_rng(0).integers(50, 1024, 300)
    chunks = token_chunks(tokens_P, token_budget=16384)
    loads = [int(tokens_P[chunk].sum()) for chunk in chunks]
    assert len(chunks) == -(-tokens_P.sum() // 16384)
    assert max(loads) <= 16384
    assert max(loads) <= 1.01 * min(loads)


def test_a_protein_beyond_the_budget_gets_its_own_chunk():
    chunks = token_chunks(np.array([30, 900, 40, 800]), token_budget=100)
    assert [chunk.tolist() for chunk in chunks] == [[1], [3], [0, 2]]


@pytest.mark.parametrize("tokens", [[], [5], [100, 100, 100]])
def test_chunks_hold_every_protein_once_at_the_edges(tokens):
    chunks = token_chunks(np.array(tokens, dtype=np.int64), token_budget=100)
    assert sorted(row for chunk in chunks for row in chunk) == list(range(len(tokens)))
    assert len(chunks) == len(tokens)


def test_encoding_cost_counts_by_hand():
    members_N2 = np.array([[0, 1], [0, 2], [2, 2]])
    result = encoding_cost([np.array([0, 1]), np.array([2])], members_N2, np.array([10, 20, 30]))
    assert (result.encoded_tokens, result.member_tokens) == (60 + 30, 30 + 40 + 60)
    assert result.reuse == pytest.approx(130 / 90)


def test_every_cluster_comes_up_as_often_as_any_other_and_its_members_in_turn():
    cluster_N = np.repeat([7, 3, 5], [900, 90, 10])
    batches = cluster_batches(cluster_N, batch_examples=64, generator=np.random.default_rng(0))
    rows = np.concatenate(batches)
    assert len(rows) == 1000
    assert max(map(len, batches)) <= 64
    times = np.bincount(rows, minlength=1000)
    for cluster in (3, 5, 7):
        inside = times[cluster_N == cluster]
        assert 280 < inside.sum() < 390
        assert inside.max() - inside.min() <= 1
    again = cluster_batches(cluster_N, batch_examples=64, generator=np.random.default_rng(0))
    assert all((one == other).all() for one, other in zip(batches, again, strict=True))
