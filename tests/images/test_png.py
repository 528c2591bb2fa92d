"""PNGs as we write them, read by libraries that are not ours."""

import io
import struct
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import skimage
import torch
from PIL import Image, PngImagePlugin
from torchvision.io import ImageReadMode, decode_png

from sare_core.images import png
from sare_core.images.decoding import decode
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


def test_equal_pixels_give_equal_bytes_in_every_thread() -> None:
    """ISA-L by itself compresses some 7 of these pictures otherwise in another thread."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 12, (10_000, 8, 25, 3), dtype=np.uint8)
    flat = pictures.reshape(len(pictures), -1)
    flat[:, :20] = rng.integers(0, 256, (len(pictures), 20))
    flat[:, 500:508] = flat[:, 1:9]  # to be found again from the third byte on, the filter's being the first
    with ThreadPoolExecutor(1) as thread:
        assert list(thread.map(encode_png, pictures)) == [encode_png(pixels) for pixels in pictures]


def test_a_view_of_other_strides_is_written_as_it_looks() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    assert encode_png(pixels[::-1, ::2]) == encode_png(pixels[::-1, ::2].copy())


@pytest.mark.parametrize("odd", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3))])
def test_other_arrays_are_refused(odd: np.ndarray) -> None:
    with pytest.raises(ValueError, match="encode_png takes"):
        encode_png(odd)


@pytest.mark.parametrize("smooth", [True, False])
def test_what_was_written_is_read_without_pillow(smooth: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both filters: the row above is taken off a smooth picture, and not off noise."""
    ramp = np.arange(40)[:, None, None] * 5 + np.arange(30)[None, :, None] % 7 + np.arange(3)
    pixels = (ramp if smooth else np.random.default_rng(0).integers(0, 9, (40, 30, 3))).astype(np.uint8)
    data = encode_png(pixels)
    assert zlib.decompress(data[41:-16])[0] == (2 if smooth else 0)
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("Pillow reads it"))
    assert np.array_equal(np.asarray(png.decode_png(data)), pixels)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1"])
def test_any_other_png_is_read_as_pillow_reads_it(mode: str) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)).convert(mode)
    file = io.BytesIO()
    image.save(file, format="PNG")
    assert np.array_equal(np.asarray(png.decode_png(file.getvalue())), np.asarray(image.convert("RGB")))


def like_ours(data: bytes, width: int = 8, height: int = 8) -> bytes:
    """A PNG in the form of `encode_png`'s, with other data."""
    chunks = (b"IHDR", struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)), (b"IDAT", data), (b"IEND", b"")
    whole = (
        struct.pack(">I", len(part)) + kind + part + struct.pack(">I", zlib.crc32(kind + part)) for kind, part in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(whole)


def test_a_png_like_ours_takes_no_more_memory_than_its_header_says() -> None:
    packer = zlib.compressobj(9)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(256)) + packer.flush()
    tracemalloc.start()
    assert png.own_pixels(like_ours(bomb)) is None
    assert png.own_pixels(like_ours(zlib.compress(bytes(200)), 2**31 - 1, 2**31 - 1)) is None
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


def test_one_that_does_not_end_as_a_png_is_not_ours() -> None:
    assert png.own_pixels(encode_png(np.zeros((8, 8, 3), np.uint8))[:-12] + b"garbagegarba") is None


def test_more_data_than_pixels_are_passed_over_as_pillow_does() -> None:
    rows = np.random.default_rng(0).integers(0, 256, (8, 25), dtype=np.uint8)
    rows[:, 0] = 0
    image, _ = decode(like_ours(zlib.compress(rows.tobytes() + b"more")), "it")
    assert np.array_equal(np.asarray(image), rows[:, 1:].reshape(8, 8, 3))


def test_a_users_file_in_our_form_is_decoded_without_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda self: pytest.fail("Pillow decodes it"))
    image, info = decode(encode_png(pixels), "it")
    assert np.array_equal(np.asarray(image), pixels)
    assert (info.format, info.extension, info.mode, info.width, info.height) == ("PNG", "png", "RGB", 7, 9)


def test_a_damaged_png_is_an_error_or_says_what_it_said() -> None:
    pixels = np.random.default_rng(0).integers(0, 9, (40, 30, 3), dtype=np.uint8)
    data, refused = encode_png(pixels), 0
    for place in range(len(data)):
        damaged = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        try:
            assert np.array_equal(np.asarray(png.decode_png(damaged)), pixels), place
        except (OSError, SyntaxError):
            refused += 1
    assert refused > 0.95 * len(data), "all but names and checksums of chunks"
    for cut in (b"", data[:30], data[: len(data) // 2], b"GIF89a" + data):
        with pytest.raises(OSError):
            png.decode_png(cut)
