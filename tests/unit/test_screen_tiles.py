"""Tiles of logits against the head itself, pair by pair."""

import numpy as np
import pytest
import torch

from peftide.inference.screen_estimate import estimated_tiles, has_fast_integers, make_grid, trial_pairs
from peftide.inference.screen_tiles import TILES, tile_function
from peftide.models.heads import Head

NUM_PROTEINS, WIDTH = 300, 24


def make_head(kind: str, *, weight_scale: float = 1.0) -> Head:
    torch.manual_seed(3)
    head = Head(kind, width=WIDTH, arity=2, num_outputs=1, hidden_width=40, dropout=0.1).eval()
    head.standardize(make_vectors())
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.mul_(weight_scale)
    return head


def make_vectors() -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    return 3 + 0.2 * torch.randn(NUM_PROTEINS, WIDTH, generator=generator)


def filled(tiles, rows: slice, columns: slice) -> torch.Tensor:
    scores_RC = torch.full((rows.stop - rows.start, columns.stop - columns.start), torch.nan)
    tiles(rows, columns, scores_RC)
    return scores_RC


def by_pair(head: Head, rows: slice, columns: slice) -> torch.Tensor:
    vectors_PD = make_vectors()
    members = torch.cartesian_prod(torch.arange(rows.start, rows.stop), torch.arange(columns.start, columns.stop))
    with torch.no_grad():
        return head(vectors_PD[members]).reshape(rows.stop - rows.start, -1)


@pytest.mark.parametrize(("rows", "columns"), [(slice(0, 300), slice(0, 300)), (slice(7, 18), slice(290, 300))])
@pytest.mark.parametrize("kind", TILES)
def test_a_tile_has_the_logits_of_the_head(kind, rows, columns):
    head = make_head(kind, weight_scale=2)
    found = filled(tile_function(head, make_vectors()), rows, columns)
    torch.testing.assert_close(found, by_pair(head, rows, columns), atol=2e-5, rtol=2e-5)


def test_large_weights_of_the_paper_head_do_not_overflow():
    head = make_head("paper", weight_scale=60)
    everything = slice(0, NUM_PROTEINS)
    found = filled(tile_function(head, make_vectors()), everything, everything)
    expected = by_pair(head, everything, everything)
    assert float(expected.abs().max()) > 40
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=2e-4)


@pytest.mark.parametrize("kind", TILES)
def test_a_tile_of_one_set_is_symmetric(kind):
    everything = slice(0, NUM_PROTEINS)
    found = filled(tile_function(make_head(kind), make_vectors()), everything, everything)
    torch.testing.assert_close(found, found.T, atol=2e-6, rtol=1e-6)


def test_the_grid_is_within_half_a_step_of_the_vectors():
    standard_PD = make_vectors()
    grid = make_grid(standard_PD)
    found = grid.signed_PD.float() * grid.step_D + grid.middle_D
    assert float(((found - standard_PD).abs() / grid.step_D).max()) <= 0.5 + 1e-3
    assert grid.signed_PD.min() == -128
    assert grid.signed_PD.max() == 127
    assert torch.equal(grid.signed_PD.int() + 128, grid.unsigned_PD.int())


def test_a_feature_that_is_the_same_in_all_proteins_is_estimated_too():
    standard_PD = torch.cat([torch.randn(9, 2), torch.full((9, 1), 2.5)], dim=1)
    grid = make_grid(standard_PD)
    assert torch.allclose((grid.signed_PD.float() * grid.step_D + grid.middle_D)[:, 2], torch.tensor(2.5))


@pytest.mark.skipif(not has_fast_integers(), reason="this processor has no fast products of bytes")
def test_an_estimate_is_close_to_the_head():
    head = make_head("mlp", weight_scale=4)
    everything = slice(0, NUM_PROTEINS)
    estimate = estimated_tiles(head, make_vectors())
    errors = (filled(estimate, everything, everything) - by_pair(head, everything, everything)).abs()
    spread = float(by_pair(head, everything, everything).std())
    assert float(errors.mean()) < 0.02 * spread
    assert float(errors.max()) < 0.1 * spread


@pytest.mark.skipif(not has_fast_integers(), reason="this processor has no fast products of bytes")
def test_the_trial_has_the_pairs_of_the_highest_estimates():
    head = make_head("mlp", weight_scale=4)
    estimate = estimated_tiles(head, make_vectors())
    pairs = trial_pairs(estimate, coarse_R=np.ones(30), columns=range(20, NUM_PROTEINS))
    everything = filled(estimate, slice(0, 30), slice(20, NUM_PROTEINS))
    assert len(pairs) == everything.numel()
    assert pairs.logits.max() == float(everything.max())
    assert np.array_equal(everything[pairs.rows, pairs.columns - 20].numpy(), pairs.logits)
    coarse_R = np.random.default_rng(0).random(200)
    tried = set(trial_pairs(estimate, coarse_R=coarse_R, columns=range(20, NUM_PROTEINS)).rows.tolist())
    assert len(tried) == 64
    assert tried >= set(np.argsort(coarse_R)[-32:].tolist())
