"""Live bars for long work: what is done, how fast, time left."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from peftide.inference.embed import Advance


def encoding_progress(console: Console, num_residues: int, *, done: int = 0) -> AbstractContextManager[Advance]:
    """Yield a function to be told of residues just encoded; silent where there is no terminal.

    done: how many had been encoded before.
    """
    return live_bar(console, num_residues, doing="encoding", unit="residues", done=done)


def scoring_progress(console: Console, num_pairs: int) -> AbstractContextManager[Callable[[float], None]]:
    """Yield a function to be told of pairs just scored; silent where there is no terminal."""
    return live_bar(console, num_pairs, doing="scoring", unit="pairs")


@contextmanager
def live_bar(
    console: Console, total: int, *, doing: str, unit: str, done: int = 0
) -> Iterator[Callable[[float], None]]:
    """Yield a function to be told of how much was just done of `total`; silent where there is no terminal."""
    columns = (
        TextColumn(doing),
        BarColumn(bar_width=20),
        TimeRemainingColumn(table_column=Column(min_width=7, no_wrap=True)),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} " + unit),
        _SpeedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(doing, total=total, completed=done)
        yield lambda more: progress.update(task, advance=more)


class _SpeedColumn(ProgressColumn):
    """How much is done in a second; nothing until that is known."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s")
