"""Images of the user: decoded to 8-bit RGB, identified, resized. Nothing else decodes a user's file.

What a file is, its first bytes say; its name is only used in messages. Whatever is wrong with a file becomes an
ImageError that names it, so that one bad file among millions is a failure row and not the end of the run.
"""

import contextlib
import hashlib
import io
import struct
import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from sare_core.errors import ImageError
from sare_core.images.jpeg import is_cut, quality
from sare_core.images.png import own_pixels

MAX_PIXELS = 178_956_970  # where Pillow itself refuses; ours also holds where someone has switched Pillow's off
MAX_SIDE = 65_500  # what JPEG libraries store

# What is opened, and under which extension it is stored. Left out on purpose: formats that Pillow hands to other
# programs (EPS, WMF) or recognises by next to nothing (TGA, PCX).
EXTENSIONS = {
    "JPEG": "jpg",
    "PNG": "png",
    "WEBP": "webp",
    "GIF": "gif",
    "TIFF": "tif",
    "BMP": "bmp",
    "AVIF": "avif",
    "JPEG2000": "jp2",
    "PPM": "ppm",
}

# What Pillow's readers are known to raise on damaged files. MemoryError is not among them: after the size check it
# says something about the machine, not about the image.
DECODING_ERRORS = (
    OSError,  # also "image file is truncated" and UnidentifiedImageError
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,  # GIF
    TypeError,  # TIFF
    RuntimeError,  # AVIF
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)

# EXIF tag 0x0112: what brings the stored pixels upright.
ORIENTATION_TAG = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class ImageInfo:
    """What the file was before it became RGB.

    `format` and `extension` (lower case, no dot) follow the content, not the name. `mode` is Pillow's name for the
    stored pixels ("CMYK", "P", "I;16"). `width` and `height` are in pixels, after the EXIF orientation. `quality` is
    the IJG quality (1 to 100) whose luma table is nearest to the file's: an estimate where another encoder made the
    tables; None where the file is no JPEG. `animated`: more than one frame or page, of which the first was taken.
    """

    format: str
    extension: str
    mode: str
    width: int
    height: int
    quality: int | None
    animated: bool


def decode(data: bytes, name: str) -> tuple[Image.Image, ImageInfo]:
    """A file's bytes as an upright 8-bit RGB image without metadata, and what the file was. `name` is for messages.

    - The first frame of an animation, the first page of a document.
    - 16-bit grey divided by 257 and rounded; wider integers likewise where they fit 16 bits. Other integers are
      stretched from their minimum to maximum. (Pillow itself keeps the high byte of 16-bit colour.)
    - Float in [0, 1] times 255; any other range stretched from minimum to maximum; a constant one is black.
    - Transparency composited on white, so that what it hid stays hidden.
    - CMYK through its embedded ICC profile; without a usable one, by Pillow's plain formula. RGB and grey profiles
      are ignored, as the usual training loaders do: to apply them would treat photographs, which often carry one,
      unlike generated images, which hardly ever do.

    Raises ImageError: empty, not an image, a format that the installed Pillow lacks, too large (by its header, before
    any pixel is decoded), damaged or truncated, NaN or infinite values.
    """
    if not data:
        raise ImageError(f"{name}: is empty (0 bytes). Fetch it again, or leave it out.")
    try:
        with Image.open(io.BytesIO(data), formats=tuple(EXTENSIONS)) as file:
            _check_size(file, name)
            # An MPO is a phone's JPEG with a second picture behind it.
            kind = "JPEG" if file.format == "MPO" else str(file.format)
            mode, animated = file.mode, getattr(file, "is_animated", False)
            own = own_pixels(data) if kind == "PNG" else None
            if own is None:
                file.load()
            if kind == "JPEG" and is_cut(data, file):
                raise ImageError(
                    f"{name}: holds fewer pixels than the {file.width}x{file.height} that its header says. "
                    "Fetch it again, or leave it out."
                )
            image = to_rgb(file) if own is None else Image.fromarray(own)
            info = ImageInfo(
                format=kind,
                extension=EXTENSIONS[kind],
                mode=mode,
                width=image.width,
                height=image.height,
                quality=quality(getattr(file, "quantization", {}).get(0)),
                animated=animated,
            )
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: {_why_unidentified(data)}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: is too large to decode: {error} Scale it down, or leave it out.") from error
    except DECODING_ERRORS as error:
        raise ImageError(f"{name}: cannot be decoded: {error}. Fetch it again, or leave it out.") from error
    return image, info


def to_rgb(image: Image.Image) -> Image.Image:
    """An open image as `decode` gives it: upright 8-bit RGB without metadata; itself where it is that already.

    Raises one of DECODING_ERRORS: its pixels cannot be read, or are NaN or infinite.
    """
    if type(image) is Image.Image and image.mode == "RGB" and not image.info and not image.getexif():
        return image
    rgb = _upright(image, _to_rgb(image))
    rgb.info = {}
    return rgb


def image_id(image: Image.Image) -> str:
    """The name of an image by its pixels: the first 20 hex digits of SHA-256.

    The hashed bytes are the ASCII text `{width}x{height}:` (decimal, "640x480:") and then the pixels row by row from
    the top left, three bytes each: R, G, B.
    """
    return hashlib.sha256(f"{image.width}x{image.height}:".encode("ascii") + image.tobytes()).hexdigest()[:20]


def fit_size(width: int, height: int, longer_side: int, multiple: int, upscale: bool) -> tuple[int, int]:
    """The size, in pixels, at which an image is reconstructed (paper 4.1: the longer side to `longer_side`).

    The shorter side keeps the proportion; both are floored to the model's multiple, as diffusers' VaeImageProcessor
    does, but are one multiple at least. Without `upscale` a smaller image keeps its own size, floored.
    """
    longest = max(width, height)
    target = longer_side if upscale else min(longer_side, longest)
    return _floor(width * target // longest, multiple), _floor(height * target // longest, multiple)


def resize(
    image: Image.Image, size: tuple[int, int], resample: Literal["lanczos", "bicubic", "bilinear"]
) -> Image.Image:
    """The whole image at `size` (width, height); the image itself where it has that size already."""
    if image.size == size:
        return image
    return image.resize(size, Image.Resampling[resample.upper()])


def _floor(side: int, multiple: int) -> int:
    return max(multiple, side - side % multiple)


def _check_size(file: Image.Image, name: str) -> None:
    if file.width * file.height > MAX_PIXELS or max(file.size) > MAX_SIDE:
        raise ImageError(
            f"{name}: is too large to decode: {file.width}x{file.height}; the limits are {MAX_PIXELS} pixels "
            f"and {MAX_SIDE} a side. Scale it down, or leave it out."
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode[0] in "IF":
        return Image.fromarray(_to_8_bits(np.asarray(image))).convert("RGB")
    if image.mode == "CMYK":
        return _from_cmyk(image)
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), colours).convert("RGB")
    return image.convert("RGB")


def _to_8_bits(values: np.ndarray) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise ValueError("it holds NaN or infinite values")
    full_scale = 65535.0 if values.dtype.kind in "iu" else 1.0
    levels = values.astype(np.float64)
    if low < 0 or high > full_scale:
        levels, full_scale = levels - low, (high - low) or 1.0
    return np.rint(levels * 255 / full_scale).astype(np.uint8)


def _from_cmyk(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if profile:
        with contextlib.suppress(ImageCms.PyCMSError, OSError):  # damaged, or not for CMYK: the plain formula
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            assert converted is not None  # it is only None when the conversion is done in place
            return converted
    return image.convert("RGB")


def _upright(file: Image.Image, image: Image.Image) -> Image.Image:
    try:
        orientation = file.getexif().get(ORIENTATION_TAG)
    except DECODING_ERRORS:  # damaged metadata says nothing about the pixels
        orientation = None
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def _why_unidentified(data: bytes) -> str:
    if data[4:8] == b"ftyp":  # HEIC and its kin
        brand = data[8:12].decode("ascii", errors="replace").strip()
        return f"its format ({brand}) is not supported by the installed Pillow. Convert it to PNG, or leave it out."
    known = ", ".join(sorted(EXTENSIONS.values()))
    return f"is not an image, is damaged, or not of a supported format ({known}). Fetch it again, or leave it out."
