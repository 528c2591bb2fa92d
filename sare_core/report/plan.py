"""What a reconstruction run would do, and the disk that it takes."""

from collections import Counter, defaultdict

import polars as pl
from rich.console import Console
from rich.table import Table

from sare_core.config import Settings
from sare_core.images import fit_size
from sare_core.manifest import Index
from sare_core.records import Folder
from sare_core.views import viewed_size

# Bytes a pixel of a PNG as `encode_png` writes it. tests/test_plan.py holds it against scikit-image's photographs at
# 512 pixels (1.3 to 2.0 each); maps of moved detail are nearer the upper end.
PNG_BYTES_PER_PIXEL = 1.9
JSON_BYTES = 600
TAR_BYTES = 512 + 256  # a member's header, and half a block of padding


def print_plan(settings: Settings, index: Index, folder: Folder, shards: list[int], console: Console) -> None:
    """Shards by state, images by size, and the disk for what is still to do. Reads no image and loads no model.

    Sizes are floored to multiples of 8, Stable Diffusion's own; a model with another multiple moves them by a little.
    """
    states = folder.states({shard: index.digests[shard] for shard in shards})
    table = Table(title=f"{folder.stage} {folder.fingerprint} of {folder.dataset}")
    for column in ("state", "shards", "images"):
        table.add_column(column, justify="left" if column == "state" else "right")
    images = dict(zip(index.shards["shard"], index.shards["images"], strict=True))
    by_state: dict[str, list[int]] = defaultdict(list)
    for shard, state in states.items():
        by_state[str(state)].append(shard)
    for text, members in by_state.items():
        table.add_row(text, f"{len(members):,}", f"{sum(images[shard] for shard in members):,}")
    console.print(table)

    todo = [shard for shard, state in states.items() if state.kind != "done"]
    rows = index.frame().filter(pl.col("shard").is_in(todo)).select("width", "height", "bytes")
    reconstruct = settings.reconstruct
    targets: Counter[tuple[int, int]] = Counter()
    for width, height in rows.select("width", "height").iter_rows():
        viewed = viewed_size(settings.view, width, height)
        targets[fit_size(viewed[0], viewed[1], reconstruct.longer_side, 8, reconstruct.upscale)] += 1
    pixels = sum(width * height * count for (width, height), count in targets.items())
    map_pixels = pixels if reconstruct.sare_size == "full" else len(rows) * reconstruct.sare_size**2
    fields = 2 + reconstruct.keep_source + reconstruct.keep_reconstruction
    disk = map_pixels * PNG_BYTES_PER_PIXEL + len(rows) * (JSON_BYTES + fields * TAR_BYTES)
    disk += pixels * PNG_BYTES_PER_PIXEL if reconstruct.keep_reconstruction else 0
    disk += int(rows["bytes"].sum() or 0) if reconstruct.keep_source else 0
    console.print(
        f"to do: {len(todo):,} shards, {len(rows):,} images, {len(targets)} sizes"
        + (f" (most often {'×'.join(map(str, targets.most_common(1)[0][0]))})" if targets else "")
        + f"; about {disk / 1e9:,.2f} GB of disk (PNG at {PNG_BYTES_PER_PIXEL} bytes a pixel, an estimate)"
    )
