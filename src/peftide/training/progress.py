"""What a user sees while a model trains: one live line and a line per epoch; plain lines where there is no terminal."""

import time
from types import TracebackType

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

from peftide.models.machine import peak_memory_bytes

SECONDS_BETWEEN_UPDATES = 0.2


class TrainingProgress:
    """Live loss, metric, residues per second, time left and peak memory; a context manager."""

    def __init__(self, console: Console, *, num_steps: int, metric: str, device: torch.device):
        self.console = console
        self.metric = metric
        self.device = device
        self.best: float | None = None
        self.num_residues = 0
        self.num_pending = 0
        self.started = self.shown = time.perf_counter()
        columns = (  # where the terminal is narrow, the bar gives way, then the details
            TextColumn("{task.description}", table_column=Column(min_width=20, no_wrap=True)),
            BarColumn(bar_width=10),
            TimeRemainingColumn(table_column=Column(min_width=7, no_wrap=True)),
            TextColumn("left", table_column=Column(min_width=4, no_wrap=True)),
            TextColumn("{task.fields[details]}", table_column=Column(no_wrap=True, overflow="ellipsis")),
        )
        self.progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.task: TaskID = self.progress.add_task("training", total=num_steps, details="")

    def __enter__(self) -> "TrainingProgress":
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def resume(self, num_steps: int) -> None:
        """So many steps were done before."""
        self.progress.update(self.task, completed=num_steps)

    def step(self, epoch: int, loss: float, num_residues: int) -> None:
        """One optimiser step is done."""
        self.num_residues += num_residues
        self.num_pending += 1
        if time.perf_counter() - self.shown < SECONDS_BETWEEN_UPDATES:
            return
        rate = self.num_residues / (time.perf_counter() - self.started)
        best = "" if self.best is None else f"best {self.metric} {self.best:.3f}  "
        self.progress.update(
            self.task,
            advance=self.num_pending,
            description=f"epoch {epoch}  loss {loss:.4f}",
            details=f"{best}{rate / 1000:,.0f}k residues/s  {_gigabytes(self.device)}",
        )
        self.num_pending, self.shown = 0, time.perf_counter()

    def validating(self, epoch: int) -> None:
        """The steps of an epoch are done, and its validation begins."""
        self.progress.update(self.task, advance=self.num_pending, description=f"epoch {epoch}  validating")
        self.num_pending = 0

    def epoch(self, epoch: int, *, loss: float, value: float, seconds: float, is_best: bool) -> None:
        """One epoch and its validation are done."""
        if is_best:
            self.best = value
        mark = "  *" if is_best else ""
        self.console.print(
            f"epoch {epoch:3d}  loss {loss:.4f}  validation {self.metric} {value:.4f}  {seconds:.1f} s  "
            f"{_gigabytes(self.device)}{mark}",
            highlight=False,
        )

    def say(self, text: str) -> None:
        """A message above the live line."""
        self.console.print(text, highlight=False)


def _gigabytes(device: torch.device) -> str:
    return f"peak {peak_memory_bytes(device) / 2**30:.2f} GiB"
