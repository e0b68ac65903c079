"""Predictions by one bundle, or by all of a folder: each scores the file by itself, then the scores are averaged."""

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from rich.console import Console

from peftide.config import PredictSettings, TableSettings
from peftide.data.files import data_digests, files_of, recognise
from peftide.data.writers import check_not_input, check_table_path
from peftide.errors import UserError
from peftide.inference.parts_folder import interruptible, parts_folder, remove_parts
from peftide.inference.predict import answer_columns, scores_of
from peftide.inference.predict_file import ROWS_IN_PART, Each, Written, predict_file, write_answers
from peftide.inference.predict_portions import check_answers
from peftide.models.bundle import bundle_digest, bundles_together
from peftide.models.bundle_facts import BundleFacts
from peftide.models.machine import choose_machine

ID_COLUMNS = ("id", "protein_a", "protein_b")


def predict_by_bundles(settings: PredictSettings, console: Console, *, each: Each = lambda columns: None) -> None:
    """Score every example of a file and write the table; killed at any moment, the same call goes on.

    For `each` and errors see `predict_file`.
    """
    bundles, facts = bundles_together(Path(settings.bundle))
    if len(bundles) == 1:
        written = predict_file(replace(settings, bundle=str(bundles[0])), console, each=each)
    else:
        console.print(f"{len(bundles)} models together: {', '.join(path.name for path in bundles)}", highlight=False)
        written = _predict_together(settings, bundles, facts, console, each=each)
    abstained = "" if settings.min_confidence is None else f" ({written.num_abstained:,} without an answer)"
    console.print(f"{written.num_rows:,} predictions written to {settings.out}{abstained}", highlight=False)


def _predict_together(
    settings: PredictSettings, bundles: Sequence[Path], facts: BundleFacts, console: Console, *, each: Each
) -> Written:
    """The models one after another, so that one is in memory at a time; what each has scored is kept till the end."""
    check_table_path(settings.out)
    check_not_input(settings.out, settings.data, settings.sequences)
    check_answers(settings, facts.target)
    for path in files_of(settings):
        recognise(path)
    with (
        parts_folder(Path(settings.out), _manifest(settings, bundles), what="prediction") as folder,
        interruptible(folder, console),
    ):
        tables = [folder / f"{number}-{bundle.name}.parquet" for number, bundle in enumerate(bundles, start=1)]
        for bundle, table in zip(bundles, tables, strict=True):
            if table.is_file():
                console.print(f"{bundle}: scored already", highlight=False)
                continue
            console.print(f"{bundle}:", highlight=False)
            alone = replace(settings, bundle=str(bundle), out=str(table), threshold=0.5, min_confidence=None)
            predict_file(alone, console)
        written = write_answers(settings.out, _averaged(tables, settings, facts), folder, console, each=each)
    remove_parts(folder)
    return written


def _manifest(settings: PredictSettings, bundles: Sequence[Path]) -> dict[str, Any]:
    """All that decides what each model scores, but how its scores become answers."""
    machine = choose_machine(settings.device, settings.precision, settings.threads)
    names = [item.name for item in fields(TableSettings) if item.name not in ("data", "sequences")]
    return {
        "format": 1,
        "models": [bundle_digest(bundle) for bundle in bundles],
        "arithmetic": f"{machine.precision} on {machine.device.type}",
        "sha256": list(data_digests(settings).values()),
        "reading": {name: getattr(settings, name) for name in names},
    }


def _averaged(paths: Sequence[Path], settings: PredictSettings, facts: BundleFacts) -> Iterator[pa.Table]:
    """The rows of all tables side by side, their scores averaged, a part at a time."""
    for tables in zip_longest(*map(_read, paths)):
        if tables[0] is None:
            raise _damaged(paths[0], f"fewer examples than in {paths[1].name}")
        ids = {name: tables[0][name] for name in ID_COLUMNS if name in tables[0].column_names}
        for path, table in zip(paths, tables, strict=True):
            if table is None or any(not table[name].equals(column) for name, column in ids.items()):
                raise _damaged(path, f"other examples than in {paths[0].name}")
        scores = [scores_of({name: table[name].to_numpy() for name in table.column_names}, facts.target)
                  for table in tables]  # fmt: skip
        answers = answer_columns(
            facts.task, np.mean(scores, axis=0), facts.target,
            threshold=settings.threshold, min_confidence=settings.min_confidence,
        )  # fmt: skip
        yield pa.table(ids | {name: pa.array(column) for name, column in answers.items()})


def _read(path: Path) -> Iterator[pa.Table]:
    try:
        with path.open("rb") as stream, pyarrow.parquet.ParquetFile(stream) as file:
            for batch in file.iter_batches(batch_size=ROWS_IN_PART):
                yield pa.Table.from_batches([batch])
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(f"{path}: is damaged ({reason}); remove it, and the same command makes it again and goes on")
