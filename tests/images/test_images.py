"""Decoding is checked against numpy, Pillow's encoders, and the values of the ICC and the IJG."""

import hashlib
import io
import struct
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image, ImageCms

from sare_core.errors import ImageError
from sare_core.images.decoding import decode, fit_size, image_id, resize
from sare_core.images.png import encode_png

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
YY, XX = np.mgrid[0:40, 0:56]
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SMOOTH = Image.fromarray(np.stack([XX * 4, YY * 6, XX + YY], -1).astype(np.uint8))


def encode(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


def pixels_of(data: bytes) -> np.ndarray:
    image, info = decode(data, "test")
    assert image.mode == "RGB"
    assert image.info == {}
    assert image.size == (info.width, info.height)
    return np.asarray(image)


# Modes


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_rgb_pixels_come_back_exactly(kind: str) -> None:
    assert np.array_equal(pixels_of(encode(Image.fromarray(PIXELS), format=kind)), PIXELS)


def test_grey_bilevel_and_palette_become_rgb() -> None:
    grey = PIXELS[..., 0]
    assert np.array_equal(pixels_of(encode(Image.fromarray(grey), format="PNG")), np.repeat(grey[..., None], 3, 2))
    bits = (grey > 127) * np.uint8(255)
    bilevel = encode(Image.fromarray(bits).convert("1"), format="PNG")
    assert np.array_equal(pixels_of(bilevel), np.repeat(bits[..., None], 3, 2))
    palette = Image.fromarray(grey % 4)
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 10, 20, 30])
    table = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [10, 20, 30]], dtype=np.uint8)
    assert np.array_equal(pixels_of(encode(palette, format="PNG")), table[grey % 4])


def test_transparency_is_composited_on_white() -> None:
    alpha = np.linspace(0, 255, 9 * 13).reshape(9, 13).round().astype(np.uint8)
    stored = np.dstack([PIXELS, alpha])
    opacity = alpha[..., None] / 255
    expected = PIXELS * opacity + 255 * (1 - opacity)
    got = pixels_of(encode(Image.fromarray(stored), format="PNG"))
    assert np.abs(got - expected).max() <= 1
    assert (got[alpha == 0] == 255).all()  # nothing of the hidden colour is left
    assert np.array_equal(got[alpha == 255], PIXELS[alpha == 255])

    grey_alpha = Image.fromarray(np.dstack([PIXELS[..., 0], alpha]), "LA")
    assert np.abs(pixels_of(encode(grey_alpha, format="PNG"))[..., 0] - expected[..., 0]).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_transparent_palette_entry_is_white(kind: str) -> None:
    index = np.arange(12, dtype=np.uint8).reshape(3, 4) % 3
    image = Image.fromarray(index)
    image.putpalette([255, 0, 0, 0, 0, 0, 0, 0, 255])
    got = pixels_of(encode(image, format=kind, transparency=1))
    assert np.array_equal(got, np.array([[255, 0, 0], [255, 255, 255], [0, 0, 255]])[index])


def test_transparent_colour_of_a_png_is_white() -> None:
    image = Image.fromarray(PIXELS)
    got = pixels_of(encode(image, format="PNG", transparency=tuple(PIXELS[2, 3].tolist())))
    assert got[2, 3].tolist() == [255, 255, 255]
    assert np.array_equal(got[4:], PIXELS[4:])


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_to_8(kind: str) -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    got = pixels_of(encode(Image.fromarray(values), format=kind))
    assert np.array_equal(got[..., 0], (values.astype(int) + 128) // 257)
    assert np.array_equal(got[..., 0], got[..., 2])


def test_dark_16_bit_grey_stays_dark() -> None:
    data = encode(Image.fromarray(np.array([[0, 257], [1000, 45000]], dtype=np.uint16)), format="PNG")
    assert pixels_of(data)[..., 0].tolist() == [[0, 1], [4, 175]]


def test_big_endian_and_portable_16_bit_grey() -> None:
    values = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    big = Image.frombytes("I;16B", (16, 16), values.astype(">u2").tobytes())
    data = encode(big, format="TIFF")
    assert decode(data, "big")[1].mode == "I;16B"
    expected = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(pixels_of(data)[..., 0], expected)
    portable = b"P5 16 16 65535\n" + values.astype(">u2").tobytes()
    assert decode(portable, "pgm")[1].mode == "I"
    assert np.array_equal(pixels_of(portable)[..., 0], expected)


def test_32_bit_integers_beyond_16_bits_are_stretched() -> None:
    values = np.array([[-100, 0], [100, 300]], dtype=np.int32)
    assert pixels_of(encode(Image.fromarray(values), format="TIFF"))[..., 0].tolist() == [[0, 64], [128, 255]]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[0.0, 0.25], [0.5, 1.0]], [[0, 64], [128, 255]]),  # 127.5 rounds to even
        ([[0.1, 0.2], [0.2, 0.3]], [[26, 51], [51, 77]]),  # in [0, 1]: not stretched
        ([[-1.0, 0.0], [1.0, 3.0]], [[0, 64], [128, 255]]),
        ([[-3e38, 0.0], [0.0, 3e38]], [[0, 128], [128, 255]]),
        ([[7.0, 7.0], [7.0, 7.0]], [[0, 0], [0, 0]]),
    ],
)
def test_float_images(values: list, expected: list) -> None:
    data = encode(Image.fromarray(np.array(values, dtype=np.float32)), format="TIFF")
    assert pixels_of(data)[..., 0].tolist() == expected


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite_is_refused(bad: float) -> None:
    data = encode(Image.fromarray(np.array([[0, bad]], dtype=np.float32)), format="TIFF")
    with pytest.raises(ImageError, match=r"a\.tif: .*NaN or infinite"):
        decode(data, "a.tif")


# Colour


def cmyk_profile(colours: dict[tuple[int, ...], tuple[float, float, float]]) -> bytes:
    """A minimal printer profile by ICC.1:2001: a lut8 from CMYK corners to the CIELAB given, and black elsewhere."""
    ramp = bytes(range(256))
    corners = [tuple(int(bit) for bit in f"{corner:04b}") for corner in range(16)]
    lab = [colours.get(corner, (0.0, 0.0, 0.0)) for corner in corners]
    grid = bytes(round(v) for light, a, b in lab for v in (light * 2.55, a + 128, b + 128))
    identity = struct.pack(">9i", *(65536 if i % 4 == 0 else 0 for i in range(9)))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + ramp * 4 + grid + ramp * 3
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)  # D50
    description = b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78)
    tags = {b"desc": description, b"wtpt": white, b"A2B0": lut}
    table, body, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    size = start + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02400000, b"prtr", b"CMYK", b"Lab ") + bytes(12) + b"acsp"
    header += bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def cmyk_jpeg(profile: bytes | None) -> bytes:
    """Two patches of 16x16: bare paper, and full cyan ink."""
    ink = np.zeros((16, 32, 4), dtype=np.uint8)
    ink[:, 16:, 0] = 255
    return encode(Image.fromarray(ink, "CMYK"), format="JPEG", quality=100, icc_profile=profile)


def test_cmyk_goes_through_its_profile() -> None:
    # A press whose "cyan" is red: CIELAB (D50) 54.3, 80.8, 69.9 is sRGB's red.
    profile = cmyk_profile({(0, 0, 0, 0): (100, 0, 0), (1, 0, 0, 0): (54.3, 80.8, 69.9)})
    got = pixels_of(cmyk_jpeg(profile)).astype(int)
    assert np.abs(got[8, 4] - [255, 255, 255]).max() <= 2
    assert np.abs(got[8, 28] - [255, 0, 0]).max() <= 6


@pytest.mark.parametrize("profile", [None, b"not a profile", SRGB])
def test_cmyk_without_a_usable_profile(profile: bytes | None) -> None:
    got = pixels_of(cmyk_jpeg(profile)).astype(int)
    assert np.abs(got[8, 4] - [255, 255, 255]).max() <= 2
    assert np.abs(got[8, 28] - [0, 255, 255]).max() <= 2


def test_rgb_profiles_are_left_alone() -> None:
    # Red and blue are swapped in this one, so that to heed it would show.
    swapped = SRGB.replace(b"rXYZ", b"????").replace(b"bXYZ", b"rXYZ").replace(b"????", b"bXYZ")
    assert np.array_equal(pixels_of(encode(Image.fromarray(PIXELS), format="PNG", icc_profile=swapped)), PIXELS)


# Orientation, frames, quality


UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
    0: lambda a: a,
    9: lambda a: a,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("options", [{"format": "PNG"}, {"format": "TIFF"}, {"format": "WEBP", "lossless": True}])
def test_exif_orientation(orientation: int, options: dict) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(PIXELS), exif=exif, **options)
    assert np.array_equal(pixels_of(data), UPRIGHT[orientation](PIXELS))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("exif", [b"garbage", b"II*\0"])
def test_damaged_exif_does_not_cost_the_image(kind: str, exif: bytes) -> None:
    whole, damaged = encode(SMOOTH, format=kind), encode(SMOOTH, format=kind, exif=b"Exif\0\0" + exif)
    assert np.array_equal(pixels_of(damaged), pixels_of(whole))


@pytest.mark.parametrize("options", [{"format": "GIF"}, {"format": "WEBP", "lossless": True}, {"format": "PNG"}])
def test_first_frame_of_an_animation(options: dict) -> None:
    red, blue = Image.new("RGB", (8, 6), (255, 0, 0)), Image.new("RGB", (8, 6), (0, 0, 255))
    data = encode(red, save_all=True, append_images=[blue, red], **options)
    image, info = decode(data, "animation")
    assert np.array_equal(np.asarray(image), np.asarray(red))
    assert info.animated
    assert not decode(encode(red, **options), "still")[1].animated


@pytest.mark.parametrize("quality", range(50, 101, 5))
def test_jpeg_quality(quality: int) -> None:
    assert decode(encode(SMOOTH, format="JPEG", quality=quality), "a")[1].quality == quality


def test_other_formats_have_no_quality() -> None:
    assert decode(encode(SMOOTH, format="WEBP", quality=80), "a")[1].quality is None


# Identity, sizes, PNG


def test_image_id_is_the_documented_hash() -> None:
    preimage = b"13x9:" + PIXELS.tobytes()
    expected = hashlib.sha256(preimage).hexdigest()[:20]
    assert image_id(Image.fromarray(PIXELS)) == expected
    assert image_id(decode(encode(Image.fromarray(PIXELS), format="BMP"), "a")[0]) == expected
    assert image_id(Image.fromarray(PIXELS.reshape(13, 9, 3))) != expected


@pytest.mark.parametrize(
    ("size", "upscale", "expected"),
    [
        ((512, 512), True, (512, 512)),
        ((1024, 768), True, (512, 384)),
        ((500, 375), True, (512, 384)),
        ((375, 500), True, (384, 512)),
        ((500, 333), True, (512, 336)),  # 340.99 floored to eights
        ((500, 335), True, (512, 336)),  # 343.04
        ((128, 128), True, (512, 512)),
        ((128, 128), False, (128, 128)),
        ((131, 99), False, (128, 96)),
        ((1024, 768), False, (512, 384)),
        ((10_000, 3), True, (512, 8)),
        ((3, 5), False, (8, 8)),
    ],
)
def test_fit_size(size: tuple[int, int], upscale: bool, expected: tuple[int, int]) -> None:
    assert fit_size(*size, longer_side=512, multiple=8, upscale=upscale) == expected


def test_fit_size_floors_as_diffusers_does() -> None:
    processor = pytest.importorskip("diffusers.image_processor").VaeImageProcessor(vae_scale_factor=8)
    for width, height in np.random.default_rng(2).integers(8, 512, (50, 2)).tolist():
        diffusers_height, diffusers_width = processor.get_default_height_width(Image.new("RGB", (width, height)))
        assert fit_size(width, height, 512, 8, upscale=False) == (diffusers_width, diffusers_height)


RESAMPLE: tuple[Literal["lanczos", "bilinear", "bicubic"], ...] = ("lanczos", "bilinear", "bicubic")


def test_resize() -> None:
    assert resize(SMOOTH, SMOOTH.size, "lanczos") is SMOOTH
    results = [np.asarray(resize(SMOOTH, (24, 16), name)) for name in RESAMPLE]
    for result, resample in zip(results, [1, 2, 3], strict=True):  # Pillow's numbers for the three
        assert np.array_equal(result, np.asarray(SMOOTH.resize((24, 16), resample)))


def test_png_is_lossless_bare_and_repeatable() -> None:
    image = Image.fromarray(PIXELS)
    image.info = {"icc_profile": b"profile", "dpi": (300, 300), "transparency": (1, 2, 3)}
    data = encode_png(image)
    assert data == encode_png(PIXELS) == encode_png(Image.fromarray(PIXELS))
    reopened = Image.open(io.BytesIO(data))
    assert reopened.info == {}
    assert np.array_equal(np.asarray(reopened), PIXELS)
