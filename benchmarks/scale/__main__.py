"""The bars of a cluster run, measured: `make bench-scale`, or a part: `python -m benchmarks.scale --only race`.

Writes benchmarks/scale/<part>.md. What is measured is made up (see made_up.py) but for `memory`, which runs the stages
on drawn images with models of random weights.
"""

import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.scale import memory, race, rerun, slurm, ten_million
from benchmarks.scale.table import Row

PARTS: dict[str, Any] = {
    "race": race.rows,
    "rerun": rerun.rows,
    "memory": memory.rows,
    "slurm": slurm.rows,
    "ten-million": ten_million.rows,
}
HERE = Path(__file__).parent


def bench(
    only: Annotated[list[str] | None, typer.Option(help=f"Parts: {', '.join(PARTS)}. Default: all.")] = None,
    folder: Annotated[str | None, typer.Option(help="Where made-up data go. Default: a temporary folder.")] = None,
) -> None:
    """Measure, print and write down. Exits with 1 when a bar is missed."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    missed = False
    for part in only or PARTS:
        with tempfile.TemporaryDirectory() as temporary:
            rows = list(_shown(part, PARTS[part](Path(folder or temporary) / part)))
        (HERE / f"{part}.md").write_text(_markdown(part, rows))
        missed |= not all(row.holds for row in rows)
    sys.exit(missed)


def _shown(part: str, rows: Iterator[Row]) -> Iterator[Row]:
    console = Console(highlight=False)
    table = Table(title=part, title_justify="left", box=None)
    for column in ("measure", "on", "figure", "bar", "holds"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(row.measure, row.on, row.figure, row.bar, "yes" if row.holds else "no")
        yield row
    console.print(table)


def _markdown(part: str, rows: list[Row]) -> str:
    lines = ["| measure | on | figure | bar | holds |", "|---|---|---|---|---|"]
    lines += [f"| {r.measure} | {r.on} | {r.figure} | {r.bar} | {'yes' if r.holds else 'no'} |" for r in rows]
    where = f"{os.cpu_count()} cores, Python {platform.python_version()}, {datetime.now(UTC):%Y-%m-%d}"
    return f"# {part}\n\n`python -m benchmarks.scale --only {part}` on {where}.\n\n" + "\n".join(lines) + "\n"


if __name__ == "__main__":
    typer.run(bench)
