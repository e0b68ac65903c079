"""A live bar for encoding proteins: residues done, residues per second, time left."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from peftide.inference.embed import Advance


@contextmanager
def encoding_progress(console: Console, num_residues: int) -> Iterator[Advance]:
    """Yield a function to be told of residues just encoded; silent where there is no terminal."""
    columns = (
        TextColumn("encoding"),
        BarColumn(bar_width=30),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} residues  {task.speed:,.0f}/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("encoding", total=num_residues)
        yield lambda residues: progress.update(task, advance=residues)
