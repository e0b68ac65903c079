"""What may be done to portions of proteins, and by whom: functions that this process or a worker elsewhere runs."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from peftide.data.portions import Portion
from peftide.inference.embed import Advance
from peftide.inference.store import StateStore

Identity = Mapping[str, str | int | bool]  # all that decides the numbers beside the proteins

# Numbers and tables of portions, in whatever order; told of the residues done
Compute = Callable[[Iterator[Portion], Advance], Iterator[tuple[int, pa.Table]]]


class Work(Protocol):
    """From a portion to its table."""

    def __call__(self, portion: Portion, *, store: StateStore | None = None, advance: Advance = ...) -> pa.Table:
        """The table of one portion."""
        ...


@dataclass(frozen=True)
class Loaded:
    """A model in memory: what it would compute, and how."""

    identity: Identity
    work: Work
