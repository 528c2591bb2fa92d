"""How close the stages come to the bare models: `make bench`, or a part: `python -m benchmarks.engine --only stage`.

Writes benchmarks/engine/<part>.md. Small models with random weights, one thread each; ratios, measured in turns, since
machines are noisy. What a GPU does: `sare bench`.
"""

import sys
from typing import Annotated

import typer

from benchmarks.bars import Part, measure
from benchmarks.engine import caption, counts, overlap, png, stage, steps, threads

PARTS: dict[str, Part] = {
    "counts": counts.rows,
    "overlap": overlap.rows,
    "caption": caption.rows,
    "png": png.rows,
    "stage": stage.rows,
    "threads": threads.rows,
    "steps": steps.rows,
}


def bench(
    only: Annotated[list[str] | None, typer.Option(help=f"Parts: {', '.join(PARTS)}. Default: all.")] = None,
    folder: Annotated[str | None, typer.Option(help="Where data go. Default: a temporary folder.")] = None,
) -> None:
    """Measure, print and write down. Exits with 1 when a bar is missed."""
    sys.exit(not measure("benchmarks.engine", PARTS, only, folder))


if __name__ == "__main__":
    typer.run(bench)
