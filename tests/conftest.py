"""Small random ESM-2 checkpoints, proteins and tables of examples, shared by all tests."""

import json
import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hypothesis
import numpy as np
import pytest

# The suite tries the same cases everywhere: it fails for a change, not by chance. `make fuzz` tries new ones.
hypothesis.settings.register_profile("same cases", derandomize=True)
if os.environ.get("PEFTIDE_FUZZ_SCALE", "1") == "1":
    hypothesis.settings.load_profile("same cases")


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PEFTIDE_CACHE", str(tmp_path / "cache"))


@contextmanager
def limited_files(num_bytes: int) -> Iterator[None]:
    """No file can grow beyond so many bytes, as on a disk that is nearly full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def random_sequence(length: int, seed: int = 0) -> str:
    """A protein of `length` random residues."""
    letters = np.random.default_rng([seed, length]).choice(list("ACDEFGHIKLMNPQRSTVWY"), length)
    return "".join(letters)


@pytest.fixture(scope="session")
def esm_folder(tmp_path_factory) -> Path:
    """A random ESM-2 of 4 layers and width 48, saved as the hub has it (with a language-model head)."""
    return write_esm(tmp_path_factory.mktemp("esm"))


def write_esm(folder: Path) -> Path:
    """Write the checkpoint of `esm_folder` into an empty folder; the folder."""
    import torch
    from safetensors.torch import save_file
    from transformers import EsmConfig, EsmForMaskedLM

    from peftide.models.backbones import backbone_folder

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


NUM_PROTEINS = 18
PROTEIN_LABELS = {  # of protein number i, by kind of target; every class is in every third of the proteins
    "binary": lambda i: "membrane" if i % 2 else "soluble",
    "multiclass": lambda i: ("cytoplasm", "membrane", "nucleus")[i % 3],
    "multilabel": lambda i: ("kinase", "kinase;binder", "binder;motor")[i % 3],
    "regression": lambda i: f"{50 + 7.5 * ((5 * i) % 11):.1f}",
    "symmetry": lambda i: ("C1", "C2 D2", "C3", "O")[i % 4],
}
EXAMPLES = ("pair", *PROTEIN_LABELS)


def write_examples(folder: Path, kind: str) -> dict[str, str]:
    """Write a tiny table with a split column (and its FASTA) into `folder`; the settings that read it.

    kind: "pair" (34 pairs of 18 proteins), "symmetry", or the kind of target of 18 labelled proteins.
    """
    sequences = {f"P{i:02d}": random_sequence(6 + 3 * i, seed=i) for i in range(NUM_PROTEINS)}
    splits = ["train"] * 10 + ["val"] * 4 + ["test"] * 4
    if kind == "pair":
        fasta = folder / "proteins.fasta"
        fasta.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in sequences.items()))
        lines = ["protein_a\tprotein_b\tlabel\tsplit"]
        for split, first, last in (("train", 0, 10), ("val", 10, 14), ("test", 14, 18)):
            pairs = [(a, b) for a in range(first, last) for b in range(a + 1, last)][:22]
            lines += [f"P{a:02d}\tP{b:02d}\t{number % 2}\t{split}" for number, (a, b) in enumerate(pairs)]
        table = folder / "pairs.tsv"
        table.write_text("\n".join(lines) + "\n")
        return {"data": str(table), "sequences": str(fasta), "task": "pair"}
    lines = ["id\tsequence\tlabel\tsplit"]
    for number, (name, sequence) in enumerate(sequences.items()):
        lines.append(f"{name}\t{sequence}\t{PROTEIN_LABELS[kind](number)}\t{splits[number]}")
    table = folder / f"{kind}.tsv"
    table.write_text("\n".join(lines) + "\n")
    if kind == "symmetry":
        return {"data": str(table), "task": "symmetry"}
    return {"data": str(table), "task": "protein", "target": kind}
