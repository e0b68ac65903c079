"""Steps built around proteins keep their promises on any graph."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from peftide.training.batches import encoding_cost, pair_batches, plain_batches, token_chunks


@st.composite
def graphs(draw) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (self pairs and repeats among them, often several components) and the tokens of the proteins."""
    num_proteins = draw(st.integers(1, 30))
    protein = st.integers(0, num_proteins - 1)
    pairs = draw(st.lists(st.tuples(protein, protein), max_size=120))
    tokens = draw(st.lists(st.integers(3, 1024), min_size=num_proteins, max_size=num_proteins))
    return np.array(pairs, dtype=np.int64).reshape(-1, 2), np.array(tokens)


SIZES = st.integers(1, 40)
SEEDS = st.integers(0, 2**32)
VARIETIES = st.sampled_from([0.0, 0.5, 3.0])


@given(graph=graphs(), size=SIZES, seed=SEEDS, variety=VARIETIES)
def test_every_row_is_in_exactly_one_step_of_the_plain_size(graph, size, seed, variety):
    members_N2, tokens_P = graph
    generator = np.random.default_rng(seed)
    batches = pair_batches(members_N2, tokens_P, batch_examples=size, generator=generator, variety=variety)
    assert sorted(row for batch in batches for row in batch) == list(range(len(members_N2)))
    plain = plain_batches(len(members_N2), batch_examples=size, generator=generator)
    assert sorted(map(len, batches)) == sorted(map(len, plain))
    assert all(len(batch) <= size for batch in batches)


@given(graph=graphs(), size=SIZES, seed=SEEDS, variety=VARIETIES, data=st.data())
def test_every_stratum_is_shared_out_to_within_one_row(graph, size, seed, variety, data):
    members_N2, tokens_P = graph
    strata_N = np.array(data.draw(st.lists(st.integers(-2, 2), min_size=len(members_N2), max_size=len(members_N2))))
    generator = np.random.default_rng(seed)
    batches = pair_batches(
        members_N2, tokens_P, batch_examples=size, generator=generator, strata_N=strata_N, variety=variety
    )
    assert sorted(row for batch in batches for row in batch) == list(range(len(members_N2)))
    for stratum in np.unique(strata_N):
        counts = [int((strata_N[batch] == stratum).sum()) for batch in batches]
        assert max(counts) - min(counts) <= 1


@given(graph=graphs(), size=SIZES, seed=SEEDS)
def test_the_same_seed_gives_the_same_steps(graph, size, seed):
    members_N2, tokens_P = graph
    first, again = (
        pair_batches(members_N2, tokens_P, batch_examples=size, generator=np.random.default_rng(seed)) for _ in range(2)
    )
    assert [batch.tolist() for batch in first] == [batch.tolist() for batch in again]


@settings(max_examples=30)
@given(num_proteins=st.integers(8, 40), size=st.integers(8, 64), seed=SEEDS)
def test_epochs_differ_and_cost_less_than_shuffled_ones_on_a_clique(num_proteins, size, seed):
    members_N2 = np.argwhere(np.triu(np.ones((num_proteins, num_proteins)), 1))
    tokens_P = np.full(num_proteins, 400)
    epochs = [
        pair_batches(members_N2, tokens_P, batch_examples=size, generator=np.random.default_rng([seed, epoch]))
        for epoch in (1, 2)
    ]
    assert [batch.tolist() for batch in epochs[0]] != [batch.tolist() for batch in epochs[1]]
    shuffled = plain_batches(len(members_N2), batch_examples=size, generator=np.random.default_rng(seed))
    costs = [encoding_cost(batches, members_N2, tokens_P) for batches in (*epochs, shuffled)]
    assert costs[0].encoded_tokens <= costs[2].encoded_tokens
    assert costs[0].member_tokens == costs[2].member_tokens
    assert min(cost.reuse for cost in costs) >= 1


@given(tokens=st.lists(st.integers(1, 1024), max_size=80), budget=st.integers(1, 4000))
def test_chunks_hold_every_protein_once_and_exceed_the_budget_only_alone(tokens, budget):
    tokens_P = np.array(tokens, dtype=np.int64)
    chunks = token_chunks(tokens_P, token_budget=budget)
    assert sorted(row for chunk in chunks for row in chunk) == list(range(len(tokens)))
    assert all(len(chunk) == 1 or tokens_P[chunk].sum() <= budget for chunk in chunks)
    lower, upper = -(-sum(tokens) // budget), -(-2 * sum(tokens) // budget) + 1
    assert len(chunks) >= (lower if not tokens or max(tokens) <= budget else 1)
    assert len(chunks) <= max(upper, 1)
