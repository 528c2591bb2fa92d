"""What lies in the shards, as tables: how far each image is from its reconstruction, and what detectors said."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

from sare_core.detectors.parts import read_image
from sare_core.engine.folders import Folder
from sare_core.engine.manifest import Index
from sare_core.engine.shardfiles import TarReader
from sare_core.errors import ConfigError
from sare_core.images.decoding import resize

# error: mean |x − x̂| in 8-bit levels. lpips: null where reconstruct.lpips is not set.
ERRORS = pl.Schema(
    {"image_id": pl.String, "subset": pl.String, "label": pl.Int8, "error": pl.Float64, "lpips": pl.Float64}
)
KEPT = pl.Schema({"image_id": pl.String, "subset": pl.String, "label": pl.Int8, "kept": pl.Boolean})
BATCH = 64

Classifier = Callable[[list[Image.Image]], np.ndarray]  # RGB images to the number of each one's likeliest class


def read_errors(folder: Folder, index: Index, shards: list[int]) -> pl.DataFrame:
    """ERRORS of the labelled images of some shards of reconstructions; images that failed there are not among them."""
    rows = []
    for reader, row in _samples(folder, index, shards):
        about = json.loads(reader.read(row["image_id"], "json"))
        error = float(np.asarray(_image(reader, row, "sare.png")).mean())
        rows.append((row["image_id"], row["subset"], row["label"], error, about.get("lpips")))
    return pl.DataFrame(rows, schema=ERRORS, orient="row")


def read_kept(folder: Folder, index: Index, shards: list[int], classify: Classifier) -> pl.DataFrame:
    """KEPT: whether the classifier names x̂ as it names x, which it is shown at the size of x̂.

    Raises ConfigError: the shards do not hold x̂.
    """
    root, view, rows = index.about["root"], folder.made_by["view"], list[tuple[Any, ...]]()
    samples = list(_samples(folder, index, shards))
    for start in range(0, len(samples), BATCH):
        batch = samples[start : start + BATCH]
        if "reconstruction.png" not in batch[0][0].fields(batch[0][1]["image_id"]):
            raise ConfigError("the share that keeps its class needs reconstruct.keep_reconstruction=true.")
        after = [_image(reader, row, "reconstruction.png") for reader, row in batch]
        images = (read_image(reader, root, row, view) for reader, row in batch)
        before = [resize(image, again.size, "lanczos") for image, again in zip(images, after, strict=True)]
        same = classify(before) == classify(after)
        rows += [
            (row["image_id"], row["subset"], row["label"], bool(k)) for (_, row), k in zip(batch, same, strict=True)
        ]
    return pl.DataFrame(rows, schema=KEPT, orient="row")


def load_classifier(folder: str) -> Classifier:
    """A timm classifier, in timm's hub layout, with the size and the normalisation of its own config.

    Raises ConfigError: not to be read.
    """
    import timm
    import torch
    from safetensors import SafetensorError
    from torchvision.transforms.v2 import functional as F

    if not (Path(folder) / "config.json").is_file():
        raise ConfigError(f"--classifier {folder}: holds no config.json; give a folder as timm saves a model.")
    try:
        model = timm.create_model(f"local-dir:{Path(folder).absolute()}", pretrained=True).eval()
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        raise ConfigError(f"--classifier {folder}: not readable as a timm model: {error!r}") from error
    config = timm.data.resolve_model_data_config(model)
    _, height, width = config["input_size"]

    @torch.no_grad()
    def classify(images: list[Image.Image]) -> np.ndarray:
        views = torch.stack([F.to_image(resize(image, (width, height), "bilinear")) for image in images])
        pixels = F.normalize(F.to_dtype(views, torch.float32, scale=True), config["mean"], config["std"])
        return model(pixels).argmax(dim=1).numpy()

    return classify


def _samples(folder: Folder, index: Index, shards: list[int]) -> Iterator[tuple[TarReader, dict[str, Any]]]:
    for shard, record in sorted(folder.records(shards).items()):
        reader = TarReader(folder.output(record))
        for row in index.rows(shard):
            if row["label"] is not None and reader.fields(row["image_id"]):
                yield reader, row


def _image(reader: TarReader, row: dict[str, Any], field: str) -> Image.Image:
    return Image.open(io.BytesIO(reader.read(row["image_id"], field))).convert("RGB")
