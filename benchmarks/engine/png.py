"""PNGs as we write and read them beside Pillow's way, of its fastest level that compresses."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.bars import Row
from benchmarks.engine.drawn import draw
from sare_core.bench.timing import processor_seconds, seconds
from sare_core.images.decoding import decode
from sare_core.images.png import decode_png, encode_png


def rows(folder: Path) -> Iterator[Row]:
    image = Image.open(next(draw(folder, 1).rglob("*.jpg"))).convert("RGB")
    pixels = np.asarray(image)
    ours = seconds(lambda: encode_png(pixels), "cpu", at_least=1.0)
    theirs = seconds(lambda: _by_pillow(image), "cpu", at_least=1.0)
    size = len(encode_png(pixels)) / len(_by_pillow(image))
    on = f"512×512, {1000 * ours:.1f} ms for {1000 * theirs:.1f} ms, {size:.2f} of the bytes"
    yield Row("a PNG by Pillow ÷ by ISA-L, seconds", on, f"{theirs / ours:.1f}", "≥ 5", theirs >= 5 * ours)
    data = encode_png(pixels)
    ours = processor_seconds(lambda: decode_png(data), 100)
    theirs = processor_seconds(lambda: Image.open(io.BytesIO(data)).convert("RGB"), 100)
    on = f"512×512, {1000 * ours:.1f} ms of a processor for {1000 * theirs:.1f} ms"
    yield Row("the same read by Pillow ÷ by ISA-L, seconds", on, f"{theirs / ours:.1f}", "≥ 1.3", theirs >= 1.3 * ours)
    source = _by_pillow(image, level=6)  # its default
    ours = processor_seconds(lambda: decode(data, "recoded"), 100)
    theirs = processor_seconds(lambda: decode(source, "source"), 100)
    size = len(data) / len(source)
    on = f"512×512, {1000 * ours:.1f} ms of a processor for {1000 * theirs:.1f} ms, {size:.2f} of the bytes"
    yield Row("a PNG as Pillow writes it ÷ recoded, read, seconds", on, f"{theirs / ours:.1f}", "none", True)


def _by_pillow(image: Image.Image, level: int = 1) -> bytes:
    out = io.BytesIO()
    image.save(out, format="PNG", compress_level=level)
    return out.getvalue()
