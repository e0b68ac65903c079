"""The packed forward against stock transformers, one sequence at a time."""

import pytest
import torch
from transformers import EsmModel, EsmTokenizer

from conftest import random_sequence
from peftide.models.backbones import backbone_folder, load_backbone
from peftide.models.packed import POOLED_TOGETHER, hidden_states, pack, pool
from peftide.models.tokens import cut_pieces

CPU = torch.device("cpu")
LENGTHS = (1, 2, 37, 150, 1022, 5)


def pieces_of(backbone, sequences, **options):
    rules = {"max_residues": 1022, "long_proteins": "crop"} | options
    return [cut_pieces(sequence, backbone.vocabulary, **rules) for sequence in sequences]


def packed_states(backbone, proteins):
    batch = pack(proteins, pooling="mean", mask_id=backbone.vocabulary.mask_id, device=CPU)
    return hidden_states(backbone.model, batch, dtype=torch.float32), batch


def stock_states(folder, tokens):
    model = EsmModel.from_pretrained(folder, add_pooling_layer=False, dtype=torch.float32).eval()
    ids = torch.from_numpy(tokens)[None]
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]


@pytest.mark.parametrize("which", ["random", "shipped"])
def test_packed_states_equal_those_of_stock_transformers_for_each_sequence_alone(which, esm_folder):
    folder = esm_folder if which == "random" else backbone_folder()
    backbone = load_backbone(str(folder), dtype=torch.float32)
    proteins = pieces_of(backbone, [random_sequence(length) for length in LENGTHS])
    with torch.no_grad():
        hidden_TD, batch = packed_states(backbone, proteins)
    for protein, states in zip(proteins, hidden_TD.split(list(batch.lengths)), strict=True):
        expected = stock_states(folder, protein.tokens[0])
        assert (states - expected).abs().max() < 1e-5 * max(1.0, expected.abs().max().item())


def test_masked_tokens_are_scaled_per_sequence_as_in_stock_transformers(esm_folder):
    backbone = load_backbone(str(esm_folder), dtype=torch.float32)
    proteins = pieces_of(backbone, [random_sequence(length) for length in (40, 90, 3)])
    proteins[0].tokens[0][[3, 7, 8]] = backbone.vocabulary.mask_id
    proteins[2].tokens[0][2] = backbone.vocabulary.mask_id
    with torch.no_grad():
        hidden_TD, batch = packed_states(backbone, proteins)
    for protein, states in zip(proteins, hidden_TD.split(list(batch.lengths)), strict=True):
        torch.testing.assert_close(states, stock_states(esm_folder, protein.tokens[0]), atol=1e-5, rtol=1e-5)


def test_a_neighbour_in_the_batch_does_not_change_the_output(esm_folder):
    backbone = load_backbone(str(esm_folder), dtype=torch.float32)
    one, other = pieces_of(backbone, [random_sequence(60), random_sequence(200)])
    with torch.no_grad():
        alone, _ = packed_states(backbone, [one])
        before, _ = packed_states(backbone, [one, other])
        after, _ = packed_states(backbone, [other, one])
    torch.testing.assert_close(before[: len(alone)], alone, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(after[-len(alone) :], alone, atol=2e-6, rtol=1e-5)


def test_the_mean_is_over_residues_and_not_over_special_tokens(esm_folder):
    backbone = load_backbone(str(esm_folder), dtype=torch.float32)
    proteins = pieces_of(backbone, [random_sequence(30), random_sequence(11)])
    with torch.no_grad():
        hidden_TD, batch = packed_states(backbone, proteins)
        vectors_PD = pool(hidden_TD, batch)
    first, second = hidden_TD.split(list(batch.lengths))
    torch.testing.assert_close(vectors_PD[0], first[1:-1].mean(dim=0), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(vectors_PD[1], second[1:-1].mean(dim=0), atol=1e-6, rtol=1e-5)


def test_windows_cover_every_residue_and_average_each_once(esm_folder):
    backbone = load_backbone(str(esm_folder), dtype=torch.float32)
    (protein,) = pieces_of(backbone, [random_sequence(130)], max_residues=50, long_proteins="window")
    covered = {s + i for s, piece in zip(protein.starts, protein.tokens, strict=True) for i in range(len(piece) - 2)}
    assert covered == set(range(130))
    assert all(len(piece) <= 52 for piece in protein.tokens)
    assert sum(weights.sum() for weights in protein.weights) == pytest.approx(1.0, abs=1e-5)
    share = [0.0] * 130
    for start, weights in zip(protein.starts, protein.weights, strict=True):
        for offset, weight in enumerate(weights):
            share[start + offset] += float(weight)
    assert share == pytest.approx([1 / 130] * 130, abs=1e-6)


def test_the_lookup_table_gives_the_ids_of_the_stock_tokenizer():
    tokenizer = EsmTokenizer.from_pretrained(backbone_folder())
    backbone = load_backbone("swissprot-10m", dtype=torch.float32)
    letters = [token for token in tokenizer.get_vocab() if len(token) == 1]
    for sequence in ["".join(letters), "MKT", "ACDJOUXBZ", "AmB?C*"]:  # it merges runs of unknown letters
        assert backbone.vocabulary.encode(sequence).tolist() == tokenizer(sequence)["input_ids"]
    assert list(backbone.vocabulary.tokens) == [tokenizer.convert_ids_to_tokens(i) for i in range(33)]


def test_vectors_of_more_proteins_than_are_pooled_together_are_each_proteins_own_mean(esm_folder):
    backbone = load_backbone(str(esm_folder), dtype=torch.float32)
    proteins = pieces_of(backbone, [random_sequence(3 + n % 7, seed=n) for n in range(POOLED_TOGETHER + 9)])
    batch = pack(proteins, pooling="mean", mask_id=backbone.vocabulary.mask_id, device=CPU)
    hidden_TD = torch.randn(batch.num_tokens, 5)
    expected_PD = torch.stack([own[1:-1].mean(dim=0) for own in hidden_TD.split(list(batch.lengths))])
    torch.testing.assert_close(pool(hidden_TD, batch), expected_PD, atol=1e-6, rtol=1e-5)
    assert max(matrix.numel() for matrix in batch.poolings) <= POOLED_TOGETHER**2 * 11
