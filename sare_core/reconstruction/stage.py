"""The stage from images and captions to SARE maps, one webdataset tar a shard (paper 3.2, equations 1 to 4).

x is decoded and resized once, to the very size of x̂; SARE = |x − x̂| in uint8, lossless. A sample: the source file's
bytes under its sniffed extension, reconstruction.png, sare.png, and json (label, subset, split, class, caption, seed,
sizes, fp, and LPIPS if asked for).
"""

import json
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sare_core.config.reconstruction import ReconstructSettings
from sare_core.engine.folders import Folder
from sare_core.engine.manifest import Index
from sare_core.engine.shardfiles import TarWriter, read_rows
from sare_core.errors import ImageError, NotReached
from sare_core.images.decoding import encode_png, fit_size, resize
from sare_core.images.sources import read_source, view_image
from sare_core.images.views import viewed_size
from sare_core.models.weights import Weights, fetch, resolve

NAME, VERSION = "reconstructions", 1  # raise the version when the same settings come to give other pixels


def weights_of(settings: ReconstructSettings, work: str) -> dict[str, Weights]:
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
        self.fields: tuple[str, ...] = ("json", "sare.png")
        if settings.keep_reconstruction:
            self.fields += ("reconstruction.png",)

    def load(self, device: str) -> None:
        from sare_core.reconstruction.perceptual import load_lpips
        from sare_core.reconstruction.reconstructor import Reconstructor

        weights = weights_of(self.settings, self.folder.work)
        self.reconstructor = Reconstructor(self.settings, fetch(weights["model"]), device)
        self.lpips = load_lpips(self.settings.lpips, device) if self.settings.lpips else None

    def begin(self, shard: int, sources: dict[str, Path]) -> None:
        self.captions = {row["image_id"]: row["caption"] for row in read_rows(sources["captions"])}

    def open(self, path: Path) -> TarWriter:
        return TarWriter(path)

    def keeps(self, row: dict[str, Any], sample: dict[str, Any]) -> bool:
        return json.loads(sample["json"])["caption"] == self.captions.get(row["image_id"])

    def _size(self, row: dict[str, Any]) -> tuple[int, int]:
        """Width and height of x̂, known before the file is opened."""
        width, height = viewed_size(self.view, row["width"], row["height"])
        settings = self.settings
        return fit_size(width, height, settings.longer_side, self.reconstructor.multiple, settings.upscale)

    def batches(self, rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
        """Images of one size together, so that a batch needs no padding."""
        size = self.settings.batch_size
        ordered = sorted(rows, key=lambda row: (self._size(row), row["image_id"]))
        groups = (list(group) for _, group in groupby(ordered, key=self._size))
        return [group[start : start + size] for group in groups for start in range(0, len(group), size)]

    def read(self, row: dict[str, Any]) -> Item:
        if row["image_id"] not in self.captions:
            raise NotReached("it has no caption (sare status shows why)")
        source = read_source(self.root, row)
        image = resize(view_image(source, row, self.view), self._size(row), self.settings.resample)
        return Item(row["image_id"], source, np.asarray(image), self.captions[row["image_id"]])

    def process(self, items: list[Item]) -> list[Any]:
        import torch

        from sare_core.reconstruction.reconstructor import generator_for

        pixels = torch.from_numpy(np.stack([item.pixels for item in items])).permute(0, 3, 1, 2)
        results = self.reconstructor.reconstruct(
            pixels.float() / 127.5 - 1,
            [item.caption for item in items],
            [generator_for(self.seed, item.image_id) for item in items],
        )
        return [
            result if isinstance(result, ImageError) else self._measure(item, result.pixels())
            for item, result in zip(items, results, strict=True)
        ]

    def _measure(self, item: Item, reconstruction: np.ndarray) -> tuple[np.ndarray, float | None]:
        return reconstruction, self.lpips(item.pixels, reconstruction) if self.lpips else None

    def encode(self, row: dict[str, Any], item: Item, result: tuple[np.ndarray, float | None]) -> dict[str, Any]:
        settings = self.settings
        reconstruction, lpips = result
        sare = np.abs(item.pixels.astype(np.int16) - reconstruction).astype(np.uint8)  # equation 4
        about = {key: row[key] for key in ("image_id", "path", "dataset", "subset", "split", "label", "class")}
        about |= {
            "caption": item.caption,
            "seed": self.seed,
            "view": self.view,
            "source_size": [row["width"], row["height"]],
            "size": [sare.shape[1], sare.shape[0]],
            "fp": self.folder.fingerprint,
        }
        if lpips is not None:
            about["lpips"] = lpips
        sample = {"__key__": row["image_id"], "sare.png": _encode_map(sare, settings.sare_size)}
        if settings.keep_source:
            sample[row["extension"]] = item.source
        if settings.keep_reconstruction:
            sample["reconstruction.png"] = encode_png(reconstruction)
        sample["json"] = json.dumps(about, ensure_ascii=False, sort_keys=True).encode()
        return sample


def _encode_map(sare: np.ndarray, size: Any) -> bytes:
    if size == "full":
        return encode_png(sare)
    from PIL import Image

    return encode_png(resize(Image.fromarray(sare), (size, size), "bilinear"))
