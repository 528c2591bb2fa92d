"""Bars: what was measured, and whether it holds. Each part of a benchmark yields such lines; they become a table."""

import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.console import Console
from rich.table import Table


class Row(NamedTuple):
    """What was measured, on what, the figure, the bar, and whether it holds."""

    measure: str
    on: str
    figure: str
    bar: str
    holds: bool


Part = Callable[[Path], Iterator[Row]]  # a folder for its data


def run(package: str, parts: dict[str, Part]) -> None:
    """The command of a benchmark: all parts, or those of --only. Exits with 1 when a bar is missed."""

    def bench(
        only: Annotated[list[str] | None, typer.Option(help=f"Parts: {', '.join(parts)}. Default: all.")] = None,
        folder: Annotated[str | None, typer.Option(help="Where data go. Default: a temporary folder.")] = None,
    ) -> None:
        """Measure, print and write down. Exits with 1 when a bar is missed."""
        sys.exit(not measure(package, parts, only, folder))

    typer.run(bench)


def measure(package: str, parts: dict[str, Part], only: list[str] | None, folder: str | None) -> bool:
    """Run the parts, print their tables and write each beside its package as <part>.md; whether all bars hold."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    here, holds = Path(__file__).parent / package.rpartition(".")[2], True
    for name in only or parts:
        with tempfile.TemporaryDirectory() as temporary:
            rows = list(_shown(name, parts[name](Path(folder or temporary) / name)))
        (here / f"{name}.md").write_text(_markdown(package, name, rows))
        holds &= all(row.holds for row in rows)
    return holds


def _shown(name: str, rows: Iterator[Row]) -> Iterator[Row]:
    console = Console(highlight=False)
    table = Table(title=name, title_justify="left", box=None)
    for column in ("measure", "on", "figure", "bar", "holds"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(row.measure, row.on, row.figure, row.bar, "yes" if row.holds else "no")
        yield row
    console.print(table)


def _markdown(package: str, name: str, rows: list[Row]) -> str:
    lines = ["| measure | on | figure | bar | holds |", "|---|---|---|---|---|"]
    lines += [f"| {r.measure} | {r.on} | {r.figure} | {r.bar} | {'yes' if r.holds else 'no'} |" for r in rows]
    return made_by(name, f"python -m {package} --only {name}") + "\n".join(lines) + "\n"


def made_by(name: str, command: str) -> str:
    """The head of a table: its name, and what wrote it where."""
    where = f"{os.cpu_count()} cores, Python {platform.python_version()}, {datetime.now(UTC):%Y-%m-%d}"
    return f"# {name}\n\n`{command}` on {where}.\n\n"
