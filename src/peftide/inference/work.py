"""What may be done to portions of proteins, or to bands of pairs, and by whom: this process or a worker elsewhere."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from peftide.inference.embed import Advance

Identity = Mapping[str, str | int | bool]  # all that decides the numbers beside the tasks


class Numbered(Protocol):
    """A task of several."""

    @property
    def number(self) -> int:
        """Its place among them."""
        ...


Task = TypeVar("Task", bound=Numbered)
Done = TypeVar("Done")
TaskTaken = TypeVar("TaskTaken", bound=Numbered, contravariant=True)
DoneGiven = TypeVar("DoneGiven", covariant=True)

# Numbers and results of tasks, in whatever order; told of how much was done, in residues or pairs
Compute = Callable[[Iterator[Task], Advance], Iterator[tuple[int, Done]]]


class Work(Protocol[TaskTaken, DoneGiven]):
    """From a task to its result."""

    def __call__(self, task: TaskTaken, /, *, advance: Advance = ...) -> DoneGiven:
        """The result of one task."""
        ...


@dataclass(frozen=True)
class Loaded(Generic[Task, Done]):
    """A model in memory: what it would compute, and how."""

    identity: Identity
    work: Work[Task, Done]
