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

    sizes: how many of each size of x̂. pixels: of all of them; source_bytes: their files', None where not known.
    largest_*: of the shard with the most pixels, which the local spool has to hold.
    """

    images: int
    shards: int
    sizes: Counter[Size] = field(default_factory=Counter)
    source_bytes: int | None = None
    largest_images: int = 0
    largest_pixels: int = 0
    largest_source_bytes: int | None = None

    @property
    def pixels(self) -> int:
        return sum(width * height * count for (width, height), count in self.sizes.items())


def indexed_images(index: Index, settings: Settings, shards: list[int], multiple: int) -> Images:
    """The images of some shards of an index. multiple: pixels that sizes are floored to, the model's own."""
    rows = index.scan().filter(pl.col("shard").is_in(shards))
    with index.reading():
        found = _collect(rows.group_by("width", "height").agg(images=pl.len(), bytes=pl.col("bytes").sum()))
    targets = [target_size(settings, width, height, multiple) for width, height in found[:, :2].iter_rows()]
    sizes: Counter[Size] = Counter()
    for size, count in zip(targets, found["images"], strict=True):
        sizes[size] += count
    if not targets:
        return Images(0, 0, source_bytes=0)
    areas = found.select("width", "height").with_columns(pixels=pl.Series([w * h for w, h in targets], dtype=pl.Int64))
    per_shard = rows.select("shard", "width", "height", "bytes").join(areas.lazy(), on=["width", "height"])
    largest = _collect(
        per_shard.group_by("shard")
        .agg(pl.len().alias("images"), pl.col("pixels", "bytes").sum())
        .sort("pixels", descending=True)
        .head(1)
    ).row(0, named=True)
    return Images(
        images=sum(sizes.values()),
        shards=len(shards),
        sizes=sizes,
        source_bytes=int(found["bytes"].sum()),
        largest_images=largest["images"],
        largest_pixels=largest["pixels"],
        largest_source_bytes=largest["bytes"],
    )


def supposed_images(count: int, settings: Settings, size: Size, multiple: int) -> Images:
    """Images that nobody has indexed, all of one size in pixels."""
    width, height = target_size(settings, *size, multiple)
    largest = min(count, SHARD_SIZE)
    return Images(
        images=count,
        shards=ceil(count / SHARD_SIZE),
        sizes=Counter({(width, height): count}),
        largest_images=largest,
        largest_pixels=largest * width * height,
    )


def target_size(settings: Settings, width: int, height: int, multiple: int) -> Size:
    """The size of x̂ for an image of width × height: viewed, then fitted, as `reconstruct` does."""
    reconstruct = settings.reconstruct
    viewed = viewed_size(settings.view, width, height)
    return fit_size(*viewed, reconstruct.longer_side, multiple, reconstruct.upscale)


def _collect(frame: pl.LazyFrame) -> pl.DataFrame:
    collected: Any = frame.collect(engine="streaming")
    return collected
