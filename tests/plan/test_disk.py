"""The disk that a plan announces, against photographs as they are really written."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import skimage
from PIL import Image

from sare_core.config import Settings
from sare_core.images.decoding import decode, fit_size, resize
from sare_core.images.png import encode_png
from sare_core.plan.images import PNG_BYTES_PER_PIXEL, indexed_images
from tests.pipeline import Pipeline

PHOTOGRAPHS = ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg", "motorcycle_left.png", "retina.jpg")


def test_bytes_a_pixel_are_those_of_photographs() -> None:
    measured = []
    for name in PHOTOGRAPHS:
        image = Image.open(Path(skimage.__file__).parent / "data" / name).convert("RGB")
        image = resize(image, fit_size(*image.size, 512, 8, upscale=True), "lanczos")
        measured.append(len(encode_png(image)) / (image.width * image.height))
    assert 0.8 * PNG_BYTES_PER_PIXEL < np.mean(measured) <= PNG_BYTES_PER_PIXEL
    assert max(measured) < 1.1 * PNG_BYTES_PER_PIXEL


def test_recoded_sources_are_counted_as_they_will_be(standin_settings: Callable[..., Settings], tmp_path: Path) -> None:
    """Photographs in a palette: in RGB they take more than twice their files."""
    kept = 0
    for number, name in enumerate(PHOTOGRAPHS):
        for kind, suffix in (("real", "jpg"), ("fake", "png")):
            image = Image.open(Path(skimage.__file__).parent / "data" / name).convert("RGB").resize((96, 64))
            file = tmp_path / "data" / "train" / kind / f"{number}.{suffix}"
            file.parent.mkdir(parents=True, exist_ok=True)
            (image.quantize(128) if suffix == "png" else image).save(file)
            data = file.read_bytes()
            kept += len(encode_png(decode(data, name)[0])) if suffix == "png" else len(data)
    for keep, low, high in (("recoded", 0.8, 1.3), ("true", 0.0, 0.7)):
        settings = standin_settings(f"reconstruct.keep_source={keep}")
        pipeline = Pipeline(settings, str(tmp_path / "manifests"), str(tmp_path / "work"))
        index = pipeline.index(tmp_path / "data", layout="folder")
        planned = indexed_images(index, settings, pipeline.shards(), 8).source_bytes
        assert planned is not None and low < planned / kept < high, keep
