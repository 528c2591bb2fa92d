"""Maps, reconstructions and images of finished shards as single files, beside their captions.

    <subset>/<real, fake or unlabelled>/<image_id>.sare.png, .reconstruction.png, .<the source's extension>
    captions.csv     a row an image: COLUMNS

A file is put in place whole, and one that is there already is left as it is. It is an error if it holds anything else.
"""

import io
import json
from collections.abc import Iterator
from enum import StrEnum
from typing import Any
from urllib.parse import quote

import polars as pl

from sare_core.detectors.parts import image_file
from sare_core.engine.folders import Folder, Record
from sare_core.engine.manifest import Index
from sare_core.engine.shardfiles import TarReader
from sare_core.errors import ConfigError
from sare_core.report.numbers import CLASSES
from sare_core.store.storage import Store

CAPTIONS = "captions.csv"
# files: the path in the export that an image's files begin with. reconstructions: fingerprint of their folder.
COLUMNS = ("files", "image_id", "subset", "label", "split", "class", "path", "caption", "reconstructions")


class What(StrEnum):
    """What can be exported of an image."""

    sare = "sare"
    reconstruction = "reconstruction"
    image = "image"


def exportable(index: Index, records: dict[int, Record], images: list[str] | None, limit: int | None) -> pl.DataFrame:
    """The rows of the index whose maps lie in the outputs of some shards, by shard and image_id.

    images: only these image_ids. limit: at most so many of each subset and label, the first of them.
    """
    failed = [(shard, failure.image_id) for shard, record in records.items() for failure in record.failures]
    lost = pl.DataFrame(failed, {"shard": pl.Int32, "image_id": pl.String}, orient="row")
    rows = index.frame().filter(pl.col("shard").is_in(list(records))).sort("shard", "image_id")
    rows = rows.join(lost, on=["shard", "image_id"], how="anti", maintain_order="left")
    if images is not None:
        rows = rows.filter(pl.col("image_id").is_in(images))
    if limit is not None:
        rows = rows.group_by("subset", "label", maintain_order=True).head(limit).sort("shard", "image_id")
    return rows


def stem_of(row: dict[str, Any]) -> str:
    """What the paths of an image's files begin with."""
    return "/".join(map(safe_name, (row["subset"], CLASSES.get(row["label"], "unlabelled"), row["image_id"])))


def safe_name(text: str) -> str:
    """A name for one file or folder, of any text: what has a meaning in paths and shells is percent-encoded."""
    name = "".join(c if c.isalnum() or c in " +=,()" else quote(c, safe="") for c in text)
    return f"%2E{name[1:]}" if name.startswith(".") else name


def files_of(reader: TarReader, row: dict[str, Any], wanted: list[What], root: str) -> Iterator[tuple[str, bytes]]:
    """Path and bytes of each file to export of one image. Raises ImageError: the source is gone."""
    stem, key = stem_of(row), row["image_id"]
    for what in wanted:
        if what is not What.image:
            yield f"{stem}.{what}.png", reader.read(key, f"{what}.png")
        else:
            yield f"{stem}.{safe_name(row['extension'])}", image_file(reader, root, row)


def caption_row(reader: TarReader, row: dict[str, Any], folder: Folder) -> dict[str, Any]:
    """One row of COLUMNS."""
    about = {key: row[key] or "" for key in ("image_id", "subset", "split", "class", "path")}
    caption = json.loads(reader.read(row["image_id"], "json"))["caption"]
    label = CLASSES.get(row["label"], "unlabelled")
    return about | {
        "files": stem_of(row),
        "label": label,
        "caption": caption,
        "reconstructions": folder.fingerprint,
    }


def place(store: Store, name: str, data: bytes) -> bool:
    """Put a file in place; False: it was there. Raises ConfigError: another file has its name."""
    if store.create(name, data):
        return True
    if store.read(name) != data:
        raise ConfigError(f"{store.path(name)}: is there already, with another content. Name another folder by --out.")
    return False


def read_captions(store: Store, fingerprint: str) -> pl.DataFrame:
    """The captions.csv that an earlier export left, or an empty one.

    Raises ConfigError: it is not one of an export of these reconstructions.
    """
    if not store.exists(CAPTIONS):
        return pl.DataFrame(schema=dict.fromkeys(COLUMNS, pl.String))
    try:
        found = pl.read_csv(io.BytesIO(store.read(CAPTIONS)), infer_schema=False).fill_null("")
    except pl.exceptions.PolarsError:
        found = pl.DataFrame()
    if found.columns != list(COLUMNS):
        raise ConfigError(f"{store.path(CAPTIONS)}: not written by sare export. Name another folder by --out.")
    if odd := set(found["reconstructions"]) - {fingerprint}:
        raise ConfigError(
            f"{store.path(CAPTIONS)}: of an export of other reconstructions ({min(odd)}). Name another folder by --out."
        )
    return found


def write_captions(store: Store, before: pl.DataFrame, rows: list[dict[str, Any]]) -> None:
    """Put captions.csv in place: what an earlier export left, and these rows."""
    frames = [before, pl.DataFrame(rows, schema=before.schema)]
    table = pl.concat(frames).unique("files", keep="last").sort("files")
    store.write(CAPTIONS, table.write_csv().encode())
