"""The bars of a cluster run, measured: `make bench-scale`, or a part: `python -m benchmarks.scale --only race`.

Writes benchmarks/scale/<part>.md. What is measured is made up (see made_up.py) but for `memory`, which runs the stages
on drawn images with models of random weights.
"""

import sys
from typing import Annotated

import typer

from benchmarks.bars import Part, measure
from benchmarks.scale import memory, race, rerun, slurm, ten_million

PARTS: dict[str, Part] = {
    "race": race.rows,
    "rerun": rerun.rows,
    "memory": memory.rows,
    "slurm": slurm.rows,
    "ten-million": ten_million.rows,
}


def bench(
    only: Annotated[list[str] | None, typer.Option(help=f"Parts: {', '.join(PARTS)}. Default: all.")] = None,
    folder: Annotated[str | None, typer.Option(help="Where made-up data go. Default: a temporary folder.")] = None,
) -> None:
    """Measure, print and write down. Exits with 1 when a bar is missed."""
    sys.exit(not measure("benchmarks.scale", PARTS, only, folder))


if __name__ == "__main__":
    typer.run(bench)
