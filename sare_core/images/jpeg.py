"""What only a JPEG has: its quality, and an end that may be missing.

libjpeg says nothing where the data end before the picture does: it goes on with the last colour, down to the size that
the header claims. But bytes put in where the data end tell: if the picture is whole, they change nothing.
"""

import io
import re

import numpy as np
from PIL import Image, ImageChops

_BLOCK = 16  # pixels: the largest unit that is coded at once
_STRIP = 256  # rows compared at a time: these may be images of gigabytes
_NEXT_MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")  # in coded data 00 is an escape and D0 to D7 are restarts
_FILLING = bytes(np.random.default_rng(0).integers(0, 255, 512, dtype=np.uint8))  # anything, but without FF
# A decoder that waits for a restart passes over all that comes before it.
_MORE = _FILLING + b"".join(b"\xff" + bytes([0xD0 + number]) + _FILLING for number in range(8))
# ITU-T T.81, table K.1, row by row: what the IJG's quality scale stretches.
LUMA_TABLE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
).ravel()
_LEVELS = np.arange(1, 101)
_SCALES = np.where(_LEVELS < 50, 5000 // _LEVELS, 200 - 2 * _LEVELS)  # IJG's jpeg_quality_scaling
_TABLES = np.clip((LUMA_TABLE * _SCALES[:, None] + 50) // 100, 1, 255)


def quality(luma: list[int] | None) -> int | None:
    """The IJG quality (1 to 100) whose table is nearest to a file's luma table; None: the file has none."""
    if luma is None:
        return None
    return int(_LEVELS[np.abs(_TABLES - np.array(luma)).sum(axis=1).argmin()])


def is_cut(data: bytes, image: Image.Image) -> bool:
    """Whether `image`, decoded from `data`, is made up from some row on. Decodes once more where it may be."""
    width, height = image.size
    corner = image.crop((max(width - _BLOCK, 0) // _BLOCK * _BLOCK, (height - 1) // _BLOCK * _BLOCK, width, height))
    if any(low != high for low, high in _extrema(corner)):
        return False  # its last block has a pattern, which must have been there
    pieces = _scans(data)
    if not pieces:
        return False
    with Image.open(io.BytesIO(_MORE.join(pieces)), formats=["JPEG"]) as other:
        other.load()
        strips = [(0, top, width, min(top + _STRIP, height)) for top in range(0, height, _STRIP)]
        return any(ImageChops.difference(image.crop(s), other.crop(s)).getbbox(alpha_only=False) for s in strips)


def _extrema(image: Image.Image) -> list[tuple[float, float]]:
    return [band.getextrema() for band in image.split()]  # type: ignore[misc]


def _scans(data: bytes) -> list[bytes]:
    """The file cut where the coded data of each scan end; empty where that does not tell."""
    pieces: list[bytes] = []
    begun, place = 0, 2
    while found := _NEXT_MARKER.match(data, place):
        kind, place = found[0][-1], found.end()
        if kind == 0xD9:  # end of image
            return [*pieces, data[begun:]]
        if kind in (0xC9, 0xCA, 0xCB):  # arithmetic coding reads on beyond its data
            break
        place += int.from_bytes(data[place : place + 2], "big")
        if kind == 0xDA:  # start of scan: its header, then coded data
            following = _NEXT_MARKER.search(data, place)
            if following is None:
                break
            place = following.start()
            pieces.append(data[begun:place])
            begun = place
    return []
