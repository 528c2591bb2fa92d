"""How full batches are where sizes are as mixed as ImageNet's, and how many of their rows are computed for nothing.

430,000 images in shards of 1,000, 64 tasks; half generated at 512×512, half photographs, their sizes drawn by a fixed
seed: a third 500×375, a third of five other usual sizes, the others longer side 500 and any shape. The shares are made
up, after ImageNet's usual sizes.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.bars import Row
from sare_core.config import load_settings
from sare_core.plan.images import SHARD_SIZE, Size, count_batches, target_size

IMAGES, TASKS, BATCH, DRAWN = 430_000, 64, 32, 20_000
USUAL = {(500, 375): 0.33, (375, 500): 0.12, (500, 333): 0.11, (333, 500): 0.05, (500, 500): 0.03, (640, 480): 0.02}
# Pixels that sizes are multiples of, and shards that are computed together; 7 are all of a task's.
CASES = ((8, 1), (8, 7), (64, 1), (64, 4))
BAR = 0.05


def rows(folder: Path) -> Iterator[Row]:
    sizes = _sizes()
    for multiple, together in CASES:
        sets = [f"{key}={value}" for key, value in (("size_multiple", multiple), ("shards_together", together))]
        sets += [f"batch_size={BATCH}", "speed=rounding"]
        settings = load_settings("paper", [f"reconstruct.{each}" for each in sets])
        targets = [target_size(settings, *size, multiple) for size in sizes]
        per_task = IMAGES // SHARD_SIZE // TASKS + 1
        by_lot: Counter[tuple[tuple[int, int], Size]] = Counter()
        for number in range(IMAGES):
            task, shard = divmod(number // SHARD_SIZE, per_task)
            by_lot[(task, shard // together), targets[number % DRAWN]] += 1
        found = count_batches(by_lot, IMAGES // SHARD_SIZE, settings)
        empty, whole = found.empty_rows / (IMAGES + found.empty_rows), found.batches * BATCH
        yield Row(
            f"empty rows, size_multiple={multiple}, shards_together={together}",
            f"{IMAGES:,} images, {len(found.sizes)} sizes, {TASKS} tasks, batches of {BATCH}",
            f"{empty:.1%}; batches {IMAGES / whole:.0%} full (all filled up, {1 - IMAGES / whole:.0%} were empty)",
            f"≤ {BAR:.0%}",
            empty <= BAR,
        )


def _sizes() -> list[Size]:
    rng = np.random.default_rng(0)
    drawn = list[Size]()
    for usual, shape in zip(rng.random(DRAWN), np.exp(rng.normal(0.15, 0.3, DRAWN)), strict=True):
        place = int(np.searchsorted(np.cumsum(list(USUAL.values())), usual))
        side = max(60, round(500 / max(shape, 1 / shape)))
        other = (500, side) if shape > 1 else (side, 500)
        photograph = list(USUAL)[place] if place < len(USUAL) else other
        drawn += [photograph, (512, 512)]
    return drawn[:DRAWN]
