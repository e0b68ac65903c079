"""Small random ESM-2 checkpoints and proteins, shared by all tests."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PEFTIDE_CACHE", str(tmp_path / "cache"))


def random_sequence(length: int, seed: int = 0) -> str:
    """A protein of `length` random residues."""
    letters = np.random.default_rng([seed, length]).choice(list("ACDEFGHIKLMNPQRSTVWY"), length)
    return "".join(letters)


@pytest.fixture(scope="session")
def esm_folder(tmp_path_factory) -> Path:
    """A random ESM-2 of 4 layers and width 48, saved as the hub has it (with a language-model head)."""
    import torch
    from safetensors.torch import save_file
    from transformers import EsmConfig, EsmForMaskedLM

    from peftide.models.backbones import backbone_folder

    folder = tmp_path_factory.mktemp("esm")
    torch.manual_seed(11)
    config = EsmConfig(
        vocab_size=33, hidden_size=48, num_hidden_layers=4, num_attention_heads=4, intermediate_size=96,
        pad_token_id=1, mask_token_id=32, position_embedding_type="rotary", token_dropout=True,
        emb_layer_norm_before=False, max_position_embeddings=1026, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    model = EsmForMaskedLM(config)
    with torch.no_grad():  # larger than at initialisation, so that attention and norms do something
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    state = {name: t.contiguous() for name, t in model.state_dict().items() if "inv_freq" not in name}
    state.pop("lm_head.decoder.weight", None)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    document = config.to_dict() | {"architectures": ["EsmForMaskedLM"], "dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(document))
    shutil.copy(backbone_folder() / "vocab.txt", folder / "vocab.txt")
    return folder
