"""What a page is made of: plain records that `page` turns into HTML.

Every text is escaped on the page; only the drawing of a `Picture` is taken as it is.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

Tone = Literal["good", "caution", "bad", "plain"]


@dataclass(frozen=True)
class Text:
    """A paragraph; `is_note`: smaller and paler."""

    kind: ClassVar[str] = "text"
    text: str
    is_note: bool = False


@dataclass(frozen=True)
class Heading:
    """A heading within a section."""

    kind: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True)
class Bullets:
    """Sentences one below the other."""

    kind: ClassVar[str] = "bullets"
    items: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """One judgement in a coloured box."""

    title: str
    text: str
    tone: Tone


@dataclass(frozen=True)
class Verdicts:
    """Judgements side by side."""

    kind: ClassVar[str] = "verdicts"
    boxes: tuple[Verdict, ...]


@dataclass(frozen=True)
class Tile:
    """One number to see at a glance."""

    label: str
    value: str
    detail: str = ""


@dataclass(frozen=True)
class Tiles:
    """Numbers side by side."""

    kind: ClassVar[str] = "tiles"
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class Column:
    """The heading of a table's column; numbers stand on the right."""

    title: str
    is_number: bool = True


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    detail: smaller, below the text. bar: fraction 0 to 1 drawn as a bar below. mark: where on that bar a line stands.
    shade: fraction 0 to 1 of the colour behind the text.
    """

    text: str
    detail: str = ""
    bar: float | None = None
    mark: float | None = None
    shade: float | None = None


@dataclass(frozen=True)
class Table:
    """Rows of cells; the first of each row names it. strong_rows: numbers of the rows to stress."""

    kind: ClassVar[str] = "table"
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    strong_rows: tuple[int, ...] = ()


@dataclass(frozen=True)
class Picture:
    """A chart of `charts.draw` with a sentence below it."""

    kind: ClassVar[str] = "picture"
    svg: str
    caption: str = ""


@dataclass(frozen=True)
class Code:
    """What to type."""

    kind: ClassVar[str] = "code"
    text: str


@dataclass(frozen=True)
class Definitions:
    """Words and what they mean."""

    kind: ClassVar[str] = "definitions"
    entries: tuple[tuple[str, str], ...]


Block = Text | Heading | Bullets | Verdicts | Tiles | Table | Picture | Code | Definitions


@dataclass(frozen=True)
class Section:
    """A titled part of a page; it is left out of the contents at the top when it has no title."""

    title: str
    blocks: tuple[Block, ...]


def text_table(
    columns: tuple[str, ...], rows: tuple[tuple[str, ...], ...], *, num_text_columns: int = 1, caption: str = ""
) -> Table:
    """A table of plain cells; all but the first `num_text_columns` columns are numbers."""
    return Table(
        columns=tuple(Column(title, is_number=place >= num_text_columns) for place, title in enumerate(columns)),
        rows=tuple(tuple(Cell(text) for text in row) for row in rows),
        caption=caption,
    )
