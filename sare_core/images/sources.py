"""A row of the index to its pixels: read, checked against what was indexed, decoded, viewed."""

import hashlib
from typing import Any

from PIL import Image

from sare_core.errors import ImageError
from sare_core.images.decoding import decode
from sare_core.images.reading import read_bytes
from sare_core.images.views import apply_view


def locate(base: str, path: str) -> str:
    """The full path or URL of an image from its path in the index."""
    if "://" in path or path.startswith("/"):
        return path
    return f"{base.rstrip('/')}/{path}"


def read_source(root: str, row: dict[str, Any]) -> bytes:
    """The file's bytes. Raises ImageError: gone, unreadable, or not the bytes that were indexed."""
    data = read_bytes(locate(root, row["path"]))
    if hashlib.sha256(data).hexdigest() != row["sha256"]:
        raise ImageError(f"{row['path']}: has changed since it was indexed; run sare index again")
    return data


def view_image(data: bytes, row: dict[str, Any], view: str) -> Image.Image:
    """The RGB image that the stages see: decoded, upright, then looked at through `view`. Raises ImageError."""
    image, _ = decode(data, row["path"])
    try:
        return apply_view(image, view, row["image_id"])
    except ImageError as error:
        raise ImageError(f"{row['path']}: {error}") from error
