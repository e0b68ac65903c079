"""A short measured run of one backbone and method on this machine: the product's own steps on proteins of the data.

Shapes: P proteins, N examples, K proteins of an example, D width.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from statistics import median

import numpy as np
import torch
from rich.console import Console

from peftide.data.writers import temporary_folder
from peftide.inference.caching import open_store
from peftide.inference.embed import embed_proteins
from peftide.models.machine import Machine
from peftide.records import Dataset
from peftide.training.build import hold_on_device, lower_encoder
from peftide.training.line import Line
from peftide.training.memory import encoding_budget
from peftide.training.progress import TrainingProgress
from peftide.training.resident import give_back, held_bytes, peak_bytes, start_peak
from peftide.training.subject import Subject
from peftide.training.work import Work, sample_rows

LONGEST_CALL_SECONDS = 2.5  # the samples stop to grow where a call would take longer
GROWTH = 4
SHARES = (1.0, 0.5, 0.25, 0.75, 1.0, 0.5)  # of the largest sample: the calls that are measured
REPEATS = 3

Call = Callable[[int, int], None]  # rung and part of a `_Ladder`


@dataclass(frozen=True)
class Measured:
    """Calls of several sizes: their seconds, the most bytes that they added (None where the system cannot tell), and
    the tokens that these bytes were for.
    """

    seconds: Line
    added_bytes: int | None
    num_tokens: int


@dataclass(frozen=True)
class Probe:
    """What was measured.

    gradient: forward and backward over one part of a step; update_seconds: of the optimiser, per step (for a head
    alone, the whole step); encode: the same proteins without gradient, frozen states at hand; frozen: what the frozen
    layers and their keeping add when a protein comes for the first time; scoring_seconds: of a validation, without its
    encoding; startup_seconds: the first call's surplus. held_bytes: above the start of the probe, with weights,
    gradients and moments. is_resident: bytes are of the process, with the holes between its tensors.
    """

    gradient: Measured
    update_seconds: float
    encode: Measured
    frozen: Line
    scoring_seconds: float
    startup_seconds: float
    held_bytes: int
    is_resident: bool


def run_probe(subject: Subject, work: Work, *, keeps_states: bool, base_bytes: int) -> Probe:
    """Measure for some seconds. keeps_states: whether training will have a cache; here a temporary one stands for it.

    base_bytes: what the process held before the backbone was loaded.
    """
    encodes = subject.settings.method != "head"
    ladder = _Ladder(subject, work)
    nothing = Measured(Line(0.0, 0.0), 0, 1)
    gradient, held, update_seconds, frozen = nothing, 0, 0.0, nothing.seconds
    with ExitStack() as stack:
        if encodes and keeps_states:
            _attach_states(subject, stack)
        if encodes and subject.execution.holds_states:
            subject.encoder.device_states = hold_on_device(subject.encoder, subject.pieces)
        startup_seconds = ladder.climb(ladder.gradient if encodes else ladder.encode)
        if encodes:
            update_seconds = median(ladder.update_seconds() for _ in range(REPEATS))
            held = ladder.leave_gradients() - base_bytes
            gradient = ladder.measure(ladder.gradient, ladder.num_tokens)
            ladder.trainer.optimizer.zero_grad(set_to_none=True)
        encode = ladder.measure(ladder.encode, min(ladder.num_tokens, ladder.call_tokens))
        if subject.encoder.states is not None or subject.encoder.device_states is not None:
            frozen = _frozen_line(subject, ladder, encode.seconds, stack)
        subject.encoder.states, subject.encoder.device_states = None, None
    scoring_seconds, head_seconds, held_by_head = _measure_head(subject, base_bytes)
    return Probe(
        gradient=gradient,
        update_seconds=update_seconds if encodes else head_seconds,
        encode=encode,
        frozen=frozen,
        scoring_seconds=scoring_seconds,
        startup_seconds=startup_seconds,
        held_bytes=held if encodes else held_by_head,
        is_resident=ladder.device.type == "cpu",
    )


class _Ladder:
    """Samples of proteins of growing size, as examples of one trainer; after `climb`, parts of the largest affordable.

    Timing uses parts of several sizes, which give the line, and make memory as ragged as steps of real runs do.
    """

    def __init__(self, subject: Subject, work: Work):
        self.subject = subject
        self.device = subject.encoder.machine.device
        self.tokens_P = np.array([protein.num_tokens for protein in subject.pieces])
        top = work.most_kept if subject.settings.method != "head" else work.largest_encoding
        sizes = [int(np.median(self.tokens_P))]
        while sizes[-1] < top:
            sizes.append(min(GROWTH * sizes[-1], top))
        samples = [sample_rows(self.tokens_P, work.occurrences_P, size) for size in sizes]
        generator = np.random.default_rng(subject.settings.seed)
        self.rungs = [_parts(sample, generator) for sample in samples]
        examples, batches = _examples(subject.dataset, [part for rung in self.rungs for part in rung])
        self.batches = [batches[start : start + len(SHARES)] for start in range(0, len(batches), len(SHARES))]
        self.trainer = subject.trainer(examples, None)
        self.call_tokens = encoding_budget(self.trainer.token_budget, self.device)
        self.show = TrainingProgress(
            Console(quiet=True), num_steps=1, metric=subject.schedule.metric, device=self.device
        )

    @property
    def num_tokens(self) -> int:
        """Tokens of the largest sample."""
        return int(self.tokens_P[self.rungs[-1][0]].sum())

    def gradient(self, rung: int, part: int) -> None:
        """Forward and backward, onto gradients that are there."""
        self.trainer.model.model.train()
        self.trainer.model.head.train()
        self.trainer.gradient(self.batches[rung][part], 0, self.show)

    def encode(self, rung: int, part: int) -> None:
        """Vectors without gradient."""
        rows = self.rungs[rung][part]
        pieces = [self.subject.pieces[row] for row in rows]
        embed_proteins(self.subject.encoder, pieces, token_budget=self.call_tokens)

    def climb(self, call: Call) -> float:
        """Warm up from the smallest sample on, and drop the samples that would take too long; the first call's surplus.

        Each sample runs twice: the first time, frozen states are made and kernels chosen.
        """
        surplus = 0.0
        for rung in range(len(self.rungs)):
            first, second = (_seconds(partial(call, rung, 0), self.device) for _ in range(2))
            surplus = surplus or max(0.0, first - second)
            if second * GROWTH > LONGEST_CALL_SECONDS:
                del self.rungs[rung + 1 :], self.batches[rung + 1 :]
                break
        return surplus

    def measure(self, call: Call, num_tokens: int) -> Measured:
        """Time `call` over the parts of the largest sample, and watch the memory, which is that of `num_tokens`."""
        give_back(self.device)
        before = held_bytes(self.device)
        is_watched = start_peak(self.device)
        points = []
        for part, rows in enumerate(self.rungs[-1]):
            points.append((int(self.tokens_P[rows].sum()), _seconds(partial(call, -1, part), self.device)))
        added = max(0, peak_bytes(self.device) - before) if is_watched else None
        return Measured(Line.through(points), added, num_tokens)

    def update_seconds(self) -> float:
        """Time of clipping and of the optimiser."""
        self.gradient(0, 0)
        trainer = self.trainer

        def update() -> None:
            torch.nn.utils.clip_grad_norm_(trainer.parameters, trainer.schedule.clip_norm)
            trainer.optimizer.step()
            trainer.optimizer.zero_grad(set_to_none=True)

        return _seconds(update, self.device)

    def leave_gradients(self) -> int:
        """Make gradients of the trained weights, as there are between the parts of a step; what is held then."""
        self.gradient(0, 0)
        give_back(self.device)
        return held_bytes(self.device)


def _parts(rows: np.ndarray, generator: np.random.Generator) -> list[np.ndarray]:
    """Random parts of a sample, in the sizes of `SHARES`; one protein at least."""
    return [np.sort(generator.permutation(rows)[: max(1, round(share * len(rows)))]) for share in SHARES]


def _examples(dataset: Dataset, samples: list[np.ndarray]) -> tuple[Dataset, list[np.ndarray]]:
    """Training examples in which every protein of each sample occurs with the next, and the rows of each sample."""
    train = dataset.part("train")
    assert train.targets is not None
    arity = dataset.members_NK.shape[1]
    members_NK = np.concatenate([np.stack([np.roll(rows, -k) for k in range(arity)], axis=1) for rows in samples])
    chosen = np.resize(np.arange(len(train)), len(members_NK))
    targets, split_N = train.targets[chosen], np.full(len(members_NK), "train")
    batches = np.split(np.arange(len(members_NK)), np.cumsum([len(rows) for rows in samples])[:-1])
    return replace(dataset, members_NK=members_NK, targets=targets, split_N=split_N), batches


def _attach_states(subject: Subject, stack: ExitStack) -> None:
    """Give the encoder an empty store in a temporary folder, and an empty place on the GPU where it has one."""
    folder = stack.enter_context(temporary_folder(what="probe"))
    limit_bytes = int(subject.settings.cache_limit_gb * 1e9)
    store, _ = open_store(
        subject.encoder, subject.pieces, kind="states", cache_dir=str(folder), limit_bytes=limit_bytes
    )
    if store is not None:
        stack.callback(store.close)
    subject.encoder.states = store


def _frozen_line(subject: Subject, ladder: _Ladder, encode: Line, stack: ExitStack) -> Line:
    """What it costs to make and keep the frozen states of a sample, each time with nothing kept before."""
    points = []
    for part, rows in enumerate(ladder.rungs[-1][:REPEATS]):
        if subject.encoder.states is not None:
            _attach_states(subject, stack)
        if subject.encoder.device_states is not None:
            subject.encoder.device_states = None  # the old one is freed first
            subject.encoder.device_states = hold_on_device(subject.encoder, subject.pieces)
        seconds = _seconds(partial(ladder.encode, -1, part), ladder.device)
        if subject.encoder.lower_vectors is not None:
            pieces = [subject.pieces[row] for row in rows]
            below = partial(embed_proteins, lower_encoder(subject.encoder), pieces, token_budget=ladder.call_tokens)
            seconds += _seconds(below, ladder.device)
        num_tokens = int(ladder.tokens_P[rows].sum())
        points.append((num_tokens, max(0.0, seconds - encode(num_tokens))))
    return Line.through(points)


def _measure_head(subject: Subject, base_bytes: int) -> tuple[float, float, int]:
    """Seconds of a validation and of a step of the head alone, on random vectors; bytes held then."""
    device = subject.encoder.machine.device
    shape = (len(subject.pieces), subject.encoder.width)
    vectors_PD = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    trainer = subject.trainer(subject.dataset, vectors_PD)
    scoring_seconds = _seconds(trainer.validate, device)
    if subject.settings.method != "head":
        return scoring_seconds, 0.0, 0
    show = TrainingProgress(Console(quiet=True), num_steps=1, metric=subject.schedule.metric, device=device)
    batches = trainer.epoch_batches(1)[: 4 * REPEATS]
    trainer.step(batches[0], 0, 1, show)
    step_seconds = median(_seconds(partial(trainer.step, batch, 0, 1, show), device) for batch in batches)
    give_back(device)
    return scoring_seconds, step_seconds, held_bytes(device) - base_bytes


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    _wait(device)
    started = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def warm_up(machine: Machine) -> None:
    """Load what the libraries load on first use, so that it counts as held before the first probe."""
    layer = torch.nn.Linear(64, 64).to(machine.device, machine.dtype)
    x = torch.ones(1, 8, 64, device=machine.device, dtype=machine.dtype)
    y = layer(x).float()
    torch.nn.functional.scaled_dot_product_attention(y, y, y).sum().backward()
    torch.optim.AdamW(layer.parameters(), fused=True).step()
