"""How close the stages come to the bare models: `make bench`, or a part: `python -m benchmarks.engine --only stage`.

Writes benchmarks/engine/<part>.md. Small models with random weights, one thread each; ratios, measured in turns, since
machines are noisy. What a GPU does: `sare bench`.
"""

from benchmarks.bars import Part, run
from benchmarks.engine import batches, caption, counts, loader, overlap, png, stage, steps, threads

PARTS: dict[str, Part] = {
    "counts": counts.rows,
    "batches": batches.rows,
    "overlap": overlap.rows,
    "caption": caption.rows,
    "png": png.rows,
    "loader": loader.rows,
    "stage": stage.rows,
    "threads": threads.rows,
    "steps": steps.rows,
}


if __name__ == "__main__":
    run("benchmarks.engine", PARTS)
