"""LoRA training against stock peft on stock transformers; adapters that travel between the two."""

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import EsmModel

from conftest import random_sequence
from peftide.config import parse_layers
from peftide.inference.encoder import Encoder
from peftide.models.adapters import add_lora, first_trained_layer, num_trained
from peftide.models.backbones import load_backbone
from peftide.models.machine import Machine
from peftide.models.tokens import cut_pieces

LENGTHS = (9, 33, 70)
FLOAT32 = Machine(torch.device("cpu"), torch.float32)


def sequences():
    return [random_sequence(length) for length in LENGTHS]


def ours(folder, *, layers="last:2", checkpoint_layers=False, matrices=("key", "value")):
    backbone = load_backbone(str(folder), dtype=torch.float32)
    torch.manual_seed(5)
    model = add_lora(
        backbone, rank=4, alpha=16, dropout=0.0, matrices=matrices, layers=parse_layers(layers, backbone.num_layers)
    )
    encoder = Encoder(backbone, model, FLOAT32, checkpoint_layers=checkpoint_layers)
    proteins = [cut_pieces(s, backbone.vocabulary, max_residues=1022, long_proteins="crop") for s in sequences()]
    return encoder, proteins


def give_lora_random_weights(model):
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if "lora_" in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))


def stock(folder, layers):
    """Stock model and stock LoRA, and its mean-pooled vectors from a padded batch."""
    model = EsmModel.from_pretrained(folder, add_pooling_layer=False, dtype=torch.float32)
    torch.manual_seed(5)
    config = LoraConfig(
        r=4, lora_alpha=16, lora_dropout=0.0, target_modules=["key", "value"], layers_to_transform=layers
    )
    return get_peft_model(model, config)


def padded_vectors(model, proteins):
    longest = max(len(protein.tokens[0]) for protein in proteins)
    ids = torch.full((len(proteins), longest), 1)
    for row, protein in enumerate(proteins):
        ids[row, : len(protein.tokens[0])] = torch.from_numpy(protein.tokens[0])
    mask = (ids != 1).long()
    hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
    residues = mask.clone()
    residues[:, 0] = 0
    residues[torch.arange(len(ids)), mask.sum(dim=1) - 1] = 0
    return (hidden * residues[..., None]).sum(dim=1) / residues.sum(dim=1, keepdim=True)


def gradients(model):
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("checkpoint_layers", [False, True])
def test_vectors_gradients_and_a_step_equal_those_of_stock_peft(esm_folder, checkpoint_layers):
    encoder, proteins = ours(esm_folder, checkpoint_layers=checkpoint_layers)
    reference = stock(esm_folder, layers=[2, 3])
    for model in (encoder.model, reference):
        give_lora_random_weights(model)
    mine, theirs = encoder.vectors(proteins), padded_vectors(reference, proteins)
    torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=1e-5)
    for vectors, model in ((mine, encoder.model), (theirs, reference)):
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
        (vectors.square().sum() + vectors[0, 0]).backward()
        optimizer.step()
    got, expected = gradients(encoder.model), gradients(reference)
    assert got.keys() == expected.keys()
    assert len(got) == 2 * 2 * 2
    for name, gradient in got.items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(gradient, expected[name], atol=1e-4, rtol=1e-4)
    for (name, p), (_, q) in zip(
        sorted(encoder.model.named_parameters()), sorted(reference.named_parameters()), strict=True
    ):
        torch.testing.assert_close(p, q, atol=2e-5, rtol=1e-4, msg=name)


def test_a_fresh_adapter_changes_nothing(esm_folder):
    encoder, proteins = ours(esm_folder, layers="all", matrices=("query", "key", "value", "output", "feed-forward"))
    backbone = load_backbone(str(esm_folder), dtype=torch.float32)
    with torch.no_grad():
        plain = Encoder(backbone, backbone.model, FLOAT32).vectors(proteins)
        torch.testing.assert_close(encoder.vectors(proteins), plain, atol=1e-6, rtol=1e-6)


def test_only_lora_matrices_are_trained_and_all_of_them(esm_folder):
    encoder, _ = ours(esm_folder, layers="all", matrices=("query", "key", "value", "output", "feed-forward"))
    trained = [name for name, p in encoder.model.named_parameters() if p.requires_grad]
    assert all("lora_" in name for name in trained)
    assert len(trained) == 4 * 6 * 2
    assert num_trained(encoder.model) == 4 * (4 * 4 * (48 + 48) + 2 * 4 * (48 + 96))


def test_an_adapter_trained_here_gives_the_same_vectors_in_stock_peft(esm_folder, tmp_path):
    encoder, proteins = ours(esm_folder)
    give_lora_random_weights(encoder.model)
    encoder.model.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    reference = EsmModel.from_pretrained(esm_folder, add_pooling_layer=False, dtype=torch.float32)
    reference = PeftModel.from_pretrained(reference, tmp_path / "adapter").eval()
    with torch.no_grad():
        torch.testing.assert_close(encoder.vectors(proteins), padded_vectors(reference, proteins), atol=2e-5, rtol=1e-5)


def test_an_adapter_of_stock_peft_works_here(esm_folder, tmp_path):
    reference = stock(esm_folder, layers=[1, 3]).eval()
    give_lora_random_weights(reference)
    reference.save_pretrained(tmp_path / "adapter")
    backbone = load_backbone(str(esm_folder), dtype=torch.float32)
    model = PeftModel.from_pretrained(backbone.model, tmp_path / "adapter").eval()
    _, proteins = ours(esm_folder)
    with torch.no_grad():
        mine = Encoder(backbone, model, FLOAT32).vectors(proteins)
        torch.testing.assert_close(mine, padded_vectors(reference, proteins), atol=2e-5, rtol=1e-5)


def test_layers_below_the_first_adapter_count_as_frozen(esm_folder):
    encoder, _ = ours(esm_folder, layers="2,4")
    assert first_trained_layer(encoder.model) == 1
    assert encoder.num_frozen_layers == 1


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("all", (0, 1, 2, 3, 4, 5, 6, 7)),
        ("last-quarter", (6, 7)),
        ("last:3", (5, 6, 7)),
        ("last", (7,)),
        ("spread", (3, 5, 7)),
        ("1,3-4", (0, 2, 3)),
    ],
)
def test_layers_are_read_as_users_write_them(text, layers):
    assert parse_layers(text, 8) == layers


def test_the_last_quarter_of_esm2_650m_is_the_papers_choice():
    assert np.array_equal(np.array(parse_layers("last-quarter", 33)) + 1, np.arange(26, 34))
