"""The images that a stage has before it, by the size at which they are worked on: from the index, in a stream."""

from collections import Counter
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import polars as pl

from sare_core.config import Settings
from sare_core.engine.manifest import Index
from sare_core.images.decoding import fit_size
from sare_core.images.views import viewed_size

Size = tuple[int, int]  # width, height in pixels
SHARD_SIZE = 1000  # of `sare index`, where there is no index yet


@dataclass(frozen=True)
class Images:
    """Images to be reconstructed.

    sizes: how many of each size of x̂. batches: that they make, each of one size and one shard. pixels: of all of them;
    source_bytes: their files', None where not known.
    """

    images: int
    shards: int
    sizes: Counter[Size] = field(default_factory=Counter)
    batches: int = 0
    source_bytes: int | None = None

    @property
    def pixels(self) -> int:
        return sum(width * height * count for (width, height), count in self.sizes.items())


def indexed_images(index: Index, settings: Settings, shards: list[int], multiple: int) -> Images:
    """The images of some shards of an index. multiple: pixels that sizes are floored to, the model's own."""
    rows = index.scan().filter(pl.col("shard").is_in(shards))
    by_size = rows.group_by("shard", "width", "height").agg(images=pl.len(), bytes=pl.col("bytes").sum())
    with index.reading():
        found: Any = by_size.collect(engine="streaming")
    of_shards: Counter[tuple[int, Size]] = Counter()
    sizes: Counter[Size] = Counter()
    for shard, width, height, count, _ in found.iter_rows():
        size = target_size(settings, width, height, multiple)
        of_shards[shard, size] += count
        sizes[size] += count
    batches = sum(ceil(count / settings.reconstruct.batch_size) for count in of_shards.values())
    return Images(sizes.total(), len(shards), sizes, batches, int(found["bytes"].sum()))


def supposed_images(count: int, settings: Settings, size: Size, multiple: int) -> Images:
    """Images that nobody has indexed, all of one size in pixels."""
    sizes = Counter({target_size(settings, *size, multiple): count})
    return Images(count, ceil(count / SHARD_SIZE), sizes, ceil(count / settings.reconstruct.batch_size))


def target_size(settings: Settings, width: int, height: int, multiple: int) -> Size:
    """The size of x̂ for an image of width × height: viewed, then fitted, as `reconstruct` does."""
    reconstruct = settings.reconstruct
    viewed = viewed_size(settings.view, width, height)
    return fit_size(*viewed, reconstruct.longer_side, multiple, reconstruct.upscale)
