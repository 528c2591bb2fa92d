"""Lossless PNGs, compressed by Intel's ISA-L: about ten times as fast as Pillow's, and about as small."""

import struct

import numpy as np
from isal import isal_zlib
from PIL import Image

LEVEL = 1
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_NONE, _UP = 0, 2  # filters of a row: as it is, or less the row above


def encode_png(image: Image.Image | np.ndarray) -> bytes:
    """PNG (W3C, third edition) without metadata of an RGB image or uint8 array (height, width, 3).

    Equal pixels give equal bytes, with one version of ISA-L. Of two filters the one is taken that gives fewer bytes for
    some rows in the middle: maps are smaller without, reconstructions with the row above.
    """
    pixels = np.asarray(image)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise ValueError(f"encode_png takes (height, width, 3) uint8, not {pixels.shape} {pixels.dtype}")
    height, width, _ = pixels.shape
    rows = pixels.reshape(height, width * 3)
    less = rows.copy()
    less[1:] -= rows[:-1]
    tried = slice(height // 2, height // 2 + max(8, height // 8))
    up = len(_compressed(_UP, less[tried])) < len(_compressed(_NONE, rows[tried]))
    data = _compressed(_UP, less) if up else _compressed(_NONE, rows)
    header = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)  # 8 bits, RGB, not interlaced
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _compressed(kind: int, rows: np.ndarray) -> bytes:
    filtered = np.empty((rows.shape[0], rows.shape[1] + 1), np.uint8)
    filtered[:, 0], filtered[:, 1:] = kind, rows
    return isal_zlib.compress(filtered.data, LEVEL)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", isal_zlib.crc32(kind + data))
