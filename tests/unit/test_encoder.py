"""Frozen states from the store, from the device and computed are the same; vectors keep the order of the proteins."""

import io

import numpy as np
import pytest
import torch
from rich.console import Console

from conftest import random_sequence
from peftide.inference.caching import close_store, open_store
from peftide.inference.device_states import DeviceStates
from peftide.inference.embed import embed_proteins, embed_residues, embedding_key, length_batches
from peftide.inference.encoder import Encoder
from peftide.models.adapters import add_lora
from peftide.models.backbones import load_backbone
from peftide.models.machine import Machine
from peftide.models.tokens import cut_pieces

CPU = torch.device("cpu")
LENGTHS = (9, 70, 33, 120, 5, 33)
PLENTY = 10**9
WIDTH = 48
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])


def frozen(folder, *, dtype=torch.float32, pooling="mean", state_layers=()):
    backbone = load_backbone(str(folder), dtype=dtype)
    return Encoder(backbone, backbone.model, Machine(CPU, dtype), pooling=pooling, state_layers=state_layers)


def adapted(folder, *, dtype=torch.float32, dropout=0.0, layers=(2, 3), state_layers=()):
    """LoRA with random weights on some layers; those below are frozen."""
    backbone = load_backbone(str(folder), dtype=dtype)
    model = add_lora(backbone, rank=4, alpha=8, dropout=dropout, matrices=("key", "value"), layers=layers)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if "lora_" in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return Encoder(backbone, model.eval(), Machine(CPU, dtype), state_layers=state_layers)


def pieces_of(encoder, lengths=LENGTHS, **rules):
    rules = {"max_residues": 1022, "long_proteins": "crop"} | rules
    sequences = [random_sequence(length, seed=number) for number, length in enumerate(lengths)]
    return [cut_pieces(sequence, encoder.backbone.vocabulary, **rules) for sequence in sequences]


def store_of(encoder, proteins, folder, *, kind="states", limit_bytes=PLENTY):
    store, note = open_store(encoder, proteins, kind=kind, cache_dir=str(folder), limit_bytes=limit_bytes)
    assert store is not None, note
    return store


@torch.no_grad()
def hidden(encoder, proteins):
    return encoder.hidden(proteins)[0]


def with_store(encoder, proteins, folder):
    """Hidden states through a store that is opened and closed, how many pieces it held then, and the store."""
    with store_of(encoder, proteins, folder) as encoder.states:
        states_TD = hidden(encoder, proteins)
        store, num_stored = encoder.states, len(encoder.states)
    encoder.states = None
    return states_TD, num_stored, store


def states_file(folder):
    (path,) = folder.rglob("*.states")
    return path


@DTYPES
def test_stored_states_equal_computed_ones_to_the_last_bit(esm_folder, tmp_path, dtype):
    encoder = adapted(esm_folder, dtype=dtype)
    proteins = pieces_of(encoder)
    computed = hidden(encoder, proteins)
    cold, num_stored, _ = with_store(encoder, proteins, tmp_path)
    warm, _, _ = with_store(adapted(esm_folder, dtype=dtype), proteins, tmp_path)
    assert num_stored == len(proteins)
    assert torch.equal(cold, computed)
    assert torch.equal(warm, computed)
    assert computed.dtype == dtype


@DTYPES
def test_a_warm_store_is_read_and_not_computed_again(esm_folder, tmp_path, dtype):
    """Zeros in place of the stored states show in the output: nothing else can come out of a store that has them."""
    encoder = adapted(esm_folder, dtype=dtype)
    proteins = pieces_of(encoder)
    with store_of(encoder, proteins, tmp_path) as store:
        keys = [key for protein in proteins for key in protein.keys]
        rows = [protein.num_tokens for protein in proteins]
        store.put(keys, rows, np.zeros((sum(rows), WIDTH), store.key.dtype))
    zeros, _, _ = with_store(encoder, proteins, tmp_path)
    assert not torch.allclose(zeros.float(), hidden(encoder, proteins).float(), atol=0.1)


def test_a_batch_of_known_and_new_proteins_gives_the_same_states(esm_folder, tmp_path):
    encoder = adapted(esm_folder)
    proteins = pieces_of(encoder)
    with_store(encoder, proteins[1::2], tmp_path)
    mixed, num_stored, _ = with_store(encoder, proteins, tmp_path)
    assert num_stored == len(proteins)
    torch.testing.assert_close(mixed, hidden(encoder, proteins), atol=1e-5, rtol=1e-5)


def test_a_protein_that_occurs_twice_is_stored_once(esm_folder, tmp_path):
    encoder = adapted(esm_folder)
    one, other = pieces_of(encoder)[:2]
    states_TD, num_stored, _ = with_store(encoder, [one, other, one], tmp_path)
    assert num_stored == 2
    first, _, again = states_TD.split([one.num_tokens, other.num_tokens, one.num_tokens])
    torch.testing.assert_close(first, again, atol=1e-6, rtol=1e-6)


@DTYPES
def test_a_damaged_piece_is_computed_again(esm_folder, tmp_path, dtype):
    encoder = adapted(esm_folder, dtype=dtype)
    proteins = pieces_of(encoder, lengths=(60,))
    expected, _, _ = with_store(encoder, proteins, tmp_path)
    path = states_file(tmp_path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    mended, _, store = with_store(encoder, proteins, tmp_path)
    assert store.num_damaged == 1
    assert torch.equal(mended, expected)
    again, _, store = with_store(encoder, proteins, tmp_path)
    assert torch.equal(again, expected)


def test_a_store_cut_short_is_filled_again(esm_folder, tmp_path):
    encoder = adapted(esm_folder)
    proteins = pieces_of(encoder)
    expected, _, _ = with_store(encoder, proteins, tmp_path)
    path = states_file(tmp_path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    mended, num_stored, _ = with_store(encoder, proteins, tmp_path)
    assert num_stored == len(proteins)
    torch.testing.assert_close(mended, expected, atol=1e-5, rtol=1e-5)


def test_a_store_without_room_is_done_without_and_says_so(esm_folder, tmp_path):
    encoder = adapted(esm_folder)
    proteins = pieces_of(encoder)
    store, note = open_store(encoder, proteins, kind="states", cache_dir=str(tmp_path), limit_bytes=2000)
    assert store is None
    assert "do not fit" in note


def test_a_store_that_fills_up_on_the_way_leaves_the_states_as_they_are(esm_folder, tmp_path):
    encoder = adapted(esm_folder)
    proteins = pieces_of(encoder)
    expected = hidden(encoder, proteins)
    encoder.states = store_of(encoder, proteins, tmp_path)
    encoder.states.limit_bytes = 1
    assert torch.equal(hidden(encoder, proteins), expected)
    assert len(encoder.states) == 0
    said = io.StringIO()
    close_store(encoder.states, Console(file=said, width=500))
    assert f"note: cache {tmp_path}: not all was kept: " in said.getvalue()
    assert "what is not kept is computed again" in said.getvalue()


def test_a_store_that_kept_all_says_nothing_on_closing_and_a_damaged_one_how_much(esm_folder, tmp_path):
    encoder = adapted(esm_folder)
    proteins = pieces_of(encoder)
    said = io.StringIO()
    encoder.states = store_of(encoder, proteins, tmp_path)
    hidden(encoder, proteins)
    close_store(encoder.states, Console(file=said, width=500))
    assert said.getvalue() == ""
    [states] = tmp_path.rglob("*.states")
    states.write_bytes(bytes(states.stat().st_size))
    encoder.states = store_of(encoder, proteins, tmp_path)
    hidden(encoder, proteins)
    close_store(encoder.states, Console(file=said, width=500))
    assert f"{len(proteins)} damaged pieces were left out and computed again" in said.getvalue()


def test_a_cache_that_cannot_be_written_is_done_without_and_says_so(esm_folder, tmp_path):
    encoder = adapted(esm_folder)
    (tmp_path / "file").write_text("not a folder")
    cache = {"cache_dir": str(tmp_path / "file" / "cache"), "limit_bytes": PLENTY}
    store, note = open_store(encoder, pieces_of(encoder), kind="states", **cache)
    assert store is None
    assert "cannot be written (Not a directory); what is not kept is computed again" in note
    assert "will be kept" not in note


def test_adapters_and_their_dropout_do_not_reach_the_stored_states(esm_folder, tmp_path):
    """Filled while training with dropout, the store serves other adapters, in eval mode, to the last bit."""
    training = adapted(esm_folder, dropout=0.5)
    training.model.train()
    proteins = pieces_of(training)
    torch.manual_seed(0)
    with_store(training, proteins, tmp_path)
    fresh = adapted(esm_folder)
    with torch.no_grad():
        for parameter in fresh.model.parameters():
            if parameter.requires_grad:
                parameter.mul_(-2.0)
    expected = hidden(fresh, proteins)
    warm, _, _ = with_store(fresh, proteins, tmp_path)
    assert torch.equal(warm, expected)


def test_stores_of_other_layers_and_precisions_are_kept_apart(esm_folder, tmp_path):
    encoders = [
        adapted(esm_folder, layers=(2, 3)),
        adapted(esm_folder, layers=(3,)),
        adapted(esm_folder, dtype=torch.bfloat16),
    ]
    for encoder in encoders:
        proteins = pieces_of(encoder)
        states_TD, _, _ = with_store(encoder, proteins, tmp_path)
        assert torch.equal(states_TD, hidden(encoder, proteins))
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == len(encoders)


@DTYPES
def test_states_of_several_layers_lie_side_by_side_with_and_without_a_store(esm_folder, tmp_path, dtype):
    """The lowest state layer is below the first adapter: its output is what the store holds."""
    encoder = adapted(esm_folder, dtype=dtype, state_layers=(1, 3, 4))
    proteins = pieces_of(encoder)
    found = hidden(encoder, proteins)
    alone = [hidden(adapted(esm_folder, dtype=dtype, state_layers=(layer,)), proteins) for layer in (1, 3, 4)]
    assert torch.equal(found, torch.cat(alone, dim=-1))
    assert encoder.num_frozen_layers == 1
    assert encoder.width == 3 * WIDTH
    for _ in ("cold", "warm"):
        stored, num_stored, store = with_store(encoder, proteins, tmp_path)
        assert torch.equal(stored, found)
        assert (num_stored, store.key.layer, store.key.width) == (len(proteins), 1, WIDTH)


def test_layers_above_the_last_state_layer_are_not_computed(esm_folder):
    encoder = frozen(esm_folder, state_layers=(2,))
    proteins = pieces_of(encoder)
    expected = hidden(encoder, proteins)
    with torch.no_grad():
        for layer in encoder.esm.encoder.layer[2:]:
            for parameter in layer.parameters():
                parameter.fill_(torch.nan)
    assert torch.equal(hidden(encoder, proteins), expected)


def test_vectors_of_different_layers_are_kept_apart(esm_folder, tmp_path):
    choices = [(), (2,), (4,), (2, 4), (3, 4), (2, 3, 4)]
    for state_layers in choices:
        encoder = frozen(esm_folder, state_layers=state_layers)
        proteins = pieces_of(encoder)
        expected_PD = embed_proteins(encoder, proteins, token_budget=500)
        assert expected_PD.shape == (len(proteins), max(1, len(state_layers)) * WIDTH)
        for _ in ("cold", "warm"):
            with store_of(encoder, proteins, tmp_path, kind="mean") as store:
                assert np.array_equal(embed_proteins(encoder, proteins, token_budget=500, store=store), expected_PD)
    folders = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert len(folders) == len(choices) - 1  # the last layer is the default


@DTYPES
@pytest.mark.parametrize("has_store", [False, True])
def test_states_held_on_the_device_equal_computed_ones(esm_folder, tmp_path, dtype, has_store):
    encoder = adapted(esm_folder, dtype=dtype)
    proteins = pieces_of(encoder)
    expected = hidden(encoder, proteins)
    if has_store:
        encoder.states = store_of(encoder, proteins, tmp_path)
    num_tokens = sum(protein.num_tokens for protein in proteins)
    encoder.device_states = DeviceStates(num_tokens, WIDTH, dtype=dtype, device=CPU)
    assert torch.equal(hidden(encoder, proteins), expected)
    assert torch.equal(hidden(encoder, proteins), expected)
    shuffled = [proteins[i] for i in (3, 0, 5)]
    torch.testing.assert_close(
        hidden(encoder, shuffled), hidden(adapted(esm_folder, dtype=dtype), shuffled), atol=2e-2, rtol=2e-2
    )
    if encoder.states is not None:
        encoder.states.close()


def test_gradients_do_not_depend_on_the_store(esm_folder, tmp_path):
    gradients = []
    for folder in (None, tmp_path, tmp_path):
        encoder = adapted(esm_folder)
        proteins = pieces_of(encoder)
        encoder.states = None if folder is None else store_of(encoder, proteins, folder)
        encoder.vectors(proteins).square().sum().backward()
        gradients.append([p.grad for p in encoder.model.parameters() if p.requires_grad])
        if encoder.states is not None:
            encoder.states.close()
    computed, cold, warm = gradients
    for expected, first, second in zip(computed, cold, warm, strict=True):
        assert expected.abs().max() > 0
        assert torch.equal(first, expected)
        assert torch.equal(second, expected)


@pytest.mark.parametrize("token_budget", [1, 50, 140, 10_000])
def test_vectors_are_in_the_order_of_the_proteins_whatever_the_token_budget(esm_folder, token_budget):
    encoder = frozen(esm_folder)
    proteins = pieces_of(encoder)
    alone_PD = torch.cat([encoder.vectors([protein]) for protein in proteins])
    residues = []
    vectors_PD = embed_proteins(encoder, proteins, token_budget=token_budget, advance=residues.append)
    assert vectors_PD.dtype == np.float32
    torch.testing.assert_close(torch.from_numpy(vectors_PD), alone_PD, atol=1e-5, rtol=1e-5)
    assert sum(residues) == sum(LENGTHS)


def test_batches_hold_the_token_budget_and_every_row_once():
    lengths = [30, 5, 80, 5, 41, 200, 12]
    batches = list(length_batches(lengths, 85))
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    sums = [sum(lengths[row] for row in batch) for batch in batches]
    assert all(total <= 85 or len(batch) == 1 for total, batch in zip(sums, batches, strict=True))
    assert batches[0].tolist() == [5]


def test_no_protein_gives_no_vector(esm_folder):
    assert embed_proteins(frozen(esm_folder), [], token_budget=100).shape == (0, WIDTH)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_vectors_of_a_frozen_backbone_are_kept_per_pooling(esm_folder, tmp_path, pooling):
    """The other pooling's vectors lie in the same cache folder and are not taken for these."""
    for other in ("mean", "cls"):
        encoder = frozen(esm_folder, pooling=other)
        proteins = pieces_of(encoder)
        with store_of(encoder, proteins, tmp_path, kind=other) as store:
            embed_proteins(encoder, proteins, token_budget=200, store=store)
    encoder = frozen(esm_folder, pooling=pooling)
    expected = embed_proteins(encoder, proteins, token_budget=200)
    with store_of(encoder, proteins, tmp_path, kind=pooling) as store:
        assert store.missing([embedding_key(protein) for protein in proteins]) == []
        assert np.array_equal(embed_proteins(encoder, proteins, token_budget=200, store=store), expected)


def test_vectors_under_two_rules_for_long_proteins_are_never_shared(esm_folder, tmp_path):
    encoder = frozen(esm_folder)
    rules = [
        {"max_residues": 50, "long_proteins": "crop"},
        {"max_residues": 50, "long_proteins": "window"},
        {"max_residues": 40, "long_proteins": "crop"},
        {"max_residues": 40, "long_proteins": "window"},
        {},
    ]
    vectors = []
    for rule in rules:
        proteins = pieces_of(encoder, lengths=(120,), **rule)
        with store_of(encoder, proteins, tmp_path, kind="mean") as store:
            vectors.append(embed_proteins(encoder, proteins, token_budget=200, store=store))
        assert np.array_equal(vectors[-1], embed_proteins(encoder, proteins, token_budget=200))
    for number, one in enumerate(vectors):
        assert not any(np.array_equal(one, other) for other in vectors[:number])


def test_a_short_protein_is_the_same_under_every_rule_and_is_stored_once(esm_folder, tmp_path):
    encoder = frozen(esm_folder)
    for rule in ("crop", "window"):
        proteins = pieces_of(encoder, lengths=(30,), max_residues=50, long_proteins=rule)
        with store_of(encoder, proteins, tmp_path, kind="mean") as store:
            embed_proteins(encoder, proteins, token_budget=200, store=store)
            assert len(store) == 1


def test_known_vectors_are_read_and_new_ones_added(esm_folder, tmp_path):
    encoder = frozen(esm_folder)
    proteins = pieces_of(encoder)
    with store_of(encoder, proteins, tmp_path, kind="mean") as store:
        store.put([embedding_key(proteins[2])], [1], np.full((1, WIDTH), 7, dtype=np.float32))
        vectors_PD = embed_proteins(encoder, proteins, token_budget=100, store=store)
        assert len(store) == len({embedding_key(protein) for protein in proteins})
    plain_PD = embed_proteins(encoder, proteins, token_budget=100)
    assert (vectors_PD[2] == 7).all()
    others = [0, 1, 3, 4, 5]
    assert vectors_PD[others] == pytest.approx(plain_PD[others], abs=1e-5)


def test_residues_of_a_protein_are_its_hidden_states_between_the_special_tokens(esm_folder):
    encoder = frozen(esm_folder)
    (protein,) = pieces_of(encoder, lengths=(33,))
    states_LD = embed_residues(encoder, [protein], token_budget=500)[0]
    assert states_LD.shape == (33, WIDTH)
    assert np.array_equal(states_LD, hidden(encoder, [protein])[1:-1].numpy())


def test_residues_in_two_windows_have_the_mean_of_both(esm_folder):
    encoder = frozen(esm_folder)
    (protein,) = pieces_of(encoder, lengths=(120,), max_residues=50, long_proteins="window")
    states_LD = embed_residues(encoder, [protein], token_budget=500)[0]
    assert states_LD.shape == (120, WIDTH)
    windows = hidden(encoder, [protein]).split([len(piece) for piece in protein.tokens])
    for residue in range(120):
        seen = [
            window[1 + residue - start].numpy()
            for start, window in zip(protein.starts, windows, strict=True)
            if start <= residue < start + len(window) - 2
        ]
        assert states_LD[residue] == pytest.approx(np.mean(seen, axis=0), abs=1e-5)
    assert any(start > 0 for start in protein.starts)


@pytest.mark.parametrize("rule", ["crop", "window"])
def test_the_vector_of_a_protein_is_the_mean_of_its_residues(esm_folder, rule):
    encoder = frozen(esm_folder)
    (protein,) = pieces_of(encoder, lengths=(131,), max_residues=50, long_proteins=rule)
    vector = embed_proteins(encoder, [protein], token_budget=60)[0]
    assert vector == pytest.approx(embed_residues(encoder, [protein], token_budget=500)[0].mean(axis=0), abs=1e-5)
    assert protein.num_residues == (50 if rule == "crop" else 131)


def test_embedding_switches_dropout_off(esm_folder):
    encoder = adapted(esm_folder, dropout=0.5)
    proteins = pieces_of(encoder)
    expected = embed_proteins(encoder, proteins, token_budget=500)
    encoder.model.train()
    assert np.array_equal(embed_proteins(encoder, proteins, token_budget=500), expected)
    encoder.model.train()
    assert np.array_equal(
        embed_residues(encoder, [proteins[0]], token_budget=500)[0],
        embed_residues(encoder, [proteins[0]], token_budget=500)[0],
    )
