"""The index of a dataset: one row an image, grouped into shards; committed whole or not at all.

On disk: `<manifests>/<dataset>/index.json` names `images-<digest>.parquet` (INDEX_SCHEMA, one row group a shard) and
`shards-<digest>.parquet` (SHARD_SCHEMA). The JSON is put last: it commits the index.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from sare_core.engine.names import DATASET, DatasetName, ImagesName, ShardsName
from sare_core.errors import ConfigError
from sare_core.store.atomic import unwritable
from sare_core.store.storage import Store, is_as_named, sha256_file

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
RESTORE = "Restore it from a copy, or delete index.json there and run sare index again."
# What a stage's result can depend on: a change in one of these makes a shard stale, a new mtime does not.
_DIGESTED = ["image_id", "path", "sha256", "label", "class"]


class About(BaseModel):
    """What an index says of itself; `build_index` notes more."""

    model_config = ConfigDict(extra="allow")

    dataset: DatasetName
    root: str
    layout: str
    shard_size: int
    holdout: float
    next_shard: int


class Switch(BaseModel):
    """What index.json says: the tables that count."""

    about: About
    images: ImagesName
    shards: ShardsName
    rows: int


@dataclass(frozen=True)
class Index:
    """A committed index. `about`: dataset, layout, root, shard_size, holdout and what else the indexer noted."""

    store: Store
    about: dict[str, Any]
    images: str  # name of the images parquet in the store
    shards: pl.DataFrame  # SHARD_SCHEMA, one row a shard
    listed: str  # name of the shards parquet
    count: int  # rows of the images parquet

    @cached_property
    def digests(self) -> dict[int, str]:
        """Shard number to the digest of its rows."""
        return dict(zip(self.shards["shard"], self.shards["digest"], strict=True))

    def frame(self, columns: Sequence[str] = tuple(INDEX_SCHEMA)) -> pl.DataFrame:
        """All rows, error rows included, with some columns of INDEX_SCHEMA. Raises ConfigError: damaged."""
        with self.reading():
            path = self.store.local(self.images)
            if self.store.on_disk and not is_as_named(path):
                raise _changed(self.store, self.images)
            return pl.read_parquet(path, columns=list(columns), glob=False)

    def rows(self, shard: int) -> list[dict[str, Any]]:
        """The rows of one shard, ordered by image_id. Reads that shard's row group only.

        Raises ConfigError: damaged, or not the rows that the shard's digest was taken of.
        """
        with self.reading():
            rows = self.scan().filter(pl.col("shard") == shard).collect()
        if shard in self.digests and _digest(rows) != self.digests[shard]:
            raise _changed(self.store, self.images)
        return rows.to_dicts()

    def scan(self) -> pl.LazyFrame:
        """All rows, to be read later, within `reading`."""
        return pl.scan_parquet(self.store.local(self.images), glob=False)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """A table that cannot be read becomes a ConfigError with its cure."""
        with _readable(self.store, self.images):
            yield

    def select(self, splits: list[str], subsets: list[str] | None = None) -> pl.DataFrame:
        """The shards of some splits (and subsets), in order of their numbers."""
        chosen = self.shards.filter(pl.col("split").is_in(splits))
        return chosen if subsets is None else chosen.filter(pl.col("subset").is_in(subsets))


@contextmanager
def _readable(store: Store, name: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise _gone(store, name) from error
    except (pl.exceptions.PolarsError, OSError) as error:
        said = str(error).partition("\n")[0]
        raise ConfigError(f"{store.path(name)}: damaged ({said}). {RESTORE}") from error


def _gone(store: Store, name: str) -> ConfigError:
    return ConfigError(f"{store.path(name)}: named by index.json but gone. {RESTORE}")


def _changed(store: Store, name: str) -> ConfigError:
    return ConfigError(f"{store.path(name)}: its content is not what its name and digests promise. {RESTORE}")


def check_name(dataset: str) -> None:
    """Raises ConfigError unless a dataset's name can be a folder's name everywhere."""
    if not re.fullmatch(DATASET, dataset):
        raise ConfigError(f"dataset name {dataset!r}: use lower-case letters, digits, dots, dashes and underscores.")


def has_index(manifests: str, dataset: str) -> bool:
    return Store(manifests).exists(f"{dataset}/index.json")


def named_files(store: Store) -> set[str]:
    """The files that a dataset's committed index consists of; none where there is no index that can be read."""
    try:
        switch = Switch.model_validate_json(store.read(INDEX_FILE))
    except (FileNotFoundError, ValidationError):
        return set()
    return {switch.images, switch.shards}


def read_index(manifests: str, dataset: str) -> Index:
    """The committed index. Raises ConfigError: there is none, or its files are not there."""
    check_name(dataset)
    store = Store(manifests).at(dataset)
    try:
        switch = Switch.model_validate_json(store.read("index.json"))
    except FileNotFoundError:
        known = [name for name in Store(manifests).folders() if has_index(manifests, name)]
        hint = f"Indexed here: {', '.join(known)}. " if known else ""
        raise ConfigError(
            f"{store.path('index.json')}: no index of {dataset!r}. {hint}"
            f"Make one: sare index --layout genimage --root FOLDER --name {dataset}"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        what = ".".join(map(str, first["loc"])) or "it"
        raise ConfigError(f"{store.path('index.json')}: not readable ({what}: {first['msg']}). {RESTORE}") from error
    if not store.exists(switch.images):
        raise _gone(store, switch.images)
    with _readable(store, switch.shards):
        path = store.local(switch.shards)
        if store.on_disk and not is_as_named(path):
            raise _changed(store, switch.shards)
        shards = pl.read_parquet(path, glob=False)
    return Index(store, switch.about.model_dump(), switch.images, shards, switch.shards, switch.rows)


def require_whole(index: Index) -> None:
    """Raises ConfigError unless the tables of an index are the bytes that their names promise."""
    for name in (index.images, index.listed):
        with index.store.fetched(name) as path:
            if not is_as_named(path):
                raise _changed(index.store, name)


def index_errors(index: Index) -> Iterator[str]:
    """Reads back an index; yields what is not as it was committed, with the cure."""
    where = index.store.path("index.json")
    try:
        require_whole(index)
        frame = index.frame()
    except ConfigError as error:
        yield str(error)
        return
    if len(frame) != index.count:
        yield f"{where}: says {index.count} rows, {index.images} holds {len(frame)}. {RESTORE}"
    if not _shards(map(_shard, by_shard(frame))).equals(index.shards):
        yield f"{where}: {index.listed} does not list the shards of {index.images}. {RESTORE}"


def write_index(manifests: str, dataset: str, frame: pl.DataFrame, about: dict[str, Any]) -> Index:
    """Commit the rows of an index (INDEX_SCHEMA, sorted by shard and image_id, error rows last).

    The files of the index before stay for stages that read it: `sare gc` removes them after some days.
    """
    return write_parts(manifests, dataset, by_shard(frame), about)


def write_parts(manifests: str, dataset: str, parts: Iterator[pl.DataFrame], about: dict[str, Any]) -> Index:
    """As `write_index`, of parts as `by_shard` gives them; once they are taken nothing holds the rows any more.

    Their columns, in any order, have the types of INDEX_SCHEMA or such as can be cast to them.
    """
    check_name(dataset)
    store = Store(manifests).at(dataset)
    with TemporaryDirectory() as folder:  # of many images the tables are gigabytes
        images, listed = Path(folder, "images.parquet"), Path(folder, "shards.parquet")
        with _writer(images, INDEX_SCHEMA) as writer:
            # A row group each, so that reading a shard does not read the dataset.
            written = [_write(writer, part) for part in parts]
        shards, rows = _shards(written), sum(part["images"] for part in written)
        with _writer(listed, SHARD_SCHEMA) as writer:
            writer.write_table(shards.to_arrow())
        names = {"images": _put(store, images), "shards": _put(store, listed)}
    switch = {"about": about, **names, "rows": rows}
    store.write(INDEX_FILE, json.dumps(switch, indent=1, ensure_ascii=False).encode())
    return Index(store, about, names["images"], shards, names["shards"], rows)


def by_shard(frame: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """The rows of each shard, and the error rows at the end, without a copy."""
    start = 0
    for length in frame["shard"].rle().struct.field("len"):
        yield frame.slice(start, length)
        start += length


@contextmanager
def _writer(path: Path, schema: pl.Schema) -> Iterator[pq.ParquetWriter]:
    try:
        with pq.ParquetWriter(path, schema.to_frame().to_arrow().schema, compression="zstd") as writer:
            yield writer
    except OSError as error:
        raise unwritable(path, error) from error


def _write(writer: pq.ParquetWriter, part: pl.DataFrame) -> dict[str, Any]:
    writer.write_table(part.to_arrow().select(INDEX_SCHEMA.names()).cast(writer.schema))
    return _shard(part)


def _shards(parts: Iterable[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame([part for part in parts if part["shard"] is not None], SHARD_SCHEMA).sort("shard")


def _shard(rows: pl.DataFrame) -> dict[str, Any]:
    """The row of SHARD_SCHEMA for the rows of one shard; for error rows it has no number."""
    first = {name: rows[name][0] for name in ("shard", "subset", "split")}
    return first | {"images": len(rows), "digest": _digest(rows)}


def _digest(rows: pl.DataFrame) -> str:
    return hashlib.sha256(rows.select(_DIGESTED).write_ndjson().encode()).hexdigest()[:16]


def _put(store: Store, table: Path) -> str:
    name = f"{table.stem}-{sha256_file(table)[:12]}.parquet"
    store.move(table, name)
    return name
