"""The images that a stage has before it, by the size at which they are worked on: from the index, in a stream."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import polars as pl

from sare_core.config import Settings
from sare_core.engine.manifest import Index
from sare_core.images.decoding import fit_size
from sare_core.images.views import viewed_size
from sare_core.reconstruction.batching import empty_rows

Size = tuple[int, int]  # width, height in pixels
SHARD_SIZE = 1000  # of `sare index`, where there is no index yet
# Bytes a pixel of a PNG as `encode_png` writes it. tests/plan/test_disk.py holds it against scikit-image's photographs
# at 512 pixels (1.3 to 2.0 each); maps of moved detail are nearer the upper end.
PNG_BYTES_PER_PIXEL = 1.9


@dataclass(frozen=True)
class Images:
    """Images to be reconstructed.

    sizes: how many of each size of x̂. batches: that they make, each of one size and of the shards that are computed
    together; empty_rows: of these batches, those that are computed and thrown away. pixels: of all images;
    source_bytes: their files', as reconstruct.keep_source would store them; None where not known.
    """

    images: int
    shards: int
    sizes: Counter[Size] = field(default_factory=Counter)
    batches: int = 0
    empty_rows: int = 0
    source_bytes: int | None = None

    @property
    def pixels(self) -> int:
        return sum(width * height * count for (width, height), count in self.sizes.items())


def indexed_images(index: Index, settings: Settings, shards: list[int], multiple: int) -> Images:
    """The images of some shards of an index. multiple: pixels that sizes are floored to, the model's own."""
    rows, stored = index.scan().filter(pl.col("shard").is_in(shards)), pl.col("bytes")
    if settings.reconstruct.keep_source == "recoded":
        recoded = pl.col("width").cast(pl.Int64) * pl.col("height") * PNG_BYTES_PER_PIXEL
        stored = pl.when(pl.col("extension") == "png").then(recoded).otherwise(stored)
    by_size = rows.group_by("shard", "width", "height").agg(images=pl.len(), bytes=stored.sum())
    with index.reading():
        found: Any = by_size.collect(engine="streaming")
    lot = {shard: number // settings.reconstruct.shards_together for number, shard in enumerate(shards)}
    by_lot: Counter[tuple[int, Size]] = Counter()
    for shard, width, height, count, _ in found.iter_rows():
        by_lot[lot[shard], target_size(settings, width, height, multiple)] += count
    return count_batches(by_lot, len(shards), settings, int(found["bytes"].sum()))


def supposed_images(count: int, settings: Settings, size: Size, multiple: int) -> Images:
    """Images that nobody has indexed, all of one size in pixels."""
    together = SHARD_SIZE * settings.reconstruct.shards_together
    target = target_size(settings, *size, multiple)
    by_lot = {(lot, target): min(together, count - lot * together) for lot in range(ceil(count / together))}
    return count_batches(by_lot, ceil(count / SHARD_SIZE), settings)


def count_batches(
    by_lot: Mapping[tuple[int, Size], int], shards: int, settings: Settings, source: int | None = None
) -> Images:
    """by_lot: how many there are of a size in each lot of shards, which are computed together."""
    reconstruct, sizes = settings.reconstruct, Counter[Size]()
    batches = empty = 0
    for (_, size), count in by_lot.items():
        sizes[size] += count
        batches += ceil(count / reconstruct.batch_size)
        empty += empty_rows(count % reconstruct.batch_size, reconstruct.batch_size, reconstruct.speed)
    return Images(sizes.total(), shards, sizes, batches, empty, source)


def target_size(settings: Settings, width: int, height: int, multiple: int) -> Size:
    """The size of x̂ for an image of width × height: viewed, then fitted, as `reconstruct` does."""
    reconstruct = settings.reconstruct
    viewed = viewed_size(settings.view, width, height)
    return fit_size(*viewed, reconstruct.longer_side, multiple, reconstruct.upscale)
