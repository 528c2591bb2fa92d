"""The stage from images and captions to SARE maps, one webdataset tar a shard (paper 3.2, equations 1 to 4).

x is decoded and resized once, to the very size of x̂; the map is |x − x̂| in uint8, lossless (mapper.py). A sample: the
source file's bytes (recoded: its pixels) under its sniffed extension, reconstruction.png, sare.png, and json (label,
subset, split, class, caption, seed, sizes, fp, and LPIPS if asked for).
"""

import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sare_core.config.reconstruction import ReconstructSettings
from sare_core.engine.flow import Row, in_batches
from sare_core.engine.folders import Folder
from sare_core.engine.manifest import Index
from sare_core.engine.shardfiles import TarWriter, read_rows
from sare_core.errors import ImageError, NotReached
from sare_core.images.decoding import decode
from sare_core.images.png import encode_png
from sare_core.images.sources import read_source, view_image
from sare_core.images.views import viewed_size
from sare_core.models.weights import Weights, fetch, resolve

if TYPE_CHECKING:
    from sare_core.reconstruction.mapper import Reconstructed

NAME, VERSION = "reconstructions", 1  # raise the version when the same settings come to give other pixels


def weights_of(settings: ReconstructSettings, work: str | None) -> dict[str, Weights]:
    """The diffusion model, as role "model". Raises ConfigError: not to be found."""
    return {"model": resolve(settings.model, settings.revision, work)}


class Item(NamedTuple):
    """What the model needs of one image. pixels: x as (H, W, 3) uint8, at the size of x̂."""

    image_id: str
    source: bytes
    pixels: np.ndarray
    caption: str


class ReconstructStage:
    suffix = ".tar"

    def __init__(self, settings: ReconstructSettings, view: str, seed: int, index: Index, folder: Folder) -> None:
        self.settings, self.view, self.seed = settings, view, seed
        self.root, self.folder = index.about["root"], folder
        self.shards_together = settings.shards_together
        self.captions = dict[int, dict[str, str | None]]()  # by shard and image_id
        self.fields: tuple[str, ...] = ("json", "sare.png")
        if settings.keep_reconstruction:
            self.fields += ("reconstruction.png",)

    def load(self, device: str) -> None:
        from sare_core.reconstruction.mapper import Mapper  # torch and diffusers: seconds

        weights = weights_of(self.settings, self.folder.work)
        self.mapper = Mapper.load(self.settings, self.seed, fetch(weights["model"]), device)

    def begin(self, sources: dict[int, dict[str, Path]]) -> None:
        """sources: each shard's captions, where the method reads captions; else each image counts as without."""
        for shard, files in sources.items():
            if "captions" in files:
                self.captions[shard] = {row["image_id"]: row["caption"] for row in read_rows(files["captions"])}

    def end(self, shards: list[int]) -> None:
        for shard in shards:
            self.captions.pop(shard, None)

    def ran(self) -> dict[str, int]:
        found: dict[str, int] = getattr(self.mapper.reconstructor, "ran", dict)()  # somebody's own method may not say
        return found

    def open(self, path: Path) -> TarWriter:
        return TarWriter(path)

    def keeps(self, row: dict[str, Any], sample: dict[str, Any]) -> bool:
        return json.loads(sample["json"])["caption"] == self._caption(row)

    def _caption(self, row: dict[str, Any]) -> str | None:
        return self.captions[row["shard"]].get(row["image_id"]) if row["shard"] in self.captions else ""

    def _size(self, row: dict[str, Any]) -> tuple[int, int]:
        """Width and height of x̂, known before the file is opened."""
        return self.mapper.size(*viewed_size(self.view, row["width"], row["height"]))

    def batches(self, rows: list[Row]) -> Sequence[Sequence[Row]]:
        """Images of one size together, so that a batch needs no padding."""
        ordered = sorted(rows, key=lambda row: (self._size(row), row["image_id"]))
        groups = (list(group) for _, group in groupby(ordered, key=self._size))
        return [batch for group in groups for batch in in_batches(group, self.settings.batch_size)]

    def read(self, row: dict[str, Any]) -> Item:
        if (caption := self._caption(row)) is None:
            raise NotReached("it has no caption (sare status shows why)")
        source = read_source(self.root, row)
        return Item(row["image_id"], source, self.mapper.fit(view_image(source, row, self.view)), caption)

    def collate(self, items: list[Item]) -> Any:
        ids, _, pixels, captions = zip(*items, strict=True)
        return np.stack(pixels), list(captions), list(ids)

    def process(self, batch: Any) -> "list[Reconstructed | ImageError]":
        return self.mapper.reconstruct(*batch)

    def encode(self, row: dict[str, Any], item: Item, found: "Reconstructed") -> dict[str, Any]:
        settings, result = self.settings, self.mapper.measure(found)
        about = {key: row[key] for key in ("image_id", "path", "dataset", "subset", "split", "label", "class")}
        about |= {
            "caption": item.caption,
            "seed": self.seed,
            "view": self.view,
            "source_size": [row["width"], row["height"]],
            "size": [item.pixels.shape[1], item.pixels.shape[0]],
            "fp": self.folder.fingerprint,
        }
        if result.lpips is not None:
            about["lpips"] = result.lpips
        sample = {"__key__": row["image_id"], "sare.png": encode_png(result.sare)}
        if settings.keep_source:
            sample[row["extension"]] = self._source(row, item.source)
        if settings.keep_reconstruction:
            sample["reconstruction.png"] = encode_png(result.reconstruction)
        sample["json"] = json.dumps(about, ensure_ascii=False, sort_keys=True).encode()
        return sample

    def _source(self, row: dict[str, Any], source: bytes) -> bytes:
        """What the shard holds of an image's file. The view is not in it: whoever reads it looks through the view."""
        if self.settings.keep_source != "recoded" or row["extension"] != "png":
            return source
        return encode_png(decode(source, row["path"])[0])
