"""Images that were drawn for a benchmark, small models for them, and the stages on both, in this process."""

from pathlib import Path

import numpy as np
import torch

from sare_core.bench.loader import photo
from sare_core.config import Settings, load_settings
from tests.conftest import STANDIN, standin_overrides
from tests.pipeline import Pipeline
from tests.standins import build_models


def draw(folder: Path, count: int, side: int = 512) -> Path:
    """JPEGs as smooth as photographs, half real, half fake."""
    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / "train" / ("real" if number % 2 else "fake/drawn") / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo(rng, side, side).save(path, quality=92)
    return folder


def small_models(folder: Path, channels: tuple[int, int] | None = None) -> list[str]:
    """Models with random weights, as settings; channels: of the U-Net, where it is to be of another size."""
    if not folder.exists():
        folder.mkdir(parents=True)
        build_models(folder)
    if channels:
        from diffusers import UNet2DConditionModel

        config = UNet2DConditionModel.load_config(folder / "diffusion" / "unet")
        torch.manual_seed(0)
        unet = UNet2DConditionModel.from_config({**config, "block_out_channels": channels})
        unet.save_pretrained(folder / "diffusion" / "unet")
    return standin_overrides(folder)


def pipeline(folder: Path, images: Path, sets: list[str], shard_size: int) -> Pipeline:
    """The stages over some images, and their index."""
    made = Pipeline(settings(*sets), str(folder / "manifests"), str(folder / "work"))
    made.index(images, "folder", shard_size)
    return made


def settings(*sets: str) -> Settings:
    return load_settings(STANDIN, ["train_subsets=null", *sets])
