"""The contract of every head: symmetric to the last bit, standardised, saved whole, and able to learn.

Shapes: B examples, K proteins of an example, P proteins, D width.
"""

import itertools

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from peftide.models.heads import Head

WIDTH, NUM_OUTPUTS = 24, 3
KINDS = ("mlp", "paper", "linear")
EVERY_HEAD = list(itertools.product(KINDS, (1, 2)))


def make(kind, *, arity=2, num_outputs=NUM_OUTPUTS, dropout=0.1, seed=0):
    torch.manual_seed(seed)
    return Head(kind, width=WIDTH, arity=arity, num_outputs=num_outputs, hidden_width=40, dropout=dropout).eval()


def proteins(number, *, seed=1):
    """Vectors (P, D) with a common offset and features of very different spread, as mean-pooled states have."""
    generator = torch.Generator().manual_seed(seed)
    spread_D = torch.logspace(-2, 1, WIDTH)
    return 3.0 + spread_D * torch.randn(number, WIDTH, generator=generator)


def standardised(kind, **options):
    head = make(kind, **options)
    head.standardize(proteins(200, seed=9))
    return head


def examples(number, arity):
    return proteins(number * arity).view(number, arity, WIDTH)


def swapped(pairs_B2D):
    return pairs_B2D.flip(1).contiguous()


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_two_proteins_changes_no_bit_of_the_logits(kind, mode):
    head = standardised(kind).train(mode == "train")
    pairs_B2D = examples(33, 2)
    torch.manual_seed(4)
    one_way = head(pairs_B2D)
    torch.manual_seed(4)
    other_way = head(swapped(pairs_B2D))
    assert torch.equal(one_way, other_way)


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_two_proteins_changes_no_bit_of_the_gradients(kind):
    head = standardised(kind)
    pairs_B2D = examples(33, 2)
    given = pairs_B2D.clone().requires_grad_()
    turned = swapped(pairs_B2D).requires_grad_()
    head(given).square().sum().backward()
    of_weights = [p.grad.clone() for p in head.parameters()]
    head.zero_grad()
    head(turned).square().sum().backward()
    assert torch.equal(given.grad, swapped(turned.grad))
    for first, second in zip(of_weights, head.parameters(), strict=True):
        assert torch.equal(first, second.grad)


@pytest.mark.parametrize(("kind", "arity"), EVERY_HEAD)
def test_a_head_gives_one_row_of_float32_logits_per_example(kind, arity):
    logits_BC = standardised(kind, arity=arity)(examples(7, arity))
    assert logits_BC.shape == (7, NUM_OUTPUTS)
    assert logits_BC.dtype == torch.float32
    assert logits_BC.isfinite().all()


@pytest.mark.parametrize(("kind", "arity"), EVERY_HEAD)
def test_an_example_does_not_depend_on_the_others(kind, arity):
    head, examples_BKD = standardised(kind, arity=arity), examples(40, arity)
    alone_BC = torch.cat([head(example[None]) for example in examples_BKD])
    torch.testing.assert_close(head(examples_BKD), alone_BC, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("kind", "arity"), EVERY_HEAD)
def test_logits_are_those_of_standard_vectors(kind, arity):
    """The centre and scale are the mean and spread of the given proteins, and nothing else happens to a vector."""
    sample_PD, examples_BKD = proteins(200, seed=9), examples(6, arity)
    head, bare = standardised(kind, arity=arity), make(kind, arity=arity)
    torch.testing.assert_close(head.center_D, sample_PD.mean(dim=0))
    torch.testing.assert_close(head.scale_D, sample_PD.std(dim=0, correction=0))
    standard_BKD = (examples_BKD - sample_PD.mean(dim=0)) / sample_PD.std(dim=0, correction=0)
    torch.testing.assert_close(head(examples_BKD), bare(standard_BKD), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("kind", "arity"), EVERY_HEAD)
def test_a_feature_that_never_varies_is_not_blown_up(kind, arity):
    sample_PD = proteins(50)
    sample_PD[:, 5] = 0.7
    head = make(kind, arity=arity)
    head.standardize(sample_PD)
    logits_BC = head(sample_PD[: 2 * arity].view(2, arity, WIDTH))
    assert logits_BC.isfinite().all()
    assert logits_BC.abs().max() < 100


@pytest.mark.parametrize(("kind", "arity"), EVERY_HEAD)
def test_saving_and_loading_changes_no_bit(kind, arity, tmp_path):
    head = standardised(kind, arity=arity)
    save_file(head.state_dict(), tmp_path / "head.safetensors")
    other = make(kind, arity=arity, seed=99)
    examples_BKD = examples(9, arity)
    assert not torch.equal(head(examples_BKD), other(examples_BKD))
    other.load_state_dict(load_file(tmp_path / "head.safetensors"))
    assert torch.equal(head(examples_BKD), other(examples_BKD))


@pytest.mark.parametrize("kind", KINDS)
def test_a_pair_of_a_protein_with_itself_has_finite_logits_and_gradients(kind):
    head = standardised(kind)
    one = proteins(1)[0].requires_grad_()
    pair_12D = torch.stack([one, one])[None]
    head(pair_12D).sum().backward()
    assert head(pair_12D).isfinite().all()
    assert one.grad.isfinite().all()
    assert one.grad.abs().max() > 0
    assert all(p.grad.isfinite().all() for p in head.parameters())


@pytest.mark.parametrize(("kind", "arity"), EVERY_HEAD)
def test_a_head_learns_a_toy_problem(kind, arity):
    """A feature of small spread among larger ones decides the class: only standard vectors show it."""
    head = standardised(kind, arity=arity, num_outputs=1, dropout=0.0).train()
    examples_BKD = examples(128, arity)
    labels_B = (examples_BKD[:, :, 3].mean(dim=1) > 3.0).float()
    optimizer = torch.optim.AdamW(head.parameters(), lr=5e-2)
    losses = []
    for _ in range(100):
        loss = F.binary_cross_entropy_with_logits(head(examples_BKD)[:, 0], labels_B)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    right_B = (head.eval()(examples_BKD)[:, 0] > 0) == (labels_B > 0.5)
    assert right_B.float().mean() > 0.95


@pytest.mark.parametrize("kind", ["mlp", "linear"])
def test_a_head_that_compares_can_tell_alike_from_different(kind):
    """Whether two proteins have the same sign of a feature is not a function of their mean."""
    generator = torch.Generator().manual_seed(2)
    pairs_B2D = torch.randn(128, 2, WIDTH, generator=generator)
    labels_B = (pairs_B2D[:, 0, 0] * pairs_B2D[:, 1, 0] > 0).float()
    head = make(kind, num_outputs=1, dropout=0.0).train()
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2)
    for _ in range(60):
        loss = F.binary_cross_entropy_with_logits(head(pairs_B2D)[:, 0], labels_B)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.3


def test_only_the_mlp_drops_features_and_only_in_training():
    examples_BKD = examples(5, 2)
    for kind in KINDS:
        head = standardised(kind, dropout=0.5)
        assert torch.equal(head(examples_BKD), head(examples_BKD))
        head.train()
        assert torch.equal(head(examples_BKD), head(examples_BKD)) == (kind != "mlp")


def test_the_papers_head_is_the_mean_into_128_tanh_units():
    head, pairs_B2D = make("paper"), examples(4, 2)
    first, second = head.layers[0], head.layers[-1]
    assert first.weight.shape == (128, WIDTH)
    hidden = torch.tanh(F.linear((pairs_B2D[:, 0] + pairs_B2D[:, 1]) / 2, first.weight, first.bias))
    torch.testing.assert_close(head(pairs_B2D), F.linear(hidden, second.weight, second.bias), atol=1e-6, rtol=1e-6)


def test_the_default_head_compares_mean_absolute_difference_and_product():
    head, (a, b) = make("linear"), examples(1, 2)[0]
    features = torch.cat([(a + b) / 2, (a - b).abs(), a * b])
    torch.testing.assert_close(head(torch.stack([a, b])[None])[0], head.layers(features), atol=1e-5, rtol=1e-5)
