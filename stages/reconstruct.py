"""Images and captions to SARE maps: one webdataset tar a shard.

    sare plan --dataset genimage --preset paper                    # what would be done, and what it takes
    sare reconstruct --dataset genimage --preset paper --shard 3
    accelerate launch --num_processes 8 --multi_gpu -m stages.reconstruct --dataset genimage --preset paper

Paper 3.2, equations 1 to 4: x is decoded and resized once, to the very size of x̂; SARE = |x − x̂| in uint8, lossless.
A sample: the source file's bytes under its sniffed extension, reconstruction.png, sare.png, and json (label, subset,
split, class, caption, seed, sizes, fp, and LPIPS if asked for).
"""

import json
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sare_core.config import Settings, load_settings
from sare_core.engine.folders import Folder
from sare_core.engine.manifest import Index, read_index
from sare_core.engine.runner import run
from sare_core.engine.shardfiles import TarWriter, read_rows
from sare_core.errors import ImageError, NotReached
from sare_core.images.decoding import encode_png, fit_size, resize
from sare_core.images.sources import read_source, view_image
from sare_core.images.views import viewed_size
from sare_core.miniature.foreign import refuse_foreign_images
from sare_core.models.weights import Weights, fetch, resolve
from stages.caption import folder_of as captions_folder
from stages.options import (
    Dataset,
    Manifests,
    Preset,
    RunName,
    Set,
    Shard,
    Work,
    chosen_shards,
    console,
    finish,
    run_command,
)

NAME, VERSION = "reconstructions", 1  # raise the version when the same settings come to give other pixels


def model_of(settings: Settings, work: str) -> Weights:
    """The diffusion model. Raises ConfigError: not to be found."""
    return resolve(settings.reconstruct.model, settings.reconstruct.revision, work)


def folder_of(settings: Settings, dataset: str, work: str) -> Folder:
    """The folder of these reconstructions: their settings, weights and seed, and the captions' folder."""
    captions = captions_folder(settings, dataset, work)
    made_by = {
        "stage": NAME,
        "version": VERSION,
        "view": settings.view,
        "seed": settings.seed,
        "settings": settings.reconstruct.fingerprint_fields(),
        "weights": {"model": model_of(settings, work).digest},
        "captions": captions.fingerprint,
    }
    return Folder(work, dataset, NAME, made_by, upstream=captions)


class Item(NamedTuple):
    """What the model needs of one image. pixels: x as (H, W, 3) uint8, at the size of x̂."""

    image_id: str
    source: bytes
    pixels: np.ndarray
    caption: str


class ReconstructStage:
    suffix = ".tar"

    def __init__(self, settings: Settings, index: Index, folder: Folder) -> None:
        self.settings, self.root, self.folder = settings, index.about["root"], folder
        self.fields: tuple[str, ...] = ("json", "sare.png")
        if settings.reconstruct.keep_reconstruction:
            self.fields += ("reconstruction.png",)

    def load(self, device: str) -> None:
        from sare_core.reconstruction.perceptual import load_lpips
        from sare_core.reconstruction.reconstructor import Reconstructor

        reconstruct = self.settings.reconstruct
        self.reconstructor = Reconstructor(reconstruct, fetch(model_of(self.settings, self.folder.work)), device)
        self.lpips = load_lpips(reconstruct.lpips, device) if reconstruct.lpips else None

    def begin(self, shard: int, source: Path | None) -> None:
        assert source is not None, "reconstruct starts from the captions of the shard"
        self.captions = {row["image_id"]: row["caption"] for row in read_rows(source)}

    def open(self, path: Path) -> TarWriter:
        return TarWriter(path)

    def keeps(self, row: dict[str, Any], sample: dict[str, Any]) -> bool:
        return json.loads(sample["json"])["caption"] == self.captions.get(row["image_id"])

    def _size(self, row: dict[str, Any]) -> tuple[int, int]:
        """Width and height of x̂, known before the file is opened."""
        width, height = viewed_size(self.settings.view, row["width"], row["height"])
        settings = self.settings.reconstruct
        return fit_size(width, height, settings.longer_side, self.reconstructor.multiple, settings.upscale)

    def batches(self, rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
        """Images of one size together, so that a batch needs no padding."""
        size = self.settings.reconstruct.batch_size
        ordered = sorted(rows, key=lambda row: (self._size(row), row["image_id"]))
        groups = (list(group) for _, group in groupby(ordered, key=self._size))
        return [group[start : start + size] for group in groups for start in range(0, len(group), size)]

    def read(self, row: dict[str, Any]) -> Item:
        if row["image_id"] not in self.captions:
            raise NotReached("it has no caption (sare status shows why)")
        source = read_source(self.root, row)
        image = resize(view_image(source, row, self.settings.view), self._size(row), self.settings.reconstruct.resample)
        return Item(row["image_id"], source, np.asarray(image), self.captions[row["image_id"]])

    def process(self, items: list[Item]) -> list[Any]:
        import torch

        from sare_core.reconstruction.reconstructor import generator_for

        pixels = torch.from_numpy(np.stack([item.pixels for item in items])).permute(0, 3, 1, 2)
        results = self.reconstructor.reconstruct(
            pixels.float() / 127.5 - 1,
            [item.caption for item in items],
            [generator_for(self.settings.seed, item.image_id) for item in items],
        )
        return [
            result if isinstance(result, ImageError) else self._measure(item, result.pixels())
            for item, result in zip(items, results, strict=True)
        ]

    def _measure(self, item: Item, reconstruction: np.ndarray) -> tuple[np.ndarray, float | None]:
        return reconstruction, self.lpips(item.pixels, reconstruction) if self.lpips else None

    def encode(self, row: dict[str, Any], item: Item, result: tuple[np.ndarray, float | None]) -> dict[str, Any]:
        settings = self.settings.reconstruct
        reconstruction, lpips = result
        sare = np.abs(item.pixels.astype(np.int16) - reconstruction).astype(np.uint8)  # equation 4
        about = {key: row[key] for key in ("image_id", "path", "dataset", "subset", "split", "label", "class")}
        about |= {
            "caption": item.caption,
            "seed": self.settings.seed,
            "view": self.settings.view,
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


def reconstruct(
    dataset: Dataset,
    preset: Preset = "mini",
    set_: Set = None,
    shard: Shard = None,
    work: Work = "work",
    manifests: Manifests = "manifests",
    run_name: RunName = None,
) -> None:
    """Reconstruct images under their captions: one tar of SARE maps a shard."""
    index = read_index(manifests, dataset)
    settings = load_settings(preset, set_, index.about["layout"])
    refuse_foreign_images([settings.reconstruct.model], index)
    folder = folder_of(settings, dataset, work)
    shards = chosen_shards(index, ["train", "val", "test"], settings.train_subsets, shard)
    name = folder.describe(
        run_name, preset=preset, model=settings.reconstruct.model, train_subsets=settings.train_subsets
    )
    finish(run(ReconstructStage(settings, index, folder), index, shards, console), NAME, f"{folder.store.url} ({name})")


if __name__ == "__main__":
    run_command(reconstruct)
