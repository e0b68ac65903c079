"""Who computes portions: this process with its cache, or the workers of a Ray cluster."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import pyarrow as pa
from rich.console import Console

from peftide.data.portions import Portion
from peftide.inference.embed import Advance
from peftide.inference.portion_encoder import Embedder
from peftide.inference.ray_workers import Chosen, Load, ray_workers
from peftide.inference.store import StateStore
from peftide.inference.work import Compute, Work


@contextmanager
def computing(
    settings: Chosen,
    work: Work,
    load: Load[Chosen],
    *,
    embedder: Embedder,
    store: AbstractContextManager[StateStore | None],
    console: Console,
) -> Iterator[Compute]:
    """Yield what has portions computed.

    work: what this process would do, with `store` open; load: has the same from settings alone, for workers elsewhere.
    """
    if settings.ray is not None:
        device = embedder.encoder.machine.device.type
        with ray_workers(settings, load, identity=embedder.identity(), device=device, console=console) as compute:
            yield compute
        return
    with store as opened:

        def one_by_one(portions: Iterator[Portion], advance: Advance) -> Iterator[tuple[int, pa.Table]]:
            for portion in portions:
                yield portion.number, work(portion, store=opened, advance=advance)

        yield one_by_one
