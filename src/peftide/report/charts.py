"""Charts as inline SVG that follows the page's colours, its fonts and its dark theme; equal data make equal text."""

import io
import re
from collections.abc import Callable, Sequence
from html import escape

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Each is also the light theme's value in style.css; on the page the style sheet has the say
INK, MUTED, RULE, PAPER = "#17212b", "#586776", "#d9e0e6", "#ffffff"
SERIES = ("#1f6fb2", "#d1660f", "#8894a0")
VARIABLES = {INK: "--ink", MUTED: "--muted", RULE: "--rule", PAPER: "--paper"} | {
    color: f"--series-{number}" for number, color in enumerate(SERIES, start=1)
}
STYLE = {
    "svg.fonttype": "none",  # text stays text: searchable, and in the page's font
    "text.parse_math": False,  # a dollar in somebody's name is a dollar
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "figure.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.labelcolor": INK,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.8,
}
FULL_WIDTH = 10.2  # inches, as wide as the page's column


def draw(
    paint: Callable[[Sequence[Axes]], None],
    *,
    name: str,
    description: str,
    width: float = FULL_WIDTH,
    height: float = 3.4,
    panel_widths: Sequence[float] = (1.0,),
) -> str:
    """SVG of what `paint` draws into the panels that it is given, side by side.

    name: unique on the page, of letters and hyphens. description: for those who cannot see it. width, height: inches.
    panel_widths: one relative width for each panel.
    """
    with matplotlib.style.context(["default", STYLE | {"svg.hashsalt": name}]):
        figure = Figure(figsize=(width, height), layout="constrained")
        panels = figure.subplots(1, len(panel_widths), squeeze=False, width_ratios=list(panel_widths))[0]
        paint(panels)
        stream = io.StringIO()
        FigureCanvasSVG(figure).print_svg(stream, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return _for_the_page(stream.getvalue(), name=name, description=description, width=width, height=height)


def _for_the_page(svg: str, *, name: str, description: str, width: float, height: float) -> str:
    """matplotlib's file as an element: named colours, ids of its own, no rules for the rest of the page."""
    inner = svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]
    inner = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", inner, flags=re.DOTALL)
    inner = re.sub(r"<[^>]*>", lambda tag: _tag_for_the_page(tag[0], name), inner)
    inner = re.sub(r"\s*\n\s*", "\n", inner).strip()
    size = f'width="{96 * width:.0f}" height="{96 * height:.0f}" viewBox="0 0 {72 * width:g} {72 * height:g}"'
    return f'<svg class="chart" role="img" aria-label="{escape(description)}" {size}>\n{inner}\n</svg>'


def _tag_for_the_page(tag: str, name: str) -> str:
    """One tag: ids that no other chart has, the page's font and colours, hundredths of a point."""
    tag = re.sub(r' font-family: [^;"]*;', "", re.sub(r'<g id="[^"]*">', "<g>", tag))
    tag = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", tag).replace("xlink:href", "href")
    tag = re.sub("|".join(VARIABLES), lambda color: f"var({VARIABLES[color[0]]})", tag)
    return re.sub(r"\d+\.\d{3,}", lambda digits: f"{float(digits[0]):.2f}", tag)
