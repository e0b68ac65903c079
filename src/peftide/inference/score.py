"""From a bundle to scores of a dataset: load, encode each protein once, run the head."""

from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from peftide.config import DataSettings, MachineSettings, TableSettings
from peftide.inference.caching import frozen_vectors
from peftide.inference.embed import embed_proteins, embedding_key
from peftide.inference.encoder import Encoder, encoder_of
from peftide.inference.live_bars import encoding_progress
from peftide.inference.predict import score_examples
from peftide.models.bundle import load_bundle
from peftide.models.bundle_facts import BundleFacts
from peftide.models.machine import Machine, choose_machine
from peftide.models.property_model import PropertyModel
from peftide.records import Dataset

# Tokens of one call: enough to fill the device, on a CPU few enough for its caches. Larger calls were slower there:
# swissprot-10m trained at 13,300 tokens/s in calls of 4,096, 12,400 in calls of 8,192, 8,300 in whole steps.
TOKENS_AT_ONCE = {"cuda": 65_536, "cpu": 4_096, "mps": 16_384}


def load_for_inference(bundle: str, settings: MachineSettings) -> tuple[PropertyModel, Encoder, int]:
    """The model of a bundle on the machine of the settings, its encoder, and how many tokens to encode at once."""
    machine = choose_machine(settings.device, settings.precision, settings.threads)
    model = load_bundle(Path(bundle), dtype=machine.dtype)
    encoder = encoder_of(model, machine, compile_layers=settings.compile)
    model.head.to(machine.device)
    return model, encoder, inference_budget(settings, machine)


def inference_budget(settings: MachineSettings, machine: Machine) -> int:
    """Tokens to encode at once without gradient: enough to fill the device."""
    return settings.token_budget or TOKENS_AT_ONCE[machine.device.type]


def data_settings(model: PropertyModel | BundleFacts, settings: TableSettings) -> DataSettings:
    """How to read examples as a model was trained to see them."""
    names = set(DataSettings.__dataclass_fields__)
    given: dict[str, Any] = asdict(settings)
    return replace(
        DataSettings(**{name: value for name, value in given.items() if name in names}),
        task=model.task,
        target=model.target.kind,
        max_residues=model.max_residues,
        long_proteins=model.long_proteins,
    )


def score_dataset(
    model: PropertyModel,
    encoder: Encoder,
    dataset: Dataset,
    *,
    token_budget: int,
    settings: MachineSettings,
    console: Console,
) -> np.ndarray:
    """Scores of the examples in order; every protein that occurs in them is encoded once, behind a live bar.

    A frozen backbone's vectors are shared with other runs through the cache.
    """
    rows, members_NK = np.unique(dataset.members_NK, return_inverse=True)
    known = model.pieces(dataset.proteins)
    pieces = [known[row] for row in rows]
    with ExitStack() as stack:
        store = None
        if model.method == "head":
            digests = [embedding_key(protein) for protein in pieces]
            store = stack.enter_context(frozen_vectors(encoder, digests, settings, console))
        advance = stack.enter_context(encoding_progress(console, sum(protein.num_residues for protein in pieces)))
        vectors_PD = embed_proteins(encoder, pieces, token_budget=token_budget, store=store, advance=advance)
    return score_examples(model, vectors_PD, members_NK.reshape(dataset.members_NK.shape))
