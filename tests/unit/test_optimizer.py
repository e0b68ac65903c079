"""Which weights decay, and the learning rate of every step."""

import math

import pytest
import torch
from torch import nn

from peftide.models.adapters import add_lora
from peftide.models.backbones import load_backbone
from peftide.models.heads import Head
from peftide.models.property_model import train_all_weights
from peftide.training.optimizer import learning_rate_at, make_optimizer


def head_of(width):
    return Head("mlp", width=width, arity=2, num_outputs=1, hidden_width=8, dropout=0.1)


def names_by_decay(optimizer, modules):
    """Names of the parameters with weight decay, and of those without."""
    name_of = {parameter: name for module in modules for name, parameter in module.named_parameters()}
    decaying, other = set(), set()
    for group in optimizer.param_groups:
        (decaying if group["weight_decay"] > 0 else other).update(name_of[p] for p in group["params"])
    return decaying, other


def test_matrices_decay_and_norms_and_biases_do_not(esm_folder):
    model = load_backbone(str(esm_folder), dtype=torch.float32).model
    train_all_weights(model)
    modules = [model, head_of(48)]
    decaying, other = names_by_decay(make_optimizer(modules, learning_rate=1.0, weight_decay=0.3), modules)
    assert "embeddings.word_embeddings.weight" in decaying
    assert "encoder.layer.0.attention.self.query.weight" in decaying
    assert "layers.1.weight" in decaying
    assert {"encoder.emb_layer_norm_after.weight", "encoder.layer.3.LayerNorm.bias", "layers.1.bias"} <= other
    assert not any(name.endswith("bias") or "LayerNorm" in name for name in decaying)
    assert len(decaying | other) == sum(p.requires_grad for module in modules for p in module.parameters())


def test_lora_matrices_and_the_head_are_all_that_is_optimised(esm_folder):
    backbone = load_backbone(str(esm_folder), dtype=torch.float32)
    model = add_lora(backbone, rank=2, alpha=4, dropout=0.0, matrices=("key", "value"), layers=(3,))
    modules = [model, head_of(48)]
    decaying, other = names_by_decay(make_optimizer(modules, learning_rate=1.0, weight_decay=0.3), modules)
    assert {name for name in decaying if "lora_" in name} == {
        f"base_model.model.encoder.layer.3.attention.self.{matrix}.lora_{letter}.default.weight"
        for matrix in ("key", "value")
        for letter in "AB"
    }
    assert {name for name in decaying | other if "lora_" not in name} == {
        f"layers.{number}.{part}" for number in (1, 4) for part in ("weight", "bias")
    }


def test_one_step_is_that_of_adamw_with_decay_on_the_matrix_alone():
    """Loshchilov & Hutter 2019: the first step moves each weight by the rate, after shrinking what decays."""
    module = nn.Linear(2, 1)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[2.0, -1.0]]))
        module.bias.fill_(0.5)
    optimizer = make_optimizer([module], learning_rate=0.1, weight_decay=0.2)
    module(torch.tensor([[3.0, -4.0]])).sum().backward()
    optimizer.step()
    shrink = 1 - 0.1 * 0.2
    torch.testing.assert_close(module.weight, torch.tensor([[2.0 * shrink - 0.1, -1.0 * shrink + 0.1]]))
    torch.testing.assert_close(module.bias, torch.tensor([0.4]))


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 0.2), (1, 0.4), (4, 1.0), (5, 1.0), (25, 0.5 * (1 + math.cos(math.pi * 20 / 45))),
        (49, 0.5 * (1 + math.cos(math.pi * 44 / 45))), (50, 0.0),
    ],
)  # fmt: skip
def test_the_rate_rises_linearly_and_falls_as_a_cosine_to_zero(step, rate):
    assert learning_rate_at(step, num_steps=50, peak=1.0, warmup_fraction=0.1) == pytest.approx(rate, abs=1e-12)


def test_without_warm_up_the_first_step_has_the_peak_rate():
    assert learning_rate_at(0, num_steps=50, peak=3e-4, warmup_fraction=0.0) == 3e-4


def test_a_run_of_a_single_step_learns():
    assert learning_rate_at(0, num_steps=1, peak=1.0, warmup_fraction=0.05) == 1.0


@pytest.mark.parametrize("num_steps", [1, 2, 3, 10, 997])
@pytest.mark.parametrize("warmup_fraction", [0.0, 0.05, 0.5, 0.99])
def test_no_step_has_a_rate_of_zero_or_above_the_peak(num_steps, warmup_fraction):
    rates = [
        learning_rate_at(step, num_steps=num_steps, peak=0.7, warmup_fraction=warmup_fraction)
        for step in range(num_steps)
    ]
    assert all(0 < rate <= 0.7 for rate in rates)
    top = rates.index(max(rates))
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
