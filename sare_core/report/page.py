"""The page: a template filled with what the other modules of this folder found, and nothing computed here.

One HTML file that needs nothing else: pictures are data URIs, figures inline SVG, and its content security policy
forbids any request. The same content gives the same bytes.
"""

from importlib.resources import files
from typing import Any

from sare_core.engine.terminal import printable
from sare_core.report.examples import LONGEST


def render(template: str = "page.html.jinja", room: str = "sare_core.report", **content: Any) -> str:
    """The page of all that a room's template names; what lacks is an error."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(room, "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_finalize,
    )
    style = (files("sare_core.report") / "page.css").read_text(encoding="utf-8")
    return environment.get_template(template).render(content, style=style, longest=LONGEST)


def _finalize(value: Any) -> Any:
    """Names and captions come from anywhere: hidden characters, which could turn the text around, are written out."""
    return printable(value) if type(value) is str else value  # Markup, a str too, is made of such text already
