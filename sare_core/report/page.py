"""The page: a template filled with what the other modules of this folder found, and nothing computed here.

One HTML file that needs nothing else: pictures are data URIs, figures inline SVG, and its content security policy
forbids any request. The same content gives the same bytes.
"""

from importlib.resources import files
from typing import Any, NamedTuple

from sare_core.engine.terminal import printable
from sare_core.evaluation.tables import ResultTable
from sare_core.report.examples import LONGEST, Group
from sare_core.report.parts import Part
from sare_core.report.provenance import StageRow
from sare_core.report.verdict import Verdict


class Page(NamedTuple):
    """All that the page says."""

    dataset: str
    preset: str
    run: str
    detector: str  # its name in the tables
    paper: bool  # the paper's rows stand in the tables
    trained_on: str
    images: int
    note: str | None
    verdict: Verdict
    groups: dict[str, list[Group]]  # by subset
    tables: list[ResultTable]
    notes: list[str]
    shift: Part
    distributions: Part
    training: Part
    settings: str  # YAML
    stages: list[StageRow]
    failures: list[tuple[str, str, int]]
    libraries: dict[str, str]


def render(page: Page) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sare_core.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_finalize,
    )
    content: dict[str, Any] = page._asdict()
    style = (files("sare_core.report") / "page.css").read_text(encoding="utf-8")
    return environment.get_template("page.html.jinja").render(content | {"style": style, "longest": LONGEST})


def _finalize(value: Any) -> Any:
    """Names and captions come from anywhere: hidden characters, which could turn the text around, are written out."""
    return printable(value) if type(value) is str else value  # Markup, a str too, is made of such text already
