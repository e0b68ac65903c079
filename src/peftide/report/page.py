"""One self-contained page of HTML from its sections: it loads nothing, so that it can be sent and kept."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from peftide.data.writers import write_text
from peftide.report.blocks import Section

FOLDER = Path(__file__).parent


def page(title: str, sections: Sequence[Section], *, subtitle: str = "") -> str:
    """The page as text. Titles and texts may come from strangers: all but the drawings is escaped."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        title=title,
        subtitle=subtitle,
        sections=sections,
        style=(FOLDER / "style.css").read_text("utf-8"),
        version=version("peftide"),
    )


def write_page(path: Path, html: str) -> None:
    """Write a page; it appears complete or not at all. Raises UserError where it cannot be written."""
    write_text(path, html)
