"""PNGs as we write them, read by libraries that are not ours."""

import io
from pathlib import Path

import numpy as np
import pytest
import skimage
import torch
from PIL import Image, PngImagePlugin
from torchvision.io import ImageReadMode, decode_png

from sare_core.images.png import encode_png


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (33, 64), (512, 384), (3, 20_000)])
@pytest.mark.parametrize("kind", ["noise", "flat", "ramp"])
def test_pillow_and_libpng_read_the_same_pixels(shape: tuple[int, int], kind: str) -> None:
    size = (*shape, 3)
    pixels = {
        "noise": np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8),
        "flat": np.full(size, 200, np.uint8),
        "ramp": (np.arange(np.prod(size)) // 7 % 256).astype(np.uint8).reshape(size),
    }[kind]
    data = encode_png(pixels)
    with Image.open(io.BytesIO(data)) as image:
        image.verify()  # checksums of all chunks
    with Image.open(io.BytesIO(data)) as image:
        assert isinstance(image, PngImagePlugin.PngImageFile) and image.mode == "RGB" and image.info == {}
        assert np.array_equal(np.asarray(image), pixels)
    by_libpng = decode_png(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)
    assert np.array_equal(by_libpng.permute(1, 2, 0).numpy(), pixels)


def test_it_is_no_larger_than_pillows_fastest() -> None:
    for name in ("astronaut.png", "coffee.png", "rocket.jpg"):
        image = Image.open(Path(skimage.__file__).parent / "data" / name).convert("RGB")
        theirs = io.BytesIO()
        image.save(theirs, format="PNG", compress_level=1)
        assert len(encode_png(image)) <= 1.1 * len(theirs.getvalue())


def test_a_view_of_other_strides_is_written_as_it_looks() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    assert encode_png(pixels[::-1, ::2]) == encode_png(pixels[::-1, ::2].copy())


@pytest.mark.parametrize("odd", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3))])
def test_other_arrays_are_refused(odd: np.ndarray) -> None:
    with pytest.raises(ValueError, match="encode_png takes"):
        encode_png(odd)
