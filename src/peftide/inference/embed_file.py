"""A file of proteins to a file of embeddings: in portions, with memory that does not grow with the file, resumable."""

from functools import partial
from pathlib import Path

from rich.console import Console
from rich.text import Text

from peftide.config import EmbedSettings
from peftide.data.cleaned import note_merged
from peftide.data.findings import Findings
from peftide.data.portions import PortionSize, outlines_digest
from peftide.data.protein_scan import Scan, ScanRules, scan_proteins
from peftide.data.proteins import find_proteins
from peftide.data.writers import check_not_input
from peftide.errors import UserError
from peftide.inference.computing import computing
from peftide.inference.parts_folder import interruptible, parts_folder, remove_parts
from peftide.inference.portion_encoder import (
    RESIDUE_PORTION,
    VECTOR_PORTION,
    Embedder,
    embed_portion,
    load_embedder,
    load_embedding,
)
from peftide.inference.portion_parts import cached_vectors, make_parts
from peftide.inference.table_parts import TableParts
from peftide.inference.write_embeddings import check_embedding_path, is_unfit, write_embeddings
from peftide.models.tokens import refuse_long, too_long


def embed_file(settings: EmbedSettings, console: Console, *, portion: PortionSize | None = None) -> Path:
    """Embed every protein of a file and write the embeddings; killed at any moment, the same call goes on.

    Raises UserError for whatever the user can mend: data, settings, an unfinished embedding of another kind at the
    same place, a full disk.
    """
    check_embedding_path(settings.out)
    check_not_input(settings.out, settings.data)
    embedder = load_embedder(settings)
    scan = _scan(settings, embedder, portion or (RESIDUE_PORTION if settings.per_residue else VECTOR_PORTION), console)
    manifest = {"format": 1, "proteins": outlines_digest(scan.checked.outlines)} | embedder.identity()
    with parts_folder(Path(settings.out), manifest, what="embedding") as folder, interruptible(folder, console):
        parts = TableParts(folder, "embeddings", manifest)
        store = cached_vectors(embedder, scan.checked, settings, console, is_published=settings.bundle is None)
        work = partial(embed_portion, embedder)
        with computing(settings, work, load_embedding, embedder=embedder, store=store, console=console) as compute:
            make_parts(scan.checked, parts, console, compute)
        encoder = embedder.encoder
        attributes = {
            "backbone": encoder.backbone.name,
            "bundle": settings.bundle or "",
            "pooling": encoder.pooling,
            "state_layers": encoder.layers_text,
        }
        with console.status("writing"):
            write_embeddings(settings.out, parts.read_all(len(scan.checked.outlines)), attributes, within=folder)
    remove_parts(folder)
    console.print(f"{scan.checked.num_proteins:,} embeddings written to {settings.out}", highlight=False)
    return Path(settings.out)


def _scan(settings: EmbedSettings, embedder: Embedder, size: PortionSize, console: Console) -> Scan:
    """The checked file, with the notes of reading said."""
    findings, path = Findings(), settings.data
    file = find_proteins(
        path, column_id=settings.column_id, column_sequence=settings.column_sequence, findings=findings
    )
    rules = ScanRules(
        size,
        merges=True,
        max_residues=embedder.max_residues,
        crops=embedder.long_proteins == "crop",
        is_unfit=lambda name: is_unfit(settings.out, name),
    )
    with console.status(Text(f"reading {path}")):
        scan = scan_proteins(file, rules, findings=findings)
    findings.raise_problems(path)
    note_merged(path, len(scan.repeats), findings=findings)
    for note in findings.notes:
        console.print(f"note: {note}", highlight=False)
    if unfit := scan.unfit.texts(scan.repeats, lambda found: found.name):
        raise UserError(
            f"{settings.out}: HDF5 cannot hold a dataset named {unfit[0]!r} ({len(unfit)} such ids); write .parquet "
            "instead"
        )
    if embedder.long_proteins == "error":
        lines = scan.long.texts(scan.repeats, lambda found: too_long(found.name, found.num_residues))
        refuse_long(lines, embedder.max_residues)
    return scan
