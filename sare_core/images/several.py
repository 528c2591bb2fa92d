"""Images of a list, as a caller in Python gives them: what is wrong with one is said with its place."""

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from PIL import Image

from sare_core.errors import ImageError
from sare_core.images.decoding import DECODING_ERRORS, decode, to_rgb
from sare_core.images.reading import read_bytes

T = TypeVar("T")
OneImage = Image.Image | str | os.PathLike[str]


def opened(image: OneImage) -> Image.Image:
    """An image, from its file if need be, as the stages open one."""
    return decode(read_bytes(os.fspath(image)), os.fspath(image))[0] if isinstance(image, str | os.PathLike) else image


def decoded(images: Sequence[Image.Image]) -> list[Image.Image]:
    """Upright and RGB. Raises TypeError: not a list of images; ImageError: one has no pixels to work on."""
    if isinstance(images, Image.Image):
        raise TypeError("give a list of images: [image]")
    if odd := [each for each in images if not isinstance(each, Image.Image)]:
        raise TypeError(f"give Pillow images, such as Image.open(path), not {type(odd[0]).__name__}")
    return each_of(_rgb, images)


def _rgb(image: Image.Image) -> Image.Image:
    if not all(image.size):
        raise ImageError(f"it has {image.width}x{image.height} pixels.")
    try:
        return to_rgb(image)
    except DECODING_ERRORS as error:
        raise ImageError(f"cannot be decoded: {error}.") from error


def each_of(do: Callable[[Any], T], images: Sequence[Any], before: int = 0, count: int | None = None) -> list[T]:
    """What `do` makes of each. Raises ImageError: with the place among `count`, of which some came before these."""
    found = list[T]()
    for place, image in enumerate(images, before):
        try:
            found.append(do(image))
        except ImageError as error:
            good(error, place, count or len(images))
    return found


def good(result: Any, place: int, count: int) -> Any:
    """The result, or its error raised: in a list with its place."""
    if isinstance(result, ImageError):
        raise ImageError(f"image {place + 1} of {count}: {result}" if count > 1 else str(result)) from result
    return result
