"""Portion after portion to its part: what is done is left, what is not is made, and the bar tells the time left."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import pyarrow as pa
from rich.console import Console

from peftide.config import MachineSettings
from peftide.data.portions import Outline, Portion
from peftide.inference.caching import frozen_vectors
from peftide.inference.embed import embedding_key
from peftide.inference.live_bars import encoding_progress
from peftide.inference.portion_encoder import Embedder
from peftide.inference.store import StateStore
from peftide.inference.table_parts import TableParts
from peftide.inference.work import Compute

# The cache is for proteins that are used again. Its index takes 200 bytes of memory for each, and of a very large set
# the vectors would drive all else out of it.
MOST_CACHED = 50_000


class Source(Protocol):
    """Proteins in portions, from a file or from memory."""

    @property
    def outlines(self) -> Sequence[Outline]:
        """The portions, before their proteins are read."""
        ...

    def portions(self, *, is_done: Callable[[Outline], bool] = ...) -> Iterator[Portion]:
        """The portions that are not done, in order."""
        ...


def make_parts(source: Source, parts: TableParts, console: Console, compute: Compute[Portion, pa.Table]) -> None:
    """Make every part that is not there.

    Raises UserError where a part cannot be written or the source has changed.
    """

    def say(text: str) -> None:
        console.print(text, highlight=False)

    done = {outline.number for outline in source.outlines if parts.is_there(outline.number, outline.digest, say=say)}
    num_done = sum(outline.num_residues for outline in source.outlines if outline.number in done)
    if done:
        say(f"going on: {len(done):,} of {len(source.outlines):,} portions are done, {num_done:,} residues")
    num_residues = sum(outline.num_residues for outline in source.outlines)
    with encoding_progress(console, num_residues, done=num_done) as advance:
        for number, table in compute(source.portions(is_done=lambda outline: outline.number in done), advance):
            parts.write(number, source.outlines[number].digest, table)


@contextmanager
def cached_vectors(
    embedder: Embedder, source: Source, settings: MachineSettings, console: Console, *, is_published: bool
) -> Iterator[StateStore | None]:
    """The store of a frozen backbone's vectors, open for a while, and said; None where there is none.

    is_published: whether the backbone is as it was published.
    """
    num_proteins = sum(outline.num_rows for outline in source.outlines)
    if not is_published or embedder.per_residue:
        yield None
    elif num_proteins > MOST_CACHED and settings.cache_limit_gb:
        console.print(f"cache not used: it is for sets of up to {MOST_CACHED:,} proteins", highlight=False)
        yield None
    else:
        digests: list[bytes] = []
        if settings.cache_limit_gb:
            for portion in source.portions():
                digests += map(embedding_key, embedder.cut(portion.proteins))
        with frozen_vectors(embedder.encoder, digests, settings, console) as store:
            yield store
