"""Views: how an image is looked at, right after decoding, before anything else happens to it.

A view is a chain of steps joined by `+` and done from left to right: `raw`, `jpeg:96`, `square+resize:0.5+blur:2`. It
starts from decoded pixels, so it is the same for every file format. Each step takes and gives an 8-bit RGB image.
"""

import hashlib
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from sare_core.errors import ConfigError, ImageError
from sare_core.images import decoding as images

WHOLE = r"[0-9]+"
DECIMAL = r"[0-9]+(\.[0-9]+)?"


@dataclass(frozen=True)
class Step:
    """One step of a view: `name` is a key of OPERATIONS, `value` its number (0 for those that take none)."""

    name: str
    value: float = 0.0


@dataclass(frozen=True)
class Operation:
    """What a step's name stands for. Its number matches `number`, is greater than 0 and at most `highest`."""

    meaning: str
    number: str | None  # a regular expression; None: takes no number
    highest: float
    apply: Callable[[Image.Image, float, str], Image.Image]  # image, number, image_id
    size: Callable[[int, int, float], tuple[int, int]] = lambda width, height, number: (width, height)


def parse_view(view: str) -> list[Step]:
    """The steps of a view. Raises ConfigError, with all known steps, where a name or number is wrong."""
    return [_parse_step(text, view) for text in view.split("+")]


def validate_view(view: str) -> str:
    """The view as it is, when it can be parsed; else ConfigError."""
    parse_view(view)
    return view


def viewed_size(view: str, width: int, height: int) -> tuple[int, int]:
    """The size (width, height), in pixels, that `apply_view` gives an image of width × height."""
    for step in parse_view(view):
        width, height = OPERATIONS[step.name].size(width, height, step.value)
    return width, height


def apply_view(image: Image.Image, view: str, image_id: str) -> Image.Image:
    """An 8-bit RGB image as the view shows it. `image_id`, that of the unviewed image, seeds the noise.

    Raises ConfigError: not a view. ImageError: a step cannot be done at the image's size.
    """
    for step in parse_view(view):
        image = OPERATIONS[step.name].apply(image, step.value, image_id)
    return image


def _parse_step(text: str, view: str) -> Step:
    name, colon, number = text.partition(":")
    operation = OPERATIONS.get(name)
    if operation is None:
        raise ConfigError(f"view {view!r}: no step {name!r}. {_known_steps()}")
    if operation.number is None:
        if colon:
            raise ConfigError(f"view {view!r}: {name} takes no number. {_known_steps()}")
        return Step(name)
    if not re.fullmatch(operation.number, number) or not 0 < float(number) <= operation.highest:
        raise ConfigError(f"view {view!r}: {number!r} is not a number that {name} takes. {_known_steps()}")
    return Step(name, float(number))


def _known_steps() -> str:
    steps = "; ".join(operation.meaning for operation in OPERATIONS.values())
    return f"Steps are joined by +, for example jpeg:96+blur:2. They are {steps}."


def _jpeg(image: Image.Image, quality: float, image_id: str) -> Image.Image:
    return _recode(image, format="JPEG", quality=int(quality), subsampling="4:2:0")


def _webp(image: Image.Image, quality: float, image_id: str) -> Image.Image:
    return _recode(image, format="WEBP", quality=int(quality), lossless=False)


def _recode(image: Image.Image, **options: Any) -> Image.Image:
    buffer = io.BytesIO()
    try:
        image.save(buffer, **options)
    except (OSError, ValueError) as error:  # WebP stores 16,383 a side, JPEG 65,500
        raise ImageError(
            f"an image of {image.width}x{image.height} cannot be stored as {options['format']}: {error}. "
            "Leave it out, or scale it down first with a resize step."
        ) from error
    return Image.open(buffer).convert("RGB")


def _blur(image: Image.Image, sigma: float, image_id: str) -> Image.Image:
    # Pillow's GaussianBlur is three box blurs; this is the Gaussian itself, cut at 4 sigma.
    from scipy.ndimage import gaussian_filter

    pixels = np.asarray(image, dtype=np.float32)
    return _from_levels(gaussian_filter(pixels, sigma=(sigma, sigma, 0)))


def _resize(image: Image.Image, factor: float, image_id: str) -> Image.Image:
    size = _scaled(*image.size, factor)
    if size[0] * size[1] > images.MAX_PIXELS:
        raise ImageError(f"resize:{factor:g} would make {size[0]}x{size[1]} pixels. Take a smaller factor.")
    return images.resize(image, size, "lanczos")


def _crop(image: Image.Image, fraction: float, image_id: str) -> Image.Image:
    return _centre(image, _scaled(*image.size, fraction))


def _square(image: Image.Image, number: float, image_id: str) -> Image.Image:
    return _centre(image, _shorter(*image.size, number))


def _centre(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    left, top = (image.width - size[0]) // 2, (image.height - size[1]) // 2
    return image.crop((left, top, left + size[0], top + size[1]))


def _noise(image: Image.Image, deviation: float, image_id: str) -> Image.Image:
    # Seeded by image and step alone, so that neither the order of the work nor the other steps matter. RandomState,
    # since NumPy promises that its stream never changes.
    digest = hashlib.sha256(f"{image_id}:noise:{deviation:g}".encode()).digest()
    generator = np.random.RandomState(np.frombuffer(digest, dtype="<u4"))
    pixels = np.asarray(image, dtype=np.float32)
    return _from_levels(pixels + deviation * generator.standard_normal(pixels.shape))


def _from_levels(levels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(levels), 0, 255).astype(np.uint8))


def _scaled(width: int, height: int, factor: float) -> tuple[int, int]:
    return max(1, round(width * factor)), max(1, round(height * factor))


def _shorter(width: int, height: int, number: float) -> tuple[int, int]:
    return min(width, height), min(width, height)


OPERATIONS = {
    "raw": Operation("raw (as it is)", None, 0, lambda image, number, image_id: image),
    "jpeg": Operation("jpeg:Q (quality 1 to 100, 4:2:0)", WHOLE, 100, _jpeg),
    "webp": Operation("webp:Q (lossy, quality 1 to 100)", WHOLE, 100, _webp),
    "blur": Operation("blur:S (Gaussian, sigma in pixels, up to 100)", DECIMAL, 100, _blur),
    "resize": Operation("resize:F (factor of both sides, up to 10, Lanczos)", DECIMAL, 10, _resize, _scaled),
    "crop": Operation("crop:F (centre, this fraction of each side, up to 1)", DECIMAL, 1, _crop, _scaled),
    "square": Operation("square (centre, the shorter side both ways)", None, 0, _square, _shorter),
    "noise": Operation("noise:S (Gaussian, sd in 8-bit levels, up to 255)", DECIMAL, 255, _noise),
}
