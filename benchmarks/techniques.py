"""peftide's own training, one technique after another, through the code that `peftide train` runs.

Shapes: N pairs, P proteins.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import cycle

import numpy as np
import torch
from rich.console import Console
from torch import nn

from pairs import PairSet
from peftide.config import TrainSettings
from peftide.inference.caching import open_store
from peftide.inference.device_states import DeviceStates
from peftide.inference.encoder import Encoder, place
from peftide.inference.score import TOKENS_AT_ONCE
from peftide.inference.store import StateStore
from peftide.models.backbones import Backbone
from peftide.models.machine import Machine
from peftide.models.property_model import PropertyModel
from peftide.models.tokens import Pieces
from peftide.records import Dataset, Proteins
from peftide.training.batches import plain_batches, token_chunks
from peftide.training.build import build_model, hold_on_device
from peftide.training.loop import Trainer
from peftide.training.memory import Execution, choose_execution, footprint, memory_limit
from peftide.training.progress import TrainingProgress
from peftide.training.resident import held_bytes
from peftide.training.subject import schedule_of
from rounds import Unit, Variant, spread_order, synchronize
from subjects import encoding_cost, weight_bytes


@dataclass(frozen=True)
class Technique:
    """A row of the table: which of peftide's techniques are on.

    is_once: each protein once per step, not once per pair; is_around: steps are built around proteins.
    """

    name: str
    meaning: str
    batch_examples: int
    is_exact: bool = False
    is_cached: bool = False
    is_once: bool = False
    is_around: bool = False
    is_compiled: bool = False


@dataclass(frozen=True)
class Cache:
    """Where the states of the frozen layers are kept: on disk, and on a GPU where they fit."""

    store: StateStore
    on_device: DeviceStates | None
    on_device_bytes: int
    ready: set[bytes] = field(default_factory=set)

    @contextmanager
    def used_by(self, encoder: Encoder) -> Iterator[None]:
        """Let an encoder use it for a while."""
        encoder.states, encoder.device_states = self.store, self.on_device
        try:
            yield
        finally:
            encoder.states = encoder.device_states = None

    def fill(self, encoder: Encoder, pieces: Sequence[Pieces]) -> None:
        """Bring states to where every epoch but the first finds them: stored, read back, checksums verified."""
        absent = [protein for protein in pieces if not self.ready.issuperset(protein.keys)]
        if not absent:
            return
        tokens_P = np.array([protein.num_tokens for protein in absent])
        for rows in token_chunks(tokens_P, token_budget=TOKENS_AT_ONCE[encoder.machine.device.type]):
            chunk = [absent[row] for row in rows]
            with self.used_by(encoder), torch.no_grad():
                encoder.hidden(chunk)
            if self.on_device is None:
                self.store.gather([key for p in chunk for key in p.keys], [len(t) for p in chunk for t in p.tokens])
            self.ready.update(key for protein in chunk for key in protein.keys)

    def seconds_to_fill(self, encoder: Encoder, pieces: Sequence[Pieces], *, seconds: float) -> float:
        """What filling it adds to the first epoch, for all these proteins; measured on a sample that takes `seconds`.

        The forward pass of chunks of proteins, cold, less the same warm.
        """
        tokens_P = np.array([protein.num_tokens for protein in pieces])
        chunks = token_chunks(tokens_P, token_budget=TOKENS_AT_ONCE[encoder.machine.device.type])
        costs = [encoding_cost(encoder.backbone, tokens_P[rows]) for rows in chunks]
        extra, spent, cost = 0.0, 0.0, 0.0
        for number in spread_order(costs):
            chunk = [pieces[row] for row in chunks[number]]
            cold = _seconds_of_forward(encoder, chunk, self)
            self.fill(encoder, chunk)
            warm = _seconds_of_forward(encoder, chunk, self)
            extra, spent, cost = extra + cold - warm, spent + cold + warm, cost + costs[number]
            if spent > seconds:
                break
        return extra * sum(costs) / cost


def _seconds_of_forward(encoder: Encoder, proteins: Sequence[Pieces], cache: Cache) -> float:
    synchronize(encoder.machine.device)
    started = time.perf_counter()
    with cache.used_by(encoder), torch.no_grad():
        encoder.hidden(proteins)
    synchronize(encoder.machine.device)
    return time.perf_counter() - started


@dataclass(frozen=True)
class Product:
    """peftide's model of the pairs in one arithmetic, as `peftide train` builds and runs it with these settings."""

    settings: TrainSettings
    pairs: PairSet
    pieces: list[Pieces]
    model: PropertyModel
    machine: Machine
    execution: Execution
    encoders: dict[bool, Encoder]  # by whether the layers are compiled, those asked for so far

    def encoder(self, *, is_compiled: bool = False) -> Encoder:
        """The encoder, one for all variants."""
        if is_compiled not in self.encoders:
            self.encoders[is_compiled] = Encoder(
                self.model.backbone,
                self.model.model,
                self.machine,
                checkpoint_layers=self.execution.checkpoint_layers,
                compile_layers=is_compiled,
            )
        return self.encoders[is_compiled]


def make_product(
    backbone: Backbone, machine: Machine, pairs: PairSet, pieces: list[Pieces], settings: TrainSettings
) -> Product:
    """Wrap the backbone in adapters, put it on the device, and choose how to run it within the memory that is left."""
    model = build_model(settings, _dataset(pairs), backbone)
    place(model.model, machine)
    model.head.to(machine.device)
    held, need = held_bytes(machine.device), footprint(model, machine)
    execution = choose_execution(
        need,
        machine,
        [protein.num_tokens for protein in pieces],
        held_bytes=held - need.weights,
        limit_bytes=memory_limit(None, machine.device, held_bytes=held),
        checkpoint_layers=settings.checkpoint_layers,
        token_budget=settings.token_budget,
        must_fit=False,
    )
    assert execution is not None, "without a limit there is always a way"
    return Product(settings, pairs, pieces, model, machine, execution, {})


def _dataset(pairs: PairSet) -> Dataset:
    names = tuple(str(number) for number in range(len(pairs.sequences)))
    return Dataset(
        task="pair",
        kind="binary",
        proteins=Proteins(names, pairs.sequences),
        members_NK=pairs.members_N2,
        targets=pairs.targets_N,
        classes=("0", "1"),
        split_N=np.full(len(pairs), "train"),
    )


def open_cache(product: Product, folder: str, *, limit_bytes: int) -> tuple[Cache | None, str]:
    """The cache of the frozen layers, as `peftide train` opens it; None, with the reason, where there is none."""
    encoder = product.encoder()
    store, note = open_store(encoder, product.pieces, kind="states", cache_dir=folder, limit_bytes=limit_bytes)
    if store is None:
        return None, note
    before = held_bytes(product.machine.device)
    on_device = hold_on_device(encoder, product.pieces) if product.execution.holds_states else None
    on_device_bytes = 0 if on_device is None else held_bytes(product.machine.device) - before
    return Cache(store, on_device, on_device_bytes), note


def technique_table(
    batch_sizes: Sequence[int], *, pairs_alone: int, has_bf16: bool, has_cache: bool, compiles: bool
) -> list[Technique]:
    """The techniques switched on one after another, in steps of these numbers of pairs.

    pairs_alone: of a step before proteins are shared in it, when its size matters little for the time of a pair.
    """
    size = batch_sizes[0]
    what = f"packed sequences, float32, {pairs_alone} pairs a step"
    table = [Technique("packed-fp32", what, pairs_alone, is_exact=True)]
    on = {"is_exact": not has_bf16}
    if has_bf16:
        table.append(Technique("packed-bf16", "+ bfloat16", pairs_alone, **on))
    if has_cache:
        on["is_cached"] = True
        table.append(Technique("cached", "+ frozen layers from the cache", pairs_alone, **on))
    on["is_once"] = True
    table.append(Technique(f"once-{size}", f"+ each protein once per step, {size} random pairs", size, **on))
    on["is_around"] = True
    what = "+ steps built around proteins, {} pairs each"
    table += [Technique(f"blocks-{n}", what.format(n), n, **on) for n in batch_sizes]
    if compiles:
        on["is_compiled"] = True
        what = "+ compiled layers, {} pairs a step"
        table += [Technique(f"compiled-{n}", what.format(n), n, **on) for n in batch_sizes]
    if has_cache:
        on["is_cached"] = False
        name = f"{'compiled' if compiles else 'blocks'}-{size}-no-cache"
        table.append(Technique(name, f"without the cache, {size} pairs a step", size, **on))
    return table


def product_variant(technique: Technique, product: Product, cache: Cache | None, check_rows: np.ndarray) -> Variant:
    """The steps of an epoch with these techniques; the check gives loss and gradient norm of `check_rows`."""
    pairs, pieces = product.pairs, product.pieces
    if not technique.is_once:  # every pair brings proteins of its own, so there is nothing to share
        flat = pairs.members_N2.ravel()
        pieces = [pieces[row] for row in flat]
        sequences = tuple(pairs.sequences[row] for row in flat)
        pairs = PairSet(pairs.source, sequences, np.arange(len(flat)).reshape(-1, 2), pairs.targets_N)
    encoder = product.encoder(is_compiled=technique.is_compiled)
    used = cache if technique.is_cached else None
    dataset = _dataset(pairs)
    schedule = schedule_of(replace(product.settings, batch_examples=technique.batch_examples), dataset)
    trainer = Trainer(
        product.model, encoder, dataset, pieces, schedule,
        token_budget=product.execution.token_budget, vectors_PD=None,
    )  # fmt: skip
    show = TrainingProgress(
        Console(stderr=True), num_steps=trainer.num_steps, metric="aupr", device=product.machine.device
    )
    steps = cycle(range(trainer.num_steps))

    def prepare(unit: Unit) -> None:
        if used is not None:
            used.fill(product.encoder(), [pieces[row] for row in np.unique(pairs.members_N2[unit.rows])])

    def run(unit: Unit) -> None:
        if used is None:
            trainer.step(unit.rows, next(steps), 1, show)
        else:
            with used.used_by(encoder):
                trainer.step(unit.rows, next(steps), 1, show)

    def check() -> np.ndarray:
        product.model.model.eval()
        if used is None:
            loss = trainer.gradient(check_rows, 0, show)
        else:
            with used.used_by(encoder):
                loss = trainer.gradient(check_rows, 0, show)
        return np.array([loss, take_gradient_norm(trainer.parameters)])

    return Variant(
        name=technique.name,
        meaning=technique.meaning,
        units=[_unit(rows, trainer, encoder.backbone) for rows in _steps_of_epoch(technique, trainer)],
        run=run,
        check=check,
        resident_bytes=weight_bytes(product.model.model, product.model.head) + (used.on_device_bytes if used else 0),
        is_exact=technique.is_exact,
        prepare=prepare,
    )


def _steps_of_epoch(technique: Technique, trainer: Trainer) -> list[np.ndarray]:
    if technique.is_around:
        return trainer.epoch_batches(1)
    generator = np.random.default_rng(trainer.schedule.seed)
    return plain_batches(len(trainer.train), batch_examples=technique.batch_examples, generator=generator)


def _unit(rows: np.ndarray, trainer: Trainer, backbone: Backbone) -> Unit:
    lengths = trainer.tokens_P[np.unique(trainer.train.members_NK[rows])]
    return Unit(rows, encoding_cost(backbone, lengths), int(lengths.sum()))


def take_gradient_norm(parameters: Sequence[nn.Parameter]) -> float:
    """Norm of all gradients, which are cleared."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = float(nn.utils.get_total_norm(gradients))
    for parameter in parameters:
        parameter.grad = None
    return norm
