"""The index of a dataset: one row an image, grouped into shards; committed whole or not at all.

On disk: `<manifests>/<dataset>/index.json` names `images-<digest>.parquet` (INDEX_SCHEMA, one row group a shard) and
`shards-<digest>.parquet` (SHARD_SCHEMA). The JSON is put last: it commits the index.
"""

import hashlib
import io
import json
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from sare_core.errors import ConfigError
from sare_core.storage import Store

INDEX_FILE = "index.json"
_COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    "image_id": pl.String,  # first 20 hex digits of the SHA-256 over size and RGB pixels; null in an error row
    "path": pl.String,  # relative to the dataset's root
    "sha256": pl.String,  # of the file
    "bytes": pl.Int64,
    "mtime_ns": pl.Int64,
    "dataset": pl.String,
    "subset": pl.String,  # the generator that the row belongs to: sdv1.4, progan, …
    "split": pl.String,  # train, val (held out of train), test
    "label": pl.Int8,  # 0 real, 1 fake, null unknown
    "class": pl.String,
    "width": pl.Int32,  # after EXIF orientation
    "height": pl.Int32,
    "format": pl.String,  # sniffed from the content
    "extension": pl.String,  # the one that goes with the format, without dot
    "mode": pl.String,  # as stored in the file
    "quality": pl.Int16,  # of the JPEG, where known
    "shard": pl.Int32,  # null in an error row
    "error": pl.String,  # why the file cannot be used
    "duplicates": pl.List(pl.String),  # other paths of this subset with the same pixels
}
INDEX_SCHEMA = pl.Schema(_COLUMNS)
SHARD_SCHEMA = pl.Schema(
    {"shard": pl.Int32, "subset": pl.String, "split": pl.String, "images": pl.Int64, "digest": pl.String}
)
# What a stage's result can depend on: a change in one of these makes a shard stale, a new mtime does not.
_DIGESTED = ["image_id", "path", "sha256", "label", "class"]


@dataclass(frozen=True)
class Index:
    """A committed index. `about`: dataset, layout, root, shard_size, holdout and what else the indexer noted."""

    store: Store
    about: dict[str, Any]
    images: str  # name of the images parquet in the store
    shards: pl.DataFrame  # SHARD_SCHEMA, one row a shard

    @cached_property
    def digests(self) -> dict[int, str]:
        """Shard number to the digest of its rows."""
        return dict(zip(self.shards["shard"], self.shards["digest"], strict=True))

    def frame(self) -> pl.DataFrame:
        """All rows, error rows included, as INDEX_SCHEMA."""
        return pl.read_parquet(self.store.local(self.images), glob=False)

    def rows(self, shard: int) -> list[dict[str, Any]]:
        """The rows of one shard, ordered by image_id. Reads that shard's row group only."""
        scan = pl.scan_parquet(self.store.local(self.images), glob=False).filter(pl.col("shard") == shard)
        return scan.collect().to_dicts()

    def select(self, splits: list[str], subsets: list[str] | None = None) -> pl.DataFrame:
        """The shards of some splits (and subsets), in order of their numbers."""
        chosen = self.shards.filter(pl.col("split").is_in(splits))
        return chosen if subsets is None else chosen.filter(pl.col("subset").is_in(subsets))


def check_name(dataset: str) -> None:
    """Raises ConfigError unless a dataset's name can be a folder's name everywhere."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", dataset):
        raise ConfigError(f"dataset name {dataset!r}: use lower-case letters, digits, dots, dashes and underscores.")


def has_index(manifests: str, dataset: str) -> bool:
    return Store(manifests).exists(f"{dataset}/index.json")


def named_files(store: Store) -> set[str]:
    """The files that a dataset's committed index consists of; none where there is no index that can be read."""
    try:
        switch = json.loads(store.read(INDEX_FILE))
        return {switch["images"], switch["shards"]}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return set()


def read_index(manifests: str, dataset: str) -> Index:
    """The committed index. Raises ConfigError: there is none, or its files are not there."""
    check_name(dataset)
    store = Store(manifests).at(dataset)
    try:
        switch = json.loads(store.read("index.json"))
    except FileNotFoundError:
        known = [name for name in Store(manifests).folders() if has_index(manifests, name)]
        hint = f"Indexed here: {', '.join(known)}. " if known else ""
        raise ConfigError(
            f"{store.path('index.json')}: no index of {dataset!r}. {hint}"
            f"Make one: sare index --layout genimage --root FOLDER --name {dataset}"
        ) from None
    except ValueError as error:  # no JSON, or no UTF-8
        raise ConfigError(f"{store.path('index.json')}: not readable ({error}). Run sare index again.") from error
    for name in (switch["images"], switch["shards"]):
        if not store.exists(name):
            raise ConfigError(f"{store.path(name)}: named by index.json but gone. Run sare index again.")
    shards = pl.read_parquet(store.local(switch["shards"]), glob=False)
    return Index(store, switch["about"], switch["images"], shards)


def write_index(manifests: str, dataset: str, frame: pl.DataFrame, about: dict[str, Any]) -> Index:
    """Commit the rows of an index (INDEX_SCHEMA, sorted by shard and image_id, error rows last).

    The files of the index before stay for stages that read it: `sare gc` removes them after some days.
    """
    check_name(dataset)
    store = Store(manifests).at(dataset)
    frame = frame.select(INDEX_SCHEMA.names()).cast(INDEX_SCHEMA)
    shards = _shards(frame)
    images = _put_parquet(store, "images", _parquet(frame))
    listed = _put_parquet(store, "shards", _parquet(shards))
    switch = {"about": about, "images": images, "shards": listed, "rows": len(frame)}
    store.write(INDEX_FILE, json.dumps(switch, indent=1, ensure_ascii=False).encode())
    return Index(store, about, images, shards)


def _shards(frame: pl.DataFrame) -> pl.DataFrame:
    rows = [
        {
            "shard": shard,
            "subset": part["subset"][0],
            "split": part["split"][0],
            "images": len(part),
            "digest": hashlib.sha256(part.select(_DIGESTED).write_ndjson().encode()).hexdigest()[:16],
        }
        for (shard,), part in frame.drop_nulls("shard").group_by("shard", maintain_order=True)
    ]
    return pl.DataFrame(rows, schema=SHARD_SCHEMA).sort("shard")


def _parquet(frame: pl.DataFrame) -> bytes:
    """Parquet bytes with one row group a shard, so that reading a shard does not read the dataset."""
    table, out = frame.to_arrow(), io.BytesIO()
    runs = frame["shard"].rle().struct.field("len").to_list() if "image_id" in frame.columns else [len(frame)]
    with pq.ParquetWriter(out, table.schema, compression="zstd") as writer:
        start = 0
        for length in runs:
            writer.write_table(table.slice(start, length))
            start += length
        if not runs:
            writer.write_table(table)
    return out.getvalue()


def _put_parquet(store: Store, stem: str, data: bytes) -> str:
    name = f"{stem}-{hashlib.sha256(data).hexdigest()[:12]}.parquet"
    store.write(name, data)
    return name
