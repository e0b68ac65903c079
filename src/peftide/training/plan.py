"""Before any long run: what each backbone and method would take on this machine, from a short probe of each."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.text import Text

from peftide.config import CostSettings, Method, PlanSettings, TrainSettings
from peftide.data.writers import check_folder_place, make_folder, write_json
from peftide.errors import UserError
from peftide.inference.caching import open_store
from peftide.inference.embed import embedding_key
from peftide.models.machine import Machine, choose_machine, describe
from peftide.records import SPLITS, Dataset
from peftide.training.advice import what_would_fit
from peftide.training.build import assume_lower_vectors
from peftide.training.examples import read_examples
from peftide.training.forecast import CacheNeed, Row, forecast
from peftide.training.memory import Footprint, least_bytes, memory_limit
from peftide.training.plan_table import TABLE_WIDTH, plan_table, recommendation
from peftide.training.probe import run_probe, warm_up
from peftide.training.resident import (
    available_bytes,
    cap_device,
    free_at_once,
    give_back,
    held_bytes,
    keep_freed,
    peak_bytes,
    start_peak,
)
from peftide.training.subject import Subject, count, make_subject
from peftide.training.work import count_work


@dataclass(frozen=True)
class Plan:
    """A row for each backbone and method, the memory that they may hold, what to choose, and the hardware."""

    rows: tuple[Row, ...]
    limit_bytes: int
    recommendation: str
    machine: dict[str, str | int]


@dataclass(frozen=True)
class Room:
    """What the process held before any backbone, and what it may hold at most."""

    held_bytes: int
    limit_bytes: int


def run_plan(settings: PlanSettings, console: Console) -> Plan:
    """Read the data, probe every backbone with every method, print the table; write the JSON where one is asked for.

    Raises UserError for data or settings that no backbone could be trained with.
    """
    if settings.json is not None:
        check_folder_place(Path(settings.json).parent)
    dataset = read_examples(_candidate(settings, settings.backbones[0], settings.methods[0]), console).dataset
    machine = choose_machine(settings.device, settings.precision, settings.threads)
    warm_up(machine)
    give_back(machine.device)
    base = held_bytes(machine.device)
    room = Room(base, base + available_bytes(machine.device))
    if settings.memory is not None:
        room = Room(base, min(room.limit_bytes, memory_limit(settings.memory, machine.device, held_bytes=base)))
        cap_device(machine.device, room.limit_bytes)
    rows = []
    for backbone in settings.backbones:
        for method in settings.methods:
            with console.status(Text(f"probing {method} on {backbone}")):
                rows.append(_row(_candidate(settings, backbone, method), dataset, machine, room))
    said = recommendation(rows, limit_bytes=room.limit_bytes)
    plan = Plan(tuple(rows), room.limit_bytes, said, describe(machine))
    counts = ", ".join(f"{len(dataset.part(split)):,} {split}" for split in SPLITS)
    console.print(f"{len(dataset.proteins):,} proteins; examples: {counts}", highlight=False)
    wide = console if console.is_terminal else Console(file=console.file, width=TABLE_WIDTH, markup=False, emoji=False)
    wide.print(plan_table(rows, limit_bytes=room.limit_bytes, epochs=settings.epochs))
    console.print(said, highlight=False)
    if settings.json is not None:
        make_folder(Path(settings.json).parent)
        write_json(settings.json, asdict(plan) | {"settings": asdict(settings)})
    return plan


def _candidate(settings: PlanSettings, backbone: str, method: Method) -> TrainSettings:
    shared = {item.name: getattr(settings, item.name) for item in fields(CostSettings)}
    return TrainSettings(**shared, backbone=backbone, method=method, audit="none", out="not written")


def _row(settings: TrainSettings, dataset: Dataset, machine: Machine, room: Room) -> Row:
    """Probe one candidate, if its config can be read and, by count, it would fit."""
    row = Row(settings.backbone, settings.method, fits=None)
    wish = room.limit_bytes
    if settings.memory is None:
        wish = memory_limit(None, machine.device, held_bytes=room.held_bytes)
    try:
        counted = count(settings, dataset, machine, held_bytes=room.held_bytes, limit_bytes=wish)
        row = replace(row, trained_parameters=counted.trained_parameters)
        least = least_bytes(counted.need, machine, counted.tokens, held_bytes=room.held_bytes)
        if counted.execution is None or least > room.limit_bytes:
            return replace(row, fits=False, reason=what_would_fit(settings, dataset, machine, **asdict(room)))
        prepare = partial(make_subject, settings, dataset, machine, counted.execution)
        return _probed(row, counted.need, prepare, room, machine.device)
    except UserError as error:
        return replace(row, reason=str(error))
    except torch.OutOfMemoryError:
        return replace(row, fits=False, reason="out of memory in the probe: other programs hold memory of this device")


def _probed(row: Row, need: Footprint, prepare: Callable[[], Subject], room: Room, device: torch.device) -> Row:
    """The row with what the probe and the arithmetic found."""
    give_back(device)
    before = held_bytes(device)
    watches = start_peak(device)
    subject = prepare()
    if subject.settings.method != "head":
        assume_lower_vectors(subject.encoder)
    loading_bytes = peak_bytes(device) - before if watches else 0
    execution = subject.execution
    encodes = subject.settings.method != "head"
    vectors_PD = None if encodes else np.zeros((len(subject.pieces), subject.encoder.width), np.float32)
    work = count_work(subject.trainer(subject.dataset, vectors_PD), encodes=encodes)
    cache = _cache_need(subject)
    if execution.is_frugal:
        free_at_once(device)
    try:
        probe = run_probe(subject, work, keeps_states=cache.is_kept, base_bytes=before)
    finally:
        if execution.is_frugal:
            keep_freed(device)
    found = forecast(work, probe, need, cache, execution, epochs=subject.settings.epochs, base_bytes=room.held_bytes)
    if found.is_measured:
        found = replace(found, peak_memory_bytes=max(found.peak_memory_bytes, room.held_bytes + loading_bytes))
    return replace(
        row,
        fits=found.peak_memory_bytes <= room.limit_bytes,
        execution=execution,
        steps_per_epoch=len(work.steps),
        tokens_per_epoch=work.tokens_per_epoch,
        most_repeats=work.most_repeats,
        cache=cache,
        forecast=found,
    )


def _cache_need(subject: Subject) -> CacheNeed:
    """What training would find in the cache, and what it would have to add."""
    settings, encoder, pieces = subject.settings, subject.encoder, subject.pieces
    is_states = settings.method != "head"
    num_tokens = sum(protein.num_tokens for protein in pieces)
    store, note = open_store(
        encoder,
        pieces,
        kind="states" if is_states else settings.pooling,
        cache_dir=settings.cache_dir,
        limit_bytes=int(settings.cache_limit_gb * 1e9),
    )
    rows = [len(piece) for protein in pieces for piece in protein.tokens] if is_states else [1] * len(pieces)
    if store is None:
        row_bytes = encoder.backbone.width * encoder.machine.dtype.itemsize if is_states else encoder.width * 4
        num_bytes = row_bytes * sum(rows) if encoder.num_frozen_layers else 0
        return CacheNeed(num_bytes, num_tokens, is_kept=False, note=note)
    with store:
        if is_states:
            absent = store.missing([key for protein in pieces for key in protein.keys])
            new_tokens = sum(rows[i] for i in absent)
        else:
            absent = store.missing([embedding_key(protein) for protein in pieces])
            new_tokens = sum(pieces[i].num_tokens for i in absent)
        num_bytes = store.key.size_bytes(num_rows=sum(rows), num_pieces=len(rows))
    return CacheNeed(num_bytes, new_tokens, is_kept=True, note=note)
