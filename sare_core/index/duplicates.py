"""Near-duplicates: images that look alike though their pixels differ, within a split and across splits.

`sare index` finds equal pixels. Here each image has a perceptual hash of 64 bits (imagehash's phash: the signs of its
lowest frequencies); images whose hashes differ in a few bits are taken for copies of one picture: re-saved, resized,
brightened. Nearly flat images have hashes that mean little.
"""

import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from sare_core.errors import ConfigError, ImageError
from sare_core.images.sources import read_source, view_image
from sare_core.store.storage import Store

HASHES = "perceptual-hashes.parquet"  # beside the index, so that an image is read once
SCHEMA = pl.Schema({"image_id": pl.String, "phash": pl.UInt64})
SAVED_EVERY = 5000  # images that a kill can cost
FAR = 12  # bits; more are no near-duplicates, and the search would compare all with all


def hash_images(
    store: Store, rows: pl.DataFrame, root: str, workers: int, advance: Callable[[int], None]
) -> pl.DataFrame:
    """SCHEMA of each image_id of some readable rows of the index; what `store` has of them is not read again.

    An image that cannot be read now has none.
    """
    known = pl.read_parquet(io.BytesIO(store.read(HASHES))) if store.exists(HASHES) else SCHEMA.to_frame()
    wanted = rows.unique("image_id", keep="first", maintain_order=True)
    advance(len(wanted) - len(todo := wanted.join(known, on="image_id", how="anti", maintain_order="left")))
    with ThreadPoolExecutor(workers) as pool:
        for part in todo.iter_slices(SAVED_EVERY):
            found = list(pool.map(lambda row: _hash(root, row, advance), part.iter_rows(named=True)))
            hashed = zip(part["image_id"], found, strict=True)
            known = pl.concat([known, pl.DataFrame(list(hashed), SCHEMA, orient="row").drop_nulls()])
            out = io.BytesIO()
            known.write_parquet(out)
            store.write(HASHES, out.getvalue())
    return known.join(wanted, on="image_id", how="semi")


def _hash(root: str, row: dict[str, Any], advance: Callable[[int], None]) -> int | None:
    import imagehash

    try:
        image = view_image(read_source(root, row), row, "raw")
    except ImageError:
        return None
    finally:
        advance(1)
    return int.from_bytes(np.packbits(imagehash.phash(image).hash).tobytes())


def near_duplicates(rows: pl.DataFrame, hashes: pl.DataFrame, distance: int) -> pl.DataFrame:
    """group, image_id, path, subset, split, label of the images that have a near-duplicate, a group after another.

    A group is all that hangs together by steps of at most `distance` bits. rows: of the index. hashes: SCHEMA.
    Raises ConfigError: the distance is none that a near-duplicate has.
    """
    if not 0 <= distance <= FAR:
        raise ConfigError(f"--distance {distance}: give 0 to {FAR} of the 64 bits.")
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    values = np.unique(hashes["phash"].to_numpy())
    pairs = [np.zeros((2, 0), dtype=np.int64), *close_pairs(values, distance)]
    first, second = np.concatenate(pairs, axis=1)
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(len(values), len(values)))
    _, group = connected_components(graph, directed=False)
    of_hash = pl.DataFrame({"phash": values, "group": group}, schema={"phash": pl.UInt64, "group": pl.Int64})
    images = rows.join(hashes, on="image_id").join(of_hash, on="phash")
    found = images.filter(pl.col("image_id").n_unique().over("group") > 1)
    found = found.select(
        pl.col("group").rank("dense").cast(pl.Int64), *("image_id", "path", "subset", "split", "label")
    )
    return found.sort("group", "split", "subset", "path")


def close_pairs(values: np.ndarray, distance: int) -> Iterator[np.ndarray]:
    """Places (2, n) of different hashes that differ in at most `distance` bits; some pairs come more than once.

    Cut into one part more than bits may differ, two such hashes have a part alike: only those are compared.
    """
    for low, high in pairwise(np.linspace(0, 64, distance + 2).astype(int)):
        part = (values >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1)
        order = np.argsort(part, kind="stable")
        for members in np.split(order, np.flatnonzero(np.diff(part[order])) + 1):
            if len(members) > 1:
                differ = np.bitwise_count(values[members][:, None] ^ values[members])
                yield members[np.stack(np.nonzero(np.triu(differ <= distance, 1)))]


def count_duplicates(found: pl.DataFrame) -> list[tuple[str, int]]:
    """What to look at, and how many images: of `near_duplicates`."""
    group = found.group_by("group")
    has = group.agg(
        trained=pl.col("split").is_in(["train", "val"]).any(),
        labels=pl.col("label").drop_nulls().n_unique(),
        subsets=pl.col("subset").filter(pl.col("split") == "test").n_unique(),
        tests=pl.col("image_id").filter(pl.col("split") == "test").n_unique(),
    )
    images = found.join(has, on="group").unique("image_id")
    test = images.filter(pl.col("split") == "test")
    return [
        ("test images like one of train or val", len(test.filter("trained"))),
        ("test images like another test image", len(test.filter(pl.col("tests") > 1))),
        ("test images like one of another generator's subset", len(test.filter(pl.col("subsets") > 1))),
        ("images like one of the other label", len(images.filter(pl.col("labels") > 1))),
        ("images with a near-duplicate", len(images)),
    ]
