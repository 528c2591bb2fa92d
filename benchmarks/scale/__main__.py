"""The bars of a cluster run, measured: `make bench-scale`, or a part: `python -m benchmarks.scale --only race`.

Writes benchmarks/scale/<part>.md. What is measured is made up (see made_up.py) but for `memory`, which runs the stages
on drawn images with models of random weights.
"""

from benchmarks.bars import Part, run
from benchmarks.scale import memory, race, rerun, slurm, ten_million

PARTS: dict[str, Part] = {
    "race": race.rows,
    "rerun": rerun.rows,
    "memory": memory.rows,
    "slurm": slurm.rows,
    "ten-million": ten_million.rows,
}


if __name__ == "__main__":
    run("benchmarks.scale", PARTS)
