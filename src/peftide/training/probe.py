"""A short measured run of one backbone and method on this machine: the product's own steps on proteins of the data.

Shapes: P proteins, N examples, K proteins of an example, D width.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch
from rich.console import Console

from peftide.inference.embed import embed_proteins
from peftide.models.machine import Machine
from peftide.records import Dataset
from peftide.training.build import hold_on_device, open_store
from peftide.training.progress import TrainingProgress
from peftide.training.resident import give_back, held_bytes, peak_bytes, start_peak
from peftide.training.subject import Subject
from peftide.training.work import Work, sample_rows

LONGEST_CALL_SECONDS = 3.0  # a probe stops to grow where the next step would take longer
GROWTH = 4
REPEATS = 3


@dataclass(frozen=True)
class Line:
    """seconds = fixed + per_token * tokens."""

    fixed: float
    per_token: float

    def __call__(self, num_tokens: float) -> float:
        """Seconds of a call over so many tokens."""
        return self.fixed + self.per_token * num_tokens

    @staticmethod
    def through(points: Sequence[tuple[float, float]]) -> "Line":
        """The line through the first and the last of (tokens, seconds), neither of its two numbers below zero."""
        (small, few_seconds), (large, seconds) = points[0], points[-1]
        slope = (seconds - few_seconds) / (large - small) if large > small else seconds / large
        per_token = min(max(slope, 0.0), seconds / large)
        return Line(seconds - per_token * large, per_token)


@dataclass(frozen=True)
class Probe:
    """What was measured.

    step: forward, backward and optimiser over one part of a step; encode: the same proteins without gradient, frozen
    states at hand; frozen: what the frozen layers and their keeping add when a protein comes for the first time;
    scoring_seconds: of the validation, without its encoding; startup_seconds: the first call's surplus.
    held_bytes: above the start of the probe, once there are weights, gradients and moments; step_bytes, encode_bytes:
    what a call over `step_tokens` or `encode_tokens` adds; None where the system does not tell.
    """

    step: Line
    encode: Line
    frozen: Line
    scoring_seconds: float
    startup_seconds: float
    held_bytes: int | None
    step_bytes: int | None
    step_tokens: int
    encode_bytes: int | None
    encode_tokens: int


def run_probe(subject: Subject, work: Work, *, keeps_states: bool, base_bytes: int) -> Probe:
    """Measure for some seconds. keeps_states: whether training will have a cache; here a temporary one stands for it.

    base_bytes: what the process held before the backbone was loaded.
    """
    encodes = subject.settings.method != "head"
    ladder = _Ladder(subject, work)
    with ExitStack() as stack:
        if encodes and keeps_states:
            _attach_states(subject, stack)
        if encodes and subject.execution.holds_states:
            subject.encoder.device_states = hold_on_device(subject.encoder, subject.pieces)
        call = ladder.step if encodes else ladder.encode
        startup_seconds = ladder.climb(call)
        held = step_bytes = None
        step = Line(0.0, 0.0)
        if encodes:
            held, step_bytes = ladder.step_memory(base_bytes)
            step = ladder.line(ladder.step)
        encode_bytes = ladder.encode_memory()
        encode = ladder.line(ladder.encode)
        frozen = Line(0.0, 0.0)
        if subject.encoder.states is not None or subject.encoder.device_states is not None:
            frozen = _frozen_line(subject, ladder, encode, stack)
        subject.encoder.states, subject.encoder.device_states = None, None
    scoring_seconds, head_seconds, held_by_head = _measure_head(subject, base_bytes)
    return Probe(
        step=step if encodes else Line(head_seconds, 0.0),
        encode=encode,
        frozen=frozen,
        scoring_seconds=scoring_seconds,
        startup_seconds=startup_seconds,
        held_bytes=held if encodes else held_by_head,
        step_bytes=step_bytes if encodes else 0,
        step_tokens=ladder.num_tokens(-1),
        encode_bytes=encode_bytes,
        encode_tokens=ladder.num_tokens(-1),
    )


class _Ladder:
    """Samples of proteins of growing size, as examples of one trainer; the last two climbed are measured."""

    def __init__(self, subject: Subject, work: Work):
        self.subject = subject
        tokens_P = np.array([protein.num_tokens for protein in subject.pieces])
        top = work.largest_part if subject.settings.method != "head" else work.largest_encoding
        sizes = [int(np.median(tokens_P))]
        while sizes[-1] < top:
            sizes.append(min(GROWTH * sizes[-1], top))
        self.rungs = [sample_rows(tokens_P, work.occurrences_P, size) for size in sizes]
        self.tokens_P = tokens_P
        examples, self.batches = _examples(subject.dataset, self.rungs)
        self.trainer = subject.trainer(examples, None)
        self.show = TrainingProgress(
            Console(quiet=True), num_steps=1, metric=subject.schedule.metric, device=subject.encoder.machine.device
        )
        self.device = subject.encoder.machine.device

    def num_tokens(self, rung: int) -> int:
        """Tokens of a sample."""
        return int(self.tokens_P[self.rungs[rung]].sum())

    def step(self, rung: int) -> None:
        """One optimiser step."""
        self.trainer.step(self.batches[rung], 0, 1, self.show)

    def encode(self, rung: int) -> None:
        """Vectors without gradient."""
        pieces = [self.subject.pieces[row] for row in self.rungs[rung]]
        embed_proteins(self.subject.encoder, pieces, token_budget=self.num_tokens(rung))

    def climb(self, call: Callable[[int], None]) -> float:
        """Warm up from the smallest sample on, and drop the samples that would take too long; the first call's surplus.

        Each sample runs twice: the first time, frozen states are made and kernels chosen.
        """
        surplus = 0.0
        for rung in range(len(self.rungs)):
            first, second = (_seconds(lambda rung=rung: call(rung), self.device) for _ in range(2))
            surplus = surplus or max(0.0, first - second)
            if second * GROWTH > LONGEST_CALL_SECONDS:
                del self.rungs[rung + 1 :], self.batches[rung + 1 :]
                break
        del self.rungs[:-2], self.batches[:-2]
        return surplus

    def line(self, call: Callable[[int], None]) -> Line:
        """Medians of a few calls over each of the samples, in turn."""
        seconds: list[list[float]] = [[] for _ in self.rungs]
        for _ in range(REPEATS):
            for rung, found in enumerate(seconds):
                found.append(_seconds(lambda rung=rung: call(rung), self.device))
        return Line.through([(self.num_tokens(rung), median(found)) for rung, found in enumerate(seconds)])

    def step_memory(self, base_bytes: int) -> tuple[int | None, int | None]:
        """What is held between steps, gradients included, and what a step over the largest sample adds."""
        self.trainer.gradient(self.batches[-1], 0, self.show)  # leaves gradients behind, as the parts of a step do
        give_back(self.device)
        held = held_bytes(self.device)
        added = _added_bytes(lambda: self.trainer.gradient(self.batches[-1], 0, self.show), self.device)
        self.trainer.optimizer.zero_grad(set_to_none=True)
        return (None, None) if added is None else (held - base_bytes, added)

    def encode_memory(self) -> int | None:
        """What encoding the largest sample without gradient adds."""
        return _added_bytes(lambda: self.encode(-1), self.device)


def _examples(dataset: Dataset, rungs: list[np.ndarray]) -> tuple[Dataset, list[np.ndarray]]:
    """Training examples in which every protein of each sample occurs with the next, and the rows of each sample."""
    train = dataset.part("train")
    assert train.targets is not None
    arity = dataset.members_NK.shape[1]
    members_NK = np.concatenate([np.stack([np.roll(rows, -k) for k in range(arity)], axis=1) for rows in rungs])
    chosen = np.resize(np.arange(len(train)), len(members_NK))
    targets, split_N = train.targets[chosen], np.full(len(members_NK), "train")
    ends = np.cumsum([len(rows) for rows in rungs])
    batches = np.split(np.arange(len(members_NK)), ends[:-1])
    return replace(dataset, members_NK=members_NK, targets=targets, split_N=split_N), batches


def _attach_states(subject: Subject, stack: ExitStack) -> None:
    """Give the encoder an empty store in a temporary folder, and an empty place on the GPU where it has one."""
    folder = stack.enter_context(TemporaryDirectory(prefix="peftide-probe-"))
    limit_bytes = int(subject.settings.cache_limit_gb * 1e9)
    store, _ = open_store(
        subject.encoder, subject.pieces, kind="states", cache_dir=str(Path(folder)), limit_bytes=limit_bytes
    )
    if store is not None:
        stack.callback(store.close)
    subject.encoder.states = store


def _frozen_line(subject: Subject, ladder: _Ladder, encode: Line, stack: ExitStack) -> Line:
    """What it costs to make and keep the frozen states of a sample, each time with nothing kept before."""
    points = []
    for rung in range(len(ladder.rungs)):
        if subject.encoder.states is not None:
            _attach_states(subject, stack)
        if subject.encoder.device_states is not None:
            subject.encoder.device_states = None  # first free the old one
            subject.encoder.device_states = hold_on_device(subject.encoder, subject.pieces)
        seconds = _seconds(lambda rung=rung: ladder.encode(rung), ladder.device)
        tokens = ladder.num_tokens(rung)
        points.append((tokens, max(0.0, seconds - encode(tokens))))
    return Line.through(points)


def _measure_head(subject: Subject, base_bytes: int) -> tuple[float, float, int]:
    """Seconds of a validation and of a step of the head alone, on random vectors; bytes held then."""
    device = subject.encoder.machine.device
    shape = (len(subject.pieces), subject.model.backbone.width)
    vectors_PD = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    trainer = subject.trainer(subject.dataset, vectors_PD)
    scoring_seconds = _seconds(trainer.validate, device)
    if subject.settings.method != "head":
        return scoring_seconds, 0.0, 0
    show = TrainingProgress(Console(quiet=True), num_steps=1, metric=subject.schedule.metric, device=device)
    batches = trainer.epoch_batches(1)[: 4 * REPEATS]
    trainer.step(batches[0], 0, 1, show)
    step_seconds = median(_seconds(lambda batch=batch: trainer.step(batch, 0, 1, show), device) for batch in batches)
    give_back(device)
    return scoring_seconds, step_seconds, held_bytes(device) - base_bytes


def _added_bytes(work: Callable[[], object], device: torch.device) -> int | None:
    give_back(device)
    before = held_bytes(device)
    if not start_peak(device):
        return None
    work()
    return max(0, peak_bytes(device) - before)


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
