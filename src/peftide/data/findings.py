"""What reading finds: problems for one error that lists them all, notes for the user to see."""

import difflib
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from peftide.errors import raise_problems

SHOWN = 50
MOST_KEPT = 1000  # of a kind, in full


@dataclass(frozen=True)
class Findings:
    """Problems by kind and notes, collected while a file is read; `raise_problems` ends the reading.

    Of a kind with very many problems the first are kept in full, the others as empty texts: 8 bytes each.
    """

    notes: list[str] = field(default_factory=list)
    problems: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, problem: str) -> None:
        """One more problem; the kinds share the lines that are shown."""
        known = self.problems.setdefault(kind, [])
        known.append(problem if len(known) < MOST_KEPT else "")

    def join(self, later: "Findings") -> None:
        """What was found of the same file apart, as if it had been found now."""
        self.notes.extend(later.notes)
        for kind, problems in later.problems.items():
            for problem in problems:
                self.add(kind, problem)

    def withdraw(self, kinds: Collection[str]) -> dict[str, list[str]]:
        """Take the problems of some kinds out, so that they no longer end the reading; return them by kind."""
        return {kind: self.problems.pop(kind) for kind in list(self.problems) if kind in kinds}

    def raise_problems(self, path: str) -> None:
        """Raise one UserError with all problems, or return; each kind has its share of the lines shown in full."""
        share = SHOWN // max(1, len(self.problems))
        first = [problem for problems in self.problems.values() for problem in problems[:share]]
        others = [problem for problems in self.problems.values() for problem in problems[share:]]
        raise_problems(f"{path} cannot be used as it is", first + others, shown=SHOWN)


def has_controls(text: str) -> bool:
    """Whether a text holds characters that a terminal obeys, or halves of characters; all others may be in a name."""
    return not text.isprintable() and any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text)


def words(text: str) -> frozenset[str]:
    """The words of a text, for tables of words."""
    return frozenset(text.split())


def rows_by_value(values: Iterable[str]) -> dict[str, list[int]]:
    """The rows in which each value stands, by first appearance."""
    rows: dict[str, list[int]] = {}
    for row, value in enumerate(values):
        rows.setdefault(value, []).append(row)
    return rows


def quoted(text: str) -> str:
    """A value from a file for a message: quoted, escaped, and cut when long."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def listed(names: Iterable[str], *, shown: int = 20) -> str:
    """Names from a file for a message: the first ones, and how many more there are."""
    names = list(names)
    text = ", ".join(name if name.isprintable() and len(name) <= 60 else quoted(name) for name in names[:shown])
    return f"{text} and {len(names) - shown} more" if len(names) > shown else text


def counted(number: int, noun: str) -> str:
    """`1 row`, `1,200 rows`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def repeated(rows: Sequence[int]) -> str:
    """How often a problem comes again, after the row that the message names."""
    return f" (and {counted(len(rows) - 1, 'more row')})" if len(rows) > 1 else ""


def nearest(name: str, names: Collection[str]) -> str | None:
    """The most similar of the first 20,000 names, or None; both sides are compared without regard to case."""
    if len(name) > 200:
        return None
    by_folded = {other.casefold(): other for other in islice(names, 20_000)}
    found = difflib.get_close_matches(name.casefold(), by_folded, n=1, cutoff=0.7)
    return by_folded[found[0]] if found else None
