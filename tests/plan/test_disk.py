"""The disk that a plan announces, against photographs as they are really written."""

from pathlib import Path

import numpy as np
import skimage
from PIL import Image

from sare_core.images.decoding import fit_size, resize
from sare_core.images.png import encode_png
from sare_core.plan.disk import PNG_BYTES_PER_PIXEL

PHOTOGRAPHS = ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg", "motorcycle_left.png", "retina.jpg")


def test_bytes_a_pixel_are_those_of_photographs() -> None:
    measured = []
    for name in PHOTOGRAPHS:
        image = Image.open(Path(skimage.__file__).parent / "data" / name).convert("RGB")
        image = resize(image, fit_size(*image.size, 512, 8, upscale=True), "lanczos")
        measured.append(len(encode_png(image)) / (image.width * image.height))
    assert 0.8 * PNG_BYTES_PER_PIXEL < np.mean(measured) <= PNG_BYTES_PER_PIXEL
    assert max(measured) < 1.1 * PNG_BYTES_PER_PIXEL
