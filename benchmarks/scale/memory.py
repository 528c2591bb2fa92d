"""How the memory of each stage grows with the number of images: it should not.

Growth is of memory that is no file's, beside all that the stage takes: of mapped libraries the kernel brings in tens of
megabytes at some moment or other, whatever the number of images.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.bars import Row
from benchmarks.scale.command import SARE, Measured, Standins, measure, standins

SMALL = [
    "reconstruct.longer_side=16",
    "reconstruct.steps=2",
    "caption.max_new_tokens=2",
    "caption.batch_size=50",
    "reconstruct.batch_size=50",
    "train.epochs=1",
    "train.batch_size=50",
    "train.micro_batch_size=50",
    "train.workers=0",
]
STAGES = ("index", "caption", "reconstruct", "train", "evaluate")


def rows(folder: Path, few: int = 1_000, many: int = 20_000) -> Iterator[Row]:
    settings = standins(folder, *SMALL)
    small, large = (_peaks(settings, folder / str(count), count) for count in (few, many))
    for stage in STAGES:
        more = large[stage].anonymous_mb - small[stage].anonymous_mb
        growth = more / small[stage].peak_mb
        yield Row(
            f"memory growth of {stage}",
            f"from {few:,} to {many:,} images",
            f"{100 * growth:+.1f} % ({more:+.0f} MB on {small[stage].peak_mb:.0f} MB)",
            "≤ 5 %",
            growth <= 0.05,
        )


def _peaks(settings: Standins, folder: Path, count: int) -> dict[str, Measured]:
    """Each stage on `count` images, 100 a shard."""
    _draw(folder / "images", count)
    manifests, work = str(folder / "manifests"), str(folder / "work")
    index = ["--layout", "folder", "--root", str(folder / "images"), "--name", "drawn", "--shard-size", "100"]
    peaks = {"index": measure([*SARE, "index", *index, "--manifests", manifests, "--workers", "1"])}
    for stage in STAGES[1:]:
        peaks[stage] = measure([*SARE, stage, *settings.options("drawn", work, manifests)])
    return peaks


def _draw(folder: Path, count: int) -> None:
    """Noise of 16×16, a fifth of it for the test; half real, half fake."""
    rng = np.random.default_rng(0)
    for number in range(count):
        split = "test" if number % 5 == 0 else "train"
        kind = "real" if number % 2 else "fake/noise"
        path = folder / split / kind / f"{number:06}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
