"""A file of examples to a file of predictions: in portions, resumable, with memory that does not grow with its rows.

Shapes: N examples, K proteins of an example, P proteins, D width.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.text import Text

from peftide.config import DataSettings, PredictSettings
from peftide.data.example_file import scan_examples, stand_alone
from peftide.data.member_file import ROWS_AT_ONCE, MemberFile, member_file
from peftide.data.member_scan import scan_members
from peftide.data.portions import PortionSize, ProteinsInMemory, outlines_digest
from peftide.data.writers import check_not_input, check_table_path, write_rows
from peftide.errors import UserError
from peftide.inference.computing import computing
from peftide.inference.embedding_tables import values_of
from peftide.inference.live_bars import live_bar
from peftide.inference.parts_folder import interruptible, parts_folder, remove_parts, write_part
from peftide.inference.portion_encoder import VECTOR_PORTION, embed_portion
from peftide.inference.portion_parts import cached_vectors, make_parts
from peftide.inference.predict_portions import (
    Predictor,
    load_members,
    load_prediction,
    load_predictor,
    predict_encoded,
    predict_portion,
)
from peftide.inference.score import data_settings
from peftide.inference.table_parts import TableParts
from peftide.models.bundle import OWN_NAMES
from peftide.records import Dataset, Proteins

ROWS_IN_PART = 1 << 16  # examples scored before the scores are kept

SCORED = "scored"  # the digest of scored examples: the manifest says which these are

Columns = dict[str, list]
Each = Callable[[Columns], None]


@dataclass(frozen=True)
class Written:
    """How many predictions a table got, and how many of them without an answer."""

    num_rows: int
    num_abstained: int


def predict_file(
    settings: PredictSettings,
    console: Console,
    *,
    portion: PortionSize = VECTOR_PORTION,
    rows_at_once: int = ROWS_AT_ONCE,
    each: Each = lambda columns: None,
) -> Written:
    """Score every example of a file with a bundle and write the table; killed at any moment, the same call goes on.

    rows_at_once: of a table of pairs, or of ids alone, in memory while it is read. each: told of the columns of each
    chunk of rows that is written. Raises UserError for whatever the user can mend: data, settings, an unfinished
    prediction of another kind at the same place, a full disk.
    """
    check_table_path(settings.out)
    check_not_input(settings.out, settings.data, settings.sequences)
    out = Path(settings.out)
    if out.name in OWN_NAMES and (out.parent / "run.json").exists():
        raise UserError(f"--out {out}: is a file of the bundle {out.parent}; name another to write")
    predictor = load_predictor(settings)
    wanted = data_settings(predictor.model, settings)
    if stand_alone(wanted):
        return _predict_alone(wanted, settings, predictor, console, portion=portion, each=each)
    return _predict_joined(settings, predictor, console, portion=portion, rows_at_once=rows_at_once, each=each)


def _predict_alone(
    wanted: DataSettings,
    settings: PredictSettings,
    predictor: Predictor,
    console: Console,
    *,
    portion: PortionSize,
    each: Each,
) -> Written:
    """Proteins whose sequences are in the table itself: each portion of it is encoded and scored by itself."""
    target = predictor.model.target
    with console.status(Text(f"reading {settings.data}")):
        scan, notes = scan_examples(wanted, portion, classes=target.classes, kind=target.kind)
    _say(notes, console)
    source = scan.checked
    manifest = _manifest(predictor, outlines_digest(source.outlines))
    with parts_folder(Path(settings.out), manifest, what="prediction") as folder, interruptible(folder, console):
        parts = TableParts(folder, "predictions", manifest)
        embedder, work = predictor.embedder, partial(predict_portion, predictor)
        store = cached_vectors(embedder, source, settings, console, is_published=predictor.model.method == "head")
        with computing(settings, work, load_prediction, embedder=embedder, store=store, console=console) as compute:
            make_parts(source, parts, console, compute)
        tables = parts.read_all(len(source.outlines))
        written = write_answers(settings.out, tables, folder, console, each=each)
    remove_parts(folder)
    return written


def _predict_joined(
    settings: PredictSettings,
    predictor: Predictor,
    console: Console,
    *,
    portion: PortionSize,
    rows_at_once: int,
    each: Each,
) -> Written:
    """Pairs, and proteins whose sequences are in another file: the different ones are encoded, then examples scored.

    Memory grows with the different proteins, not with the examples.
    """
    model, out = predictor.model, Path(settings.out)
    with member_file(out.absolute().parent, 2 if model.task == "pair" else 1, rows_at_once=rows_at_once) as members:
        with console.status(Text(f"reading {settings.data}")):
            wanted, target = data_settings(model, settings), model.target
            proteins, notes = scan_members(wanted, members, classes=target.classes, kind=target.kind)
        _say(notes, console)
        most_residues = model.max_residues if model.long_proteins == "crop" else None
        source = ProteinsInMemory.cut(proteins, portion, most_residues=most_residues)
        content = hashlib.sha256(outlines_digest(source.outlines).encode())
        for chunk_NK in members.chunks():
            content.update(chunk_NK.tobytes())
        manifest = _manifest(predictor, content.hexdigest()[:16])
        with parts_folder(out, manifest, what="prediction") as folder, interruptible(folder, console):
            vectors = TableParts(folder, "vectors", manifest)
            parts = TableParts(folder, "predictions", manifest)
            # The mapped vectors have no name here: on network disks a file cannot be removed while it is in use
            _score(proteins, members, _encode(source, predictor, vectors, settings, console), predictor, parts, console)
            tables = parts.read_all(len(_chunks(len(members))))
            written = write_answers(settings.out, tables, folder, console, each=each)
    remove_parts(folder)
    return written


def _encode(
    source: ProteinsInMemory, predictor: Predictor, parts: TableParts, settings: PredictSettings, console: Console
) -> np.ndarray:
    """Vectors (P, D) of all proteins, in a file that is mapped into memory."""
    embedder, file = predictor.embedder, parts.folder / "vectors.float32"
    store = cached_vectors(embedder, source, settings, console, is_published=predictor.model.method == "head")
    work = partial(embed_portion, embedder)
    with computing(settings, work, load_members, embedder=embedder, store=store, console=console) as compute:
        make_parts(source, parts, console, compute)

    def save(path: Path) -> None:
        with path.open("wb") as stream:
            for table in parts.read_all(len(source.outlines)):
                stream.write(values_of(table).tobytes())

    write_part(file, save)
    return np.memmap(file, np.float32, mode="r", shape=(len(source.proteins), embedder.encoder.width))


def _chunks(num_examples: int) -> list[range]:
    """The rows of each part of the scores."""
    rows = range(num_examples)
    return [rows[start : start + ROWS_IN_PART] for start in rows[::ROWS_IN_PART]]


def _score(
    proteins: Proteins,
    members: MemberFile,
    vectors_PD: np.ndarray,
    predictor: Predictor,
    parts: TableParts,
    console: Console,
) -> None:
    model = predictor.model
    with live_bar(console, len(members), doing="scoring", unit="examples") as advance:
        for number, rows in enumerate(_chunks(len(members))):
            if not parts.is_there(number, SCORED, say=lambda text: console.print(text, highlight=False)):
                members_NK = members.rows(rows.start, rows.stop)
                examples = Dataset(model.task, model.target.kind, proteins, members_NK, None, model.target.classes)
                parts.write(number, SCORED, predict_encoded(predictor, examples, vectors_PD))
            advance(len(rows))


def _manifest(predictor: Predictor, examples: str) -> dict[str, Any]:
    answers = {"threshold": predictor.threshold, "min_confidence": predictor.min_confidence}
    return {"format": 1, "examples": examples} | predictor.embedder.identity() | answers


def write_answers(
    out: str, tables: Iterator[pa.Table], folder: Path, console: Console, *, each: Each = lambda columns: None
) -> Written:
    """Write the rows of all tables to one; folder: that of the parts, where it is put together. each: as above."""
    num_rows = num_abstained = 0

    def chunks() -> Iterator[Columns]:
        nonlocal num_rows, num_abstained
        for table in tables:
            columns = {name: table[name].to_pylist() for name in table.column_names}
            num_rows += len(table)
            num_abstained += columns["prediction"].count("")
            each(columns)
            yield columns

    with console.status("writing"):
        write_rows(out, chunks(), within=folder)
    return Written(num_rows, num_abstained)


def _say(notes: Iterable[str], console: Console) -> None:
    for note in notes:
        console.print(f"note: {note}", highlight=False)
