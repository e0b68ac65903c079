"""Encode one portion of proteins: the same table of embeddings in whichever process it is done.

`load_embedder` takes settings and `embed_portion` a portion, plain values both, so that a worker on another machine can
call them.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa

from peftide.config import EmbedSettings, LongProteins, numbered_layers
from peftide.data.portions import Portion, PortionSize
from peftide.inference.embed import Advance, embed_proteins, embed_residues
from peftide.inference.embedding_tables import residue_table, vector_table
from peftide.inference.encoder import Encoder
from peftide.inference.score import inference_budget, load_for_inference
from peftide.inference.store import StateStore
from peftide.inference.work import Loaded
from peftide.models.backbones import load_backbone
from peftide.models.bundle import bundle_digest
from peftide.models.machine import choose_machine
from peftide.models.property_model import PropertyModel
from peftide.models.tokens import Pieces, cut_proteins
from peftide.records import Proteins

# Of several calls of the encoder, so that little is lost where they end; of a minute or so of a laptop's time with a
# small backbone, so that little is lost where the process is killed. Residues take a row each: fewer in a portion.
VECTOR_PORTION = PortionSize(rows=4096, residues=1 << 18)
RESIDUE_PORTION = PortionSize(rows=4096, residues=1 << 14)


@dataclass(frozen=True)
class Embedder:
    """What turns portions into tables of embeddings.

    max_residues, long_proteins: how proteins are cut. bundle: None for a backbone as it was published.
    """

    encoder: Encoder
    max_residues: int
    long_proteins: LongProteins
    token_budget: int
    per_residue: bool = False
    bundle: str | None = None

    def cut(self, proteins: Proteins) -> list[Pieces]:
        """Proteins as the encoder sees them."""
        return cut_proteins(
            proteins,
            self.encoder.backbone.vocabulary,
            max_residues=self.max_residues,
            long_proteins=self.long_proteins,
        )

    def identity(self) -> dict[str, str | int | bool]:
        """All that decides an embedding beside the protein, as JSON values; the token budget moves only last digits."""
        encoder = self.encoder
        return {
            "model": encoder.backbone.fingerprint if self.bundle is None else bundle_digest(Path(self.bundle)),
            "arithmetic": f"{encoder.machine.precision} on {encoder.machine.device.type}",
            "pooling": encoder.pooling,
            "state_layers": encoder.layers_text,
            "per_residue": self.per_residue,
            "max_residues": self.max_residues,
            "long_proteins": self.long_proteins,
        }


def load_embedder(settings: EmbedSettings) -> Embedder:
    """The encoder of a bundle, or of a backbone as published. Raises UserError where it cannot be had."""
    if settings.bundle is not None:
        model, encoder, token_budget = load_for_inference(settings.bundle, settings)
        return embedder_of(model, encoder, token_budget, bundle=settings.bundle, per_residue=settings.per_residue)
    machine = choose_machine(settings.device, settings.precision, settings.threads)
    backbone = load_backbone(settings.backbone, dtype=machine.dtype)
    encoder = Encoder(
        backbone, backbone.model, machine,
        pooling=settings.pooling, state_layers=numbered_layers(settings.state_layers, backbone.num_layers),
        compile_layers=settings.compile,
    )  # fmt: skip
    budget = inference_budget(settings, machine)
    return Embedder(encoder, settings.max_residues, settings.long_proteins, budget, settings.per_residue)


def embedder_of(
    model: PropertyModel, encoder: Encoder, token_budget: int, *, bundle: str, per_residue: bool = False
) -> Embedder:
    """Embeds as a loaded bundle does."""
    return Embedder(encoder, model.max_residues, model.long_proteins, token_budget, per_residue, bundle)


def embed_portion(
    embedder: Embedder,
    portion: Portion,
    *,
    store: StateStore | None = None,
    advance: Advance = lambda residues: None,
) -> pa.Table:
    """The embeddings of a portion's proteins, in its order; `store` as in `embed_proteins`.

    The same portion gives the same table: sorting and batches depend on it and on the token budget alone.
    """
    pieces, encoder, budget = embedder.cut(portion.proteins), embedder.encoder, embedder.token_budget
    if embedder.per_residue:
        states = embed_residues(encoder, pieces, token_budget=budget, advance=advance)
        return residue_table(portion.ids, states, encoder.width)
    vectors_PD = embed_proteins(encoder, pieces, token_budget=budget, store=store, advance=advance)
    return vector_table(portion.ids, vectors_PD)


def load_embedding(settings: EmbedSettings) -> Loaded[Portion, pa.Table]:
    """What `peftide embed` does to portions, for any process. Raises UserError where the encoder cannot be had."""
    embedder = load_embedder(settings)
    return Loaded(embedder.identity(), partial(embed_portion, embedder))
