"""How a figure is drawn: as PNG for papers and slides, and as SVG for the page.

Drawn narrow, so that they can be read on a phone; wide screens set them side by side. Real and fake differ by place,
shape and hatching as well as by colour. In the SVG the colours become the page's own variables, light or dark.
"""

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import polars as pl

from sare_core.engine.terminal import printable
from sare_core.errors import needs_extra

INK, SOFT, RULE, PAPER = "#1b2127", "#59636e", "#d5dae0", "#fefefe"
REAL, FAKE = "#0062a3", "#b34700"
_VARIABLES = {INK: "ink", SOFT: "soft", RULE: "rule", PAPER: "paper", REAL: "real", FAKE: "fake"}
WIDTH = 4.6  # inches; 331 points, about a phone's width
_STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a dollar sign in a subset's name is one
    "hatch.linewidth": 0.6,
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 9.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT,
    "axes.facecolor": "none",
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.size": 0,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "figure.facecolor": PAPER,
    "lines.linewidth": 1.4,
}


class Figure(NamedTuple):
    """name: of its files. alt: what a reader who cannot see it should know. data: the frame that was drawn."""

    name: str
    svg: str
    png: bytes
    alt: str
    data: pl.DataFrame


def drawn(name: str, alt: str, data: pl.DataFrame, height: float, draw: Callable[[Any], None]) -> Figure:
    with canvas_of(WIDTH, height, name) as canvas:
        draw(canvas)
        png, svg = png_of(canvas), io.StringIO()
        canvas.savefig(svg, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return Figure(name, _for_page(name, alt, svg.getvalue()), png, alt, data)


@contextmanager
def canvas_of(width: float, height: float, name: str = "") -> Iterator[Any]:
    """A figure of so many inches in the report's style, to draw on and to save within the context."""
    with needs_extra("report"):
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure as Canvas

    with mpl.rc_context(_STYLE | {"svg.hashsalt": name}):
        canvas = Canvas(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(canvas)
        yield canvas


def png_of(canvas: Any, dpi: int = 200) -> bytes:
    """The same drawing gives the same bytes."""
    png = io.BytesIO()
    canvas.savefig(png, format="png", dpi=dpi, metadata={"Software": None})
    return png.getvalue()


def _for_page(name: str, alt: str, svg: str) -> str:
    """Inline SVG: without a fixed size and head, with ids of its own, in the page's colours."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", body, flags=re.DOTALL)
    viewbox = re.search(r'viewBox="[^"]*"', body)
    assert viewbox is not None
    head = f'<svg role="img" aria-label="{_escape(alt)}" {viewbox[0]} xmlns:xlink="http://www.w3.org/1999/xlink">'
    body = re.sub(r"<svg.*?>", lambda _: head, body, count=1, flags=re.DOTALL)
    body = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", body)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, f"var(--{variable})")
    return re.sub(r"\n\s*", "\n", body)


def _escape(text: str) -> str:
    return printable(text).replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
