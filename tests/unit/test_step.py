"""The gradient of a step is that of the plain computation, in one part or in many, with dropout and without."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from conftest import random_sequence
from peftide.inference.encoder import Encoder
from peftide.models.adapters import add_lora
from peftide.models.backbones import load_backbone
from peftide.models.heads import Head
from peftide.models.machine import Machine
from peftide.models.target import Target, loss
from peftide.models.tokens import cut_pieces
from peftide.training.step import backward, plan_step

FLOAT32 = Machine(torch.device("cpu"), torch.float32)
LENGTHS = (12, 50, 31, 7, 88, 26, 40, 19)
PAIRS = np.array([[0, 1], [4, 2], [2, 2], [1, 0], [6, 3], [4, 7], [7, 0], [3, 1], [2, 4]])
LABELS = torch.tensor([1.0, 0, 1, 1, 0, 0, 1, 0, 0])
TARGET = Target("binary", ("no", "yes"))
BUDGETS = pytest.mark.parametrize(
    ("token_budget", "num_parts"), [(10_000, 1), (160, 2), (95, 3), (1, 7)], ids=["one", "two", "three", "each-alone"]
)


class Setup:
    """LoRA on the last two layers, a pair head and the tokens of eight proteins; the same weights every time."""

    def __init__(self, folder, *, dropout=0.0, checkpoint_layers=False):
        backbone = load_backbone(str(folder), dtype=torch.float32)
        self.model = add_lora(
            backbone, rank=4, alpha=8, dropout=dropout, matrices=("query", "key", "value", "output", "feed-forward"),
            layers=(2, 3),
        ).train()  # fmt: skip
        torch.manual_seed(1)
        self.head = Head("mlp", width=48, arity=2, num_outputs=1, hidden_width=16, dropout=dropout).train()
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for name, parameter in sorted(self.model.named_parameters()):
                if "lora_" in name:
                    parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
        self.encoder = Encoder(backbone, self.model, FLOAT32, checkpoint_layers=checkpoint_layers)
        self.proteins = [
            cut_pieces(random_sequence(n, seed=i), backbone.vocabulary, max_residues=1022, long_proteins="crop")
            for i, n in enumerate(LENGTHS)
        ]
        self.tokens_P = np.array([protein.num_tokens for protein in self.proteins])
        self.random_states: dict[tuple[int, ...], list[torch.Tensor]] = {}

    def encode(self, rows):
        """Vectors of proteins; keeps the state of the random numbers with which each part was entered."""
        self.random_states.setdefault(tuple(rows), []).append(torch.get_rng_state())
        return self.encoder.vectors([self.proteins[row] for row in rows])

    def loss_of(self, vectors_BKD):
        self.random_states.setdefault(("loss",), []).append(torch.get_rng_state())
        return loss(self.head(vectors_BKD), LABELS, TARGET)

    def gradients(self):
        modules = {"model": self.model, "head": self.head}
        return {
            f"{prefix}.{name}": parameter.grad
            for prefix, module in modules.items()
            for name, parameter in module.named_parameters()
            if parameter.requires_grad
        }

    def step(self, token_budget, *, seed=0, call_tokens=None):
        """Loss and gradients of the product."""
        plan = plan_step(PAIRS, self.tokens_P, token_budget=token_budget, call_tokens=call_tokens)
        value = backward(self.encode, self.loss_of, plan, seed=seed)
        return value, self.gradients(), plan

    def plain(self):
        """Loss and gradients of one graph, both proteins of each pair encoded by themselves, pair by pair."""
        vectors = [[self.encoder.vectors([self.proteins[row]])[0] for row in pair] for pair in PAIRS]
        value = loss(self.head(torch.stack([torch.stack(pair) for pair in vectors])), LABELS, TARGET)
        value.backward()
        return value.item(), self.gradients()


def assert_equal_gradients(got, expected):
    """The whole gradient to 2e-6 of its length, in float32; each matrix, none of them without a gradient, to 1e-4."""
    assert got.keys() == expected.keys()
    lengths = {name: gradient.norm().item() for name, gradient in expected.items()}
    errors = {name: (gradient - expected[name]).norm().item() for name, gradient in got.items()}
    for name, length in lengths.items():
        assert length > 0, name
        assert errors[name] <= 1e-4 * length, name
    assert math.hypot(*errors.values()) <= 2e-6 * math.hypot(*lengths.values())


@BUDGETS
def test_the_gradient_does_not_depend_on_the_number_of_parts(esm_folder, token_budget, num_parts):
    one_value, one_gradients, _ = Setup(esm_folder).step(10_000)
    value, gradients, plan = Setup(esm_folder).step(token_budget)
    assert len(plan.parts) == num_parts
    assert value == pytest.approx(one_value, rel=1e-6)
    assert_equal_gradients(gradients, one_gradients)


@BUDGETS
def test_the_gradient_is_that_of_encoding_both_proteins_of_every_pair(esm_folder, token_budget, num_parts):
    plain_value, plain_gradients = Setup(esm_folder).plain()
    value, gradients, _ = Setup(esm_folder).step(token_budget)
    assert value == pytest.approx(plain_value, rel=1e-6)
    assert_equal_gradients(gradients, plain_gradients)


@BUDGETS
def test_both_passes_of_a_part_draw_the_same_dropout(esm_folder, token_budget, num_parts):
    """Against one graph over all parts, each entered with the random numbers with which the step entered it."""
    setup = Setup(esm_folder, dropout=0.1)
    value, gradients, plan = setup.step(token_budget, seed=7)
    for rows in plan.parts:
        first, *later = setup.random_states[tuple(rows)]
        assert all(torch.equal(state, first) for state in later)
    other = Setup(esm_folder, dropout=0.1)
    vectors = []
    for rows in plan.parts:
        torch.set_rng_state(setup.random_states[tuple(rows)][0])
        vectors.append(other.encode(rows))
    torch.set_rng_state(setup.random_states[("loss",)][0])
    plain = other.loss_of(torch.cat(vectors)[torch.from_numpy(plan.members_BK)])
    plain.backward()
    assert value == pytest.approx(plain.item(), rel=1e-6)
    assert_equal_gradients(gradients, other.gradients())


def test_parts_the_loss_and_steps_draw_different_dropout(esm_folder):
    setup = Setup(esm_folder, dropout=0.1)
    setup.step(95, seed=7)
    setup.step(95, seed=8)
    states = [state for states in setup.random_states.values() for state in states]
    different = {state.numpy().tobytes() for state in states}
    assert len(different) == 2 * (3 + 1)


def test_the_same_seed_gives_the_same_gradient_bit_for_bit(esm_folder):
    first_value, first, _ = Setup(esm_folder, dropout=0.1).step(95, seed=7)
    value, again, _ = Setup(esm_folder, dropout=0.1).step(95, seed=7)
    assert value == first_value
    assert all(torch.equal(gradient, first[name]) for name, gradient in again.items())


def test_the_dropout_of_a_frozen_backbones_head_does_not_depend_on_the_token_budget(esm_folder):
    """Its vectors come from a table: how many parts they are planned in is of no consequence."""
    values = []
    for token_budget in (10_000, 95, 1):
        setup = Setup(esm_folder, dropout=0.5)
        with torch.no_grad():
            table_PD = setup.encoder.vectors(setup.proteins)
        plan = plan_step(PAIRS, setup.tokens_P, token_budget=token_budget)
        values.append(backward(lambda rows, table_PD=table_PD: table_PD[rows], setup.loss_of, plan, seed=3))
        assert all(parameter.grad is None for parameter in setup.model.parameters())
    assert values[1:] == values[:-1]


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@BUDGETS
def test_recomputing_layers_gives_every_lora_matrix_the_same_gradient(esm_folder, token_budget, num_parts, dropout):
    value, gradients, _ = Setup(esm_folder, dropout=dropout).step(token_budget, seed=7)
    other_value, others, _ = Setup(esm_folder, dropout=dropout, checkpoint_layers=True).step(token_budget, seed=7)
    assert sum("lora_" in name for name in others) == 2 * 6 * 2
    assert other_value == value
    assert_equal_gradients(others, gradients)


def test_each_part_but_the_last_is_encoded_twice_and_no_protein_more(esm_folder):
    setup = Setup(esm_folder)
    _, _, plan = setup.step(95)
    calls = [len(setup.random_states[tuple(rows)]) for rows in plan.parts]
    assert calls == [2] * (len(plan.parts) - 1) + [1]


@pytest.mark.parametrize(("token_budget", "num_kept"), [(10_000, 5), (160, 3), (95, 2), (60, 1)])
def test_parts_that_fit_in_memory_together_are_encoded_once(esm_folder, token_budget, num_kept):
    setup = Setup(esm_folder, dropout=0.1)
    value, gradients, plan = setup.step(token_budget, seed=7, call_tokens=60)
    calls = [len(setup.random_states[tuple(rows)]) for rows in plan.parts]
    assert plan.num_kept == num_kept
    assert calls == [2] * (len(plan.parts) - num_kept) + [1] * num_kept
    other_value, others, _ = Setup(esm_folder, dropout=0.1).step(60, seed=7)  # with dropout: the same in every budget
    assert value == other_value
    assert_equal_gradients(gradients, others)


def test_gradients_of_two_steps_add_up(esm_folder):
    setup = Setup(esm_folder)
    _, once, _ = setup.step(95)
    once = {name: gradient.clone() for name, gradient in once.items()}
    _, twice, _ = setup.step(95)
    assert_equal_gradients(twice, {name: 2 * gradient for name, gradient in once.items()})


@pytest.mark.parametrize("token_budget", [1, 60, 95, 160, 10_000])
def test_a_plan_holds_each_protein_once_within_the_budget_and_finds_every_member(token_budget):
    tokens_P = np.array([*LENGTHS, 1000, 3]) + 2  # two proteins that no pair has
    plan = plan_step(PAIRS, tokens_P, token_budget=token_budget)
    laid_out = np.concatenate(plan.parts)
    assert sorted(laid_out) == np.unique(PAIRS).tolist()
    assert np.array_equal(laid_out[plan.members_BK], PAIRS)
    assert all(tokens_P[part].sum() <= token_budget or len(part) == 1 for part in plan.parts)


def test_a_plan_of_single_proteins_is_as_good(esm_folder):
    tokens_P = np.array(LENGTHS) + 2
    plan = plan_step(np.array([[5], [1], [1], [7]]), tokens_P, token_budget=50)
    assert np.concatenate(plan.parts)[plan.members_BK].tolist() == [[5], [1], [1], [7]]


@BUDGETS
def test_parts_are_exact_in_float64(token_budget, num_parts):
    """The same with an encoder of a few lines, where rounding hides nothing."""
    features_PD = torch.randn(len(LENGTHS), 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    plan = plan_step(PAIRS, np.array(LENGTHS) + 2, token_budget=token_budget)
    assert len(plan.parts) == num_parts
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)).double()
    head = nn.Bilinear(4, 4, 1).double()

    def loss_of(vectors_BKD):
        logits_B = head(vectors_BKD[:, 0], vectors_BKD[:, 1])[:, 0]
        return F.binary_cross_entropy_with_logits(logits_B, LABELS.double())

    parameters = [*network.parameters(), *head.parameters()]
    plain = loss_of(network(features_PD)[torch.from_numpy(PAIRS)])
    expected = torch.autograd.grad(plain, parameters)
    value = backward(lambda rows: network(features_PD[rows]), loss_of, plan, seed=0)
    assert value == pytest.approx(plain.item(), rel=1e-14)
    for parameter, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-12, atol=1e-15)
