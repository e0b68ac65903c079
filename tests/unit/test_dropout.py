"""Dropout with random bits of our own: the rate, the scale, the gradient, and no pattern among the values of a word."""

import math

import pytest
import torch
from torch import nn

from peftide.models.packed import dropout

NUM_VALUES = 200_001  # no multiple of the four values in a random word


def dropped(rate: float, *, seed: int = 0, dtype=torch.float32) -> torch.Tensor:
    torch.manual_seed(seed)
    return dropout(nn.Dropout(rate), torch.ones(NUM_VALUES, dtype=dtype))


@pytest.mark.parametrize("rate", [1e-3, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_so_many_values_are_dropped_and_the_others_scaled(rate, dtype):
    y = dropped(rate, dtype=dtype)
    share = (y == 0).double().mean().item()
    assert abs(share - rate) < 5 * math.sqrt(rate * (1 - rate) / NUM_VALUES) + 2**-16
    kept = y[y != 0]
    assert y.dtype == dtype
    assert torch.equal(kept, kept[0].expand_as(kept))
    assert kept[0].item() == pytest.approx(1 / (1 - rate), rel=1e-4 if dtype == torch.float32 else 2**-8)


def test_values_next_to_each_other_are_dropped_independently():
    is_kept = (dropped(0.5, seed=3) != 0).double() - 0.5
    for distance in range(1, 9):
        correlation = 4 * (is_kept[:-distance] * is_kept[distance:]).mean().item()
        assert abs(correlation) < 5 / math.sqrt(NUM_VALUES), distance
    for place in range(4):  # in a word
        assert abs(2 * is_kept[place::4].mean().item()) < 5 / math.sqrt(NUM_VALUES / 4), place


def test_the_gradient_passes_where_the_value_did():
    torch.manual_seed(5)
    x = torch.randn(7, 33, requires_grad=True)
    y = dropout(nn.Dropout(0.3), x)
    y.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad * x, y)


def test_a_seed_is_a_mask():
    assert torch.equal(dropped(0.2, seed=1), dropped(0.2, seed=1))
    assert not torch.equal(dropped(0.2, seed=1), dropped(0.2, seed=2))


@pytest.mark.parametrize("layer", [nn.Dropout(0.5).eval(), nn.Dropout(0.0), nn.Identity()])
def test_nothing_is_dropped_in_evaluation_or_at_rate_zero(layer):
    x = torch.randn(50)
    assert torch.equal(dropout(layer, x), x)
