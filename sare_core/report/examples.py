"""Pictures for the report: image, caption, x̂ and SARE map of a few images, ready to stand in a page."""

import base64
import io
import json
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from PIL import Image

from sare_core.config import Settings
from sare_core.detectors.parts import read_image
from sare_core.engine.folders import Folder
from sare_core.engine.manifest import Index
from sare_core.engine.shardfiles import TarReader
from sare_core.evaluation.metrics import paper_order
from sare_core.images.decoding import resize
from sare_core.images.png import encode_png
from sare_core.report.numbers import CLASSES

SHOWN = 2  # of each subset and class
LONGEST = 192  # pixels of a picture in the page; larger ones are reduced
CRISP = 128  # pictures up to this size are enlarged pixel by pixel


class Picture(NamedTuple):
    """A PNG as data URI, with its size in pixels."""

    uri: str
    width: int
    height: int

    @property
    def crisp(self) -> bool:
        return max(self.width, self.height) <= CRISP


class Example(NamedTuple):
    """One image and what became of it. reconstruction is None where shards do not keep x̂; sare is the map times 2."""

    image_id: str
    caption: str
    score: float | None  # of a detector, where one is asked
    shift: float  # mean |x − x̂| in 8-bit levels
    lpips: float | None  # of equation 7, where it was measured
    image: Picture
    reconstruction: Picture | None
    sare: Picture


class Group(NamedTuple):
    """The examples of one class of a subset."""

    kind: str  # real, fake, or unlabelled
    examples: list[Example]


def examples(
    folder: Folder, index: Index, predictions: pl.DataFrame, measures: pl.DataFrame, settings: Settings
) -> dict[str, list[Group]]:
    """Images by subset, in the paper's order, real ones first. Raises ImageError: a source is gone.

    Of each subset and class the first SHOWN by image_id: a digest of the pixels, so as good as drawn by lot.
    """
    picked = predictions.sort("image_id").group_by("subset", "label", maintain_order=True).head(SHOWN)
    rows = index.frame().filter(pl.col("split") == "test").drop("label")
    chosen = picked.join(rows, on=["image_id", "subset"]).join(measures, on=["image_id", "subset"], how="semi")
    records = folder.records(chosen["shard"].unique().to_list())
    readers = {shard: TarReader(folder.output(record)) for shard, record in records.items()}
    groups: dict[str, list[Group]] = {}
    for subset in paper_order(set(chosen["subset"])):
        for label, kind in (*CLASSES.items(), (None, "unlabelled")):
            part = chosen.filter(pl.col("subset") == subset, pl.col("label").eq_missing(pl.lit(label)))
            shown = [example(readers[row["shard"]], row, index, settings) for row in part.sort("image_id").to_dicts()]
            if shown:
                groups.setdefault(subset, []).append(Group(kind, shown))
    return groups


def example(reader: TarReader, row: dict[str, Any], index: Index, settings: Settings) -> Example:
    """Of a row of the index, with a `score` or without. reader: of its shard's maps. Raises ImageError: it is gone."""
    key, fields = row["image_id"], reader.fields(row["image_id"])
    about = json.loads(reader.read(key, "json"))
    image = read_image(reader, index.about["root"], row, settings.view)
    image = resize(image, tuple(about["size"]), settings.reconstruct.resample)
    sare = Image.open(io.BytesIO(reader.read(key, "sare.png"))).convert("RGB")
    found = "reconstruction.png" in fields
    return Example(
        image_id=key,
        caption=about["caption"],
        score=row.get("score"),
        shift=float(np.asarray(sare).mean()),
        lpips=about.get("lpips"),
        image=picture(image),
        reconstruction=picture(Image.open(io.BytesIO(reader.read(key, "reconstruction.png")))) if found else None,
        sare=picture(brightened(sare)),
    )


def brightened(sare: Image.Image) -> Image.Image:
    """A map times two, as in the paper's Figure 3."""
    return sare.point(lambda level: min(2 * level, 255))


def picture(image: Image.Image, longest: int = LONGEST) -> Picture:
    """For the page: an image that is larger than it takes is reduced by averaging, to so many pixels."""
    if max(image.size) > longest:
        image = image.copy()
        image.thumbnail((longest, longest), Image.Resampling.BOX)
    uri = "data:image/png;base64," + base64.b64encode(encode_png(image)).decode()
    return Picture(uri, *image.size)
