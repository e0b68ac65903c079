"""Who computes portions: this process with its cache, or the workers of a Ray cluster."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import pyarrow as pa
from rich.console import Console

from peftide.data.portions import Portion
from peftide.inference.embed import Advance
from peftide.inference.portion_encoder import Embedder
from peftide.inference.ray_workers import Chosen, Load, ray_workers
from peftide.inference.store import StateStore
from peftide.inference.work import Compute


class PortionWork(Protocol):
    """From a portion to its table, with what an open store knows and will keep."""

    def __call__(self, portion: Portion, /, *, store: StateStore | None = None, advance: Advance = ...) -> pa.Table:
        """The table of one portion."""
        ...


@contextmanager
def computing(
    settings: Chosen,
    work: PortionWork,
    load: Load[Chosen, Portion, pa.Table],
    *,
    embedder: Embedder,
    store: AbstractContextManager[StateStore | None],
    console: Console,
) -> Iterator[Compute[Portion, pa.Table]]:
    """Yield what has portions computed.

    work: what this process would do, with `store` open; load: has the same from settings alone, for workers elsewhere.
    """
    if settings.ray is not None:
        device = embedder.encoder.machine.device.type
        doing = "encoding (without the cache)"
        with ray_workers(
            settings, load, identity=embedder.identity(), device=device, doing=doing, console=console
        ) as compute:
            yield compute
        return
    with store as opened:

        def one_by_one(portions: Iterator[Portion], advance: Advance) -> Iterator[tuple[int, pa.Table]]:
            for portion in portions:
                yield portion.number, work(portion, store=opened, advance=advance)

        yield one_by_one
