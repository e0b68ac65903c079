"""Score all pairs of a proteome, or of two: encode once, score in bands, keep the best, go on where it was killed.

Shapes: P proteins, D width.
"""

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from peftide.config import ScreenSettings
from peftide.data.portions import Portion
from peftide.data.proteins import read_proteins
from peftide.data.writers import check_not_input, check_place
from peftide.errors import UserError
from peftide.inference.caching import frozen_vectors
from peftide.inference.computing import computing
from peftide.inference.embed import embedding_key
from peftide.inference.embedding_tables import values_of
from peftide.inference.encoder import Encoder
from peftide.inference.live_bars import encoding_progress, scoring_progress
from peftide.inference.parts_folder import interruptible
from peftide.inference.portion_encoder import embed_portion, embedder_of
from peftide.inference.predict_portions import load_members
from peftide.inference.score import load_for_inference
from peftide.inference.screen_bands import Scorer, estimating_scorer, one_by_one, one_thread_each, score_bands
from peftide.inference.screen_estimate import has_fast_integers
from peftide.inference.screen_pairs import PairSpace, pair_space
from peftide.inference.screen_parts import Parts, open_parts
from peftide.inference.screen_result import Rescoring, least_logit, probabilities_of, ranked_rows, write_result
from peftide.inference.screen_selection import Selection
from peftide.inference.screen_tiles import tile_function
from peftide.inference.screen_workers import Screening, band_workers
from peftide.models.bundle import bundle_digest
from peftide.models.property_model import PropertyModel
from peftide.records import Proteins

PROTEINS_IN_PART = 512  # encoded before their vectors are kept
ESTIMATE_FROM_PAIRS = 5_000_000  # fewer are scored exactly in half a minute


@dataclass(frozen=True)
class Screen:
    """What a screen has done: pairs that there were and that were written, and the time and speed of scoring.

    num_pairs_scored: in this process; fewer than `num_pairs` where an earlier one had been interrupted.
    margin, largest_error: how far below the limit an estimated logit was looked at again, and the largest error of one
        of those; None where no estimates were made. A pair can be missing only where its estimate was too low by more
        than the difference of the two.
    """

    num_proteins: int
    num_pairs: int
    num_pairs_scored: int
    num_written: int
    seconds: float
    margin: float | None
    largest_error: float | None


def run_screen(settings: ScreenSettings, console: Console, *, estimate_from_pairs: int = ESTIMATE_FROM_PAIRS) -> Screen:
    """Score all pairs of one set of proteins, or of two, and write those that are wanted as Parquet.

    Killed at any moment, the same call goes on. Raises UserError for whatever the user can mend: a bundle that is not
    of pairs, data, settings, an unfinished screen of another kind at the same place.
    """
    out = Path(settings.out)
    _check_out(out, settings)
    model, encoder, token_budget = load_for_inference(settings.bundle, settings)
    _check_model(model, settings)
    space, table = _read_pairs(settings, console)
    may_estimate = model.head_shape.kind == "mlp" and encoder.machine.device.type == "cpu" and has_fast_integers()
    keeps_all = settings.top_k is None and settings.min_probability is None
    estimate = may_estimate and not settings.exact and not keeps_all and space.num_pairs >= estimate_from_pairs
    manifest = _manifest(settings, encoder, table, space, estimate=estimate)
    with open_parts(out, manifest) as parts, interruptible(parts.folder, console):
        vectors_PD = _vectors(
            model, encoder, table, parts, token_budget=token_budget, settings=settings, console=console
        )
        started, done_before = time.perf_counter(), set(parts.bands())
        with one_thread_each(vectors_PD.device) as pool:
            exact = tile_function(model.head, vectors_PD)
            scorer, rescoring = Scorer(exact, None, vectors_PD.device), None
            if estimate:
                rescoring = Rescoring(exact, pool)
                scorer = estimating_scorer(model.head, vectors_PD, space, rescoring)
            new_selection = _selections(model, space, scorer, settings)
            selection = new_selection(device=scorer.device)
            if settings.ray is None:
                compute = nullcontext(one_by_one(space, scorer, selection, pool))
            else:
                screening = Screening(vectors_PD.cpu().numpy(), space, scorer.margin, new_selection)
                compute = band_workers(settings, screening, selection, machine=encoder.machine, console=console)
            with compute as scored, scoring_progress(console, space.num_pairs) as advance:
                score_bands(space, selection, parts, scored, advance=advance)
            with console.status("ranking and writing"):
                num_written = _write(out, model, table, space, selection, parts, rescoring, settings)
        seconds = time.perf_counter() - started
    parts.remove()
    scored = [space.num_pairs_of(*band) for number, band in enumerate(space.bands()) if number not in done_before]
    done = Screen(
        num_proteins=len(set(table.ids)),
        num_pairs=space.num_pairs,
        num_pairs_scored=round(sum(scored)),
        num_written=num_written,
        seconds=seconds,
        margin=scorer.margin,
        largest_error=None if rescoring is None else rescoring.largest_error,
    )
    _tell(done, settings, console)
    return done


def _check_out(out: Path, settings: ScreenSettings) -> None:
    if out.suffix != ".parquet":
        raise UserError(f"--out {out}: pairs are written as Parquet; give a name that ends in .parquet")
    check_place(out)
    check_not_input(out, settings.data, settings.against)


def _check_model(model: PropertyModel, settings: ScreenSettings) -> None:
    if model.task != "pair" or model.target.kind != "binary":
        what = f"task {model.task}, {model.target.kind} target"
        raise UserError(
            f"{settings.bundle}: was not trained to say whether two proteins interact ({what}); "
            "give a bundle of task pair with a yes-or-no label"
        )
    wanted = settings.min_probability
    if wanted is not None and least_logit(wanted, model.calibration) == np.inf:
        highest = probabilities_of(np.array([100.0], dtype=np.float32), model.calibration)[0]
        raise UserError(
            f"--min-probability {wanted}: the calibrated probabilities of this bundle end at {highest:.4g}; lower it"
        )


def _read_pairs(settings: ScreenSettings, console: Console) -> tuple[PairSpace, Proteins]:
    """The pairs to score and the table of their proteins, with the notes of reading said."""
    sets = []
    for path in [settings.data] if settings.against is None else [settings.data, settings.against]:
        proteins, notes = read_proteins(path, column_id=settings.column_id, column_sequence=settings.column_sequence)
        for note in notes:
            console.print(f"note: {note}", highlight=False)
        sets.append(proteins)
    space, table = pair_space(
        sets[0],
        None if settings.against is None else sets[1],
        self_pairs=settings.self_pairs,
        both_orders=settings.top_k is not None,
    )
    if space.num_pairs == 0:
        raise UserError(f"{settings.data}: one protein makes no pair; add others, or say --against or --self-pairs")
    return space, table


def _manifest(
    settings: ScreenSettings, encoder: Encoder, table: Proteins, space: PairSpace, *, estimate: bool
) -> dict[str, Any]:
    """All that decides the parts of a screen, as JSON values."""
    return {
        "format": 1,
        "bundle": bundle_digest(Path(settings.bundle)),
        "proteins": _digest(json.dumps([table.ids, table.sequences, space.num_rows, space.first_column]).encode()),
        "arithmetic": f"{encoder.machine.precision} on {encoder.machine.device.type}",
        "scores": "estimated" if estimate else "exact",
        "top_k": settings.top_k,
        "min_probability": settings.min_probability,
        "self_pairs": settings.self_pairs,
    }


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _vectors(
    model: PropertyModel,
    encoder: Encoder,
    table: Proteins,
    parts: Parts,
    *,
    token_budget: int,
    settings: ScreenSettings,
    console: Console,
) -> torch.Tensor:
    """Vectors (P, D) on the device, each different protein encoded once, kept in parts on the way."""
    pieces = model.pieces(table)
    keys = [embedding_key(protein) for protein in pieces]
    row_of_key = {key: row for row, key in reversed(list(enumerate(keys)))}
    order = sorted(row_of_key, key=lambda key: (-pieces[row_of_key[key]].num_tokens, key))
    rows_of_part = [
        [row_of_key[key] for key in order[start : start + PROTEINS_IN_PART]]
        for start in range(0, len(order), PROTEINS_IN_PART)
    ]
    found = {
        number: vectors_PD
        for number, rows in enumerate(rows_of_part)
        if (vectors_PD := parts.read_vectors(number, shape=(len(rows), encoder.width))) is not None
    }
    residues = [sum(pieces[row].num_residues for row in rows) for rows in rows_of_part]
    embedder = embedder_of(model, encoder, token_budget, bundle=settings.bundle)
    store = frozen_vectors(encoder, order, settings, console) if model.method == "head" else nullcontext()
    work = partial(embed_portion, embedder)
    with (
        computing(settings, work, load_members, embedder=embedder, store=store, console=console) as compute,
        encoding_progress(console, sum(residues), done=sum(residues[number] for number in found)) as advance,
    ):
        absent = (_portion(number, table, rows) for number, rows in enumerate(rows_of_part) if number not in found)
        for number, embeddings in compute(absent, advance):
            found[number] = values_of(embeddings)
            _check_finite(found[number], [table.ids[row] for row in rows_of_part[number]])
            parts.write_vectors(number, found[number])
    row_of = {key: row for row, key in enumerate(order)}
    vectors_PD = np.concatenate([found[number] for number in sorted(found)])[[row_of[key] for key in keys]]
    return torch.from_numpy(vectors_PD).to(encoder.machine.device)


def _check_finite(vectors_PD: np.ndarray, names: list[str]) -> None:
    """Raise UserError where a vector is not finite: a pair with it would have no score."""
    broken = np.flatnonzero(~np.isfinite(vectors_PD).all(axis=1))
    if len(broken):
        raise UserError(f"{names[broken[0]]!r}: its vector is not finite ({len(broken)} such); try --precision fp32")


def _portion(number: int, table: Proteins, rows: list[int]) -> Portion:
    """Some proteins of a table, to be encoded together."""
    return Portion(number, "", tuple(table.ids[row] for row in rows), tuple(table.sequences[row] for row in rows))


def _selections(
    model: PropertyModel, space: PairSpace, scorer: Scorer, settings: ScreenSettings
) -> Callable[..., Selection]:
    """Makes the selection that the settings ask for, when told of the device."""
    least = -np.inf
    if settings.min_probability is not None:
        least = least_logit(settings.min_probability, model.calibration)
    num_columns = space.num_proteins - space.first_column
    return partial(
        Selection,
        num_proteins=space.num_rows,
        top_k=None if settings.top_k is None else min(settings.top_k, num_columns),
        least=least,
        margin=scorer.margin or 0.0,
        is_symmetric=space.is_symmetric,
    )


def _write(
    out: Path,
    model: PropertyModel,
    table: Proteins,
    space: PairSpace,
    selection: Selection,
    parts: Parts,
    rescoring: Rescoring | None,
    settings: ScreenSettings,
) -> int:
    """Write the result from the parts and return its number of rows."""
    kept = (selection.still_kept(pairs) for pairs in parts.read_bands())
    exact = kept if rescoring is None else map(rescoring, kept)
    rows = ((pairs, None) for pairs in exact)
    if settings.top_k is not None:
        rows = [ranked_rows(exact, top_k=settings.top_k, is_symmetric=space.is_symmetric)]
    return write_result(
        out,
        rows,
        ids=table.ids,
        probabilities=lambda logits: probabilities_of(logits, model.calibration),
        min_probability=settings.min_probability or 0.0,
        with_rank=settings.top_k is not None,
        within=parts.folder,
    )


def _tell(done: Screen, settings: ScreenSettings, console: Console) -> None:
    speed = done.num_pairs_scored / max(done.seconds, 1e-9)
    console.print(
        f"{done.num_pairs:,} pairs of {done.num_proteins:,} proteins, {done.num_written:,} written to {settings.out} "
        f"({done.seconds:,.1f} s of scoring, {speed:,.0f} pairs/s)",
        highlight=False,
    )
    if done.margin is not None and done.largest_error is not None:
        console.print(
            f"estimates of logits were wrong by {done.largest_error:.2g} at most where they were computed again, and "
            f"{done.margin:.2g} was the margin",
            highlight=False,
        )
        if done.largest_error > done.margin / 2:
            console.print(
                "warning: that is close, so pairs at the limit can be missing; --exact scores every pair in float32",
                style="yellow",
            )
