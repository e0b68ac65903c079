"""Where memory runs out while proteins are encoded without gradient, fewer are encoded at once."""

import numpy as np
import pytest
import torch

from conftest import random_sequence
from peftide.errors import UserError
from peftide.inference.embed import embed_proteins, embed_residues
from peftide.inference.encoder import Encoder
from peftide.models.backbones import load_backbone
from peftide.models.machine import Machine
from peftide.models.tokens import cut_pieces

LENGTHS = (50, 40, 30, 30, 20, 10)
HALVED = "out of memory: going on with {} tokens at once"


@pytest.fixture
def encoder(esm_folder):
    backbone = load_backbone(str(esm_folder), dtype=torch.float32)
    return Encoder(backbone, backbone.model, Machine(torch.device("cpu"), torch.float32))


@pytest.fixture
def proteins(encoder):
    vocabulary = encoder.backbone.vocabulary
    return [
        cut_pieces(random_sequence(length, seed), vocabulary, max_residues=1022, long_proteins="crop")
        for seed, length in enumerate(LENGTHS)
    ]


def hold_at_most(encoder, monkeypatch, most_tokens):
    """Let the encoder have room for so many tokens; the list gets the tokens of each call."""
    calls, real = [], encoder.hidden

    def hidden(proteins):
        calls.append(sum(protein.num_tokens for protein in proteins))
        if calls[-1] > most_tokens:
            raise torch.OutOfMemoryError("as on a GPU")
        return real(proteins)

    monkeypatch.setattr(encoder, "hidden", hidden)
    return calls


def test_vectors_are_those_of_enough_memory_and_every_later_call_is_smaller(encoder, proteins, monkeypatch):
    expected = embed_proteins(encoder, proteins, token_budget=10**6)
    calls = hold_at_most(encoder, monkeypatch, 60)
    advanced = []
    with pytest.warns(RuntimeWarning) as said:
        found = embed_proteins(encoder, proteins, token_budget=10**6, advance=advanced.append)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert [str(warning.message)[: len(HALVED.format(48))] for warning in said] == [
        HALVED.format(number) for number in (96, 47)
    ]
    assert calls == [192, 94, 52, 42, 32, 32, 34]
    assert sum(advanced) == sum(LENGTHS)


def test_states_of_residues_are_those_of_enough_memory(encoder, proteins, monkeypatch):
    expected = embed_residues(encoder, proteins, token_budget=10**6)
    hold_at_most(encoder, monkeypatch, 100)
    with pytest.warns(RuntimeWarning, match=HALVED.format(96)):
        found = embed_residues(encoder, proteins, token_budget=10**6)
    for states_LD, expected_LD in zip(found, expected, strict=True):
        np.testing.assert_allclose(states_LD, expected_LD, rtol=1e-5, atol=1e-6)


def test_a_protein_that_is_too_much_by_itself_is_an_error_that_says_what_to_do(encoder, proteins, monkeypatch):
    hold_at_most(encoder, monkeypatch, 45)
    with pytest.raises(UserError, match=r"one protein of 50 residues: lower --max-residues"):
        embed_proteins(encoder, proteins, token_budget=52)


def test_where_other_processes_wait_for_as_many_calls_the_error_is_raised_at_once(encoder, proteins, monkeypatch):
    hold_at_most(encoder, monkeypatch, 60)
    encoder.is_sharded = True
    with pytest.raises(torch.OutOfMemoryError):
        embed_proteins(encoder, proteins, token_budget=10**6)
