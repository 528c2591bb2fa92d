"""reconstruct.speed=rounding by torch's inductor, on the scale model: `python -m benchmarks.engine.compiled`.

Run `sare mini` before. Writes benchmarks/engine/compiled.md; takes some minutes, nearly all of them to compile.
"""

import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import typer
from PIL import Image
from rich.console import Console
from torch._dynamo.utils import counters

from benchmarks.bars import made_by
from sare_core.config import load_settings
from sare_core.evaluation.tables import ResultTable, to_markdown, to_terminal
from sare_core.reconstruction.mapper import Mapped, Mapper

IMAGES, TURNS = 16, 5
HEIGHTS = (32, 24)  # of images 32 wide; the lower ones are cut from the middle
COLUMNS = ["size", "graphs", "compiled in, s", "graphs later", "Δx̂, most", "Δx̂", "ms, exact", "ms, rounding"]
NOTES = [
    f"{IMAGES} images in one batch, one thread. graphs: compiled in the first call, of encoder, U-Net and decoder, "
    f"with an empty cache; later: in the {TURNS} calls after it.",
    "Δx̂: between exact and rounding, in levels, the largest and the mean; ms: of the processor, an image, the least of "
    f"{TURNS} turns.",
]


def rows() -> list[list[str]]:
    every = len(files := sorted(Path("data/mini").rglob("*.png"))) // IMAGES
    images = [np.asarray(Image.open(file).convert("RGB")) for file in files[::every][:IMAGES]]
    exact, rounding = (_mapper(speed) for speed in ("exact", "rounding"))
    found = list[list[str]]()
    for height in HEIGHTS:
        top = (32 - height) // 2
        cut = [image[top : top + height] for image in images]
        before, started = _graphs(), time.perf_counter()
        _maps(rounding, cut)
        seconds, graphs = time.perf_counter() - started, _graphs() - before
        turns = [[_timed(mapper, cut) for mapper in (exact, rounding)] for _ in range(TURNS)]
        (one, _), (other, _) = turns[0]
        moved = np.abs(_x_hats(one) - _x_hats(other))
        taken = (1000 / IMAGES * min(turn[place][1] for turn in turns) for place in (0, 1))
        figures = (str(graphs), f"{seconds:.0f}", str(_graphs() - before - graphs), str(moved.max()))
        found.append([f"32×{height}", *figures, f"{moved.mean():.5f}", *(f"{each:.1f}" for each in taken)])
    return found


def _mapper(speed: str) -> Mapper:
    config = load_settings("mini", [f"reconstruct.speed={speed}", f"reconstruct.batch_size={IMAGES}"]).reconstruct
    return Mapper.load(config, 0, config.model, "cpu")


def _maps(mapper: Mapper, images: list[np.ndarray]) -> list[Mapped]:
    names = [str(number) for number in range(IMAGES)]
    return [each for each in mapper.maps(images, ["a photo of a bag"] * IMAGES, names) if isinstance(each, Mapped)]


def _timed(mapper: Mapper, images: list[np.ndarray]) -> tuple[list[Mapped], float]:
    started = time.process_time()
    return _maps(mapper, images), time.process_time() - started


def _x_hats(maps: list[Mapped]) -> np.ndarray:
    return np.stack([each.reconstruction for each in maps]).astype(int)


def _graphs() -> int:
    return counters["stats"]["unique_graphs"]


def main() -> None:
    """Measure, print and write down."""
    torch.set_num_threads(1)
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cache:  # the compiler still writes there
        os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TORCHINDUCTOR_CACHE_DIR": cache}
        table = ResultTable("Compiled", COLUMNS, rows(), NOTES)
    console.print(to_terminal(table, console.width))
    head = made_by("compiled", "python -m benchmarks.engine.compiled")
    Path(__file__).with_suffix(".md").write_text(head + to_markdown([table]), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
