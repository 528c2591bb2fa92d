"""Files as they come: wrong names, damage at every byte, bombs, pipes, dangling links, faults of disk and network."""

import io
import os
import socket
import struct
import time
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from PIL import Image

from sare_core.errors import ConfigError, ImageError, TransientError
from sare_core.images import reading
from sare_core.images.decoding import decode
from sare_core.images.reading import read_bytes

YY, XX = np.mgrid[0:40, 0:56]
SMOOTH = Image.fromarray(np.stack([XX * 4, YY * 6, XX + YY], -1).astype(np.uint8))


def encode(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


def pixels_of(data: bytes) -> np.ndarray:
    return np.asarray(decode(data, "test")[0])


def corpus() -> dict[str, bytes]:
    other = SMOOTH.rotate(180)
    transparent = SMOOTH.copy()
    transparent.putalpha(Image.fromarray((XX * 4).astype(np.uint8)))
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        "jpeg": encode(SMOOTH, format="JPEG", exif=exif),
        "progressive": encode(SMOOTH, format="JPEG", progressive=True),
        "cmyk": encode(SMOOTH.convert("CMYK"), format="JPEG"),
        "mpo": encode(SMOOTH, format="MPO", save_all=True, append_images=[other]),
        "png": encode(SMOOTH, format="PNG"),
        "rgba": encode(transparent, format="PNG", exif=exif),
        "palette": encode(SMOOTH.quantize(20), format="PNG", transparency=3),
        "grey16": encode(Image.fromarray((XX * 1000).astype(np.uint16)), format="PNG"),
        "gif": encode(SMOOTH.quantize(50), format="GIF", save_all=True, append_images=[other.quantize(50)]),
        "webp": encode(SMOOTH, format="WEBP"),
        "webp-lossless": encode(transparent, format="WEBP", lossless=True),
        "tiff": encode(SMOOTH, format="TIFF", exif=exif),
        "tiff-lzw": encode(SMOOTH, format="TIFF", compression="tiff_lzw"),
        "bmp": encode(SMOOTH, format="BMP"),
        "avif": encode(SMOOTH, format="AVIF"),
        "jp2": encode(SMOOTH, format="JPEG2000"),
        "ppm": encode(SMOOTH, format="PPM"),
    }


CORPUS = corpus()


# Format by content, names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("jpeg", ("JPEG", "jpg")),
        ("mpo", ("JPEG", "jpg")),
        ("png", ("PNG", "png")),
        ("webp", ("WEBP", "webp")),
        ("gif", ("GIF", "gif")),
        ("tiff", ("TIFF", "tif")),
        ("bmp", ("BMP", "bmp")),
        ("avif", ("AVIF", "avif")),
        ("jp2", ("JPEG2000", "jp2")),
        ("ppm", ("PPM", "ppm")),
    ],
)
def test_format_is_sniffed(name: str, expected: tuple[str, str]) -> None:
    info = decode(CORPUS[name], "wrong.txt")[1]
    assert (info.format, info.extension) == expected


@pytest.mark.parametrize("name", ["photo.png", "photo", "photo.v2.jpg", "фото 画像 é.jpg", ".jpg"])
def test_names_do_not_matter(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(CORPUS["jpeg"])
    data = read_bytes(str(tmp_path / name))
    assert decode(data, name)[1].format == "JPEG"


def test_every_file_of_the_corpus_decodes() -> None:
    for name, data in CORPUS.items():
        upright = name in {"jpeg", "rgba", "tiff"}
        assert decode(data, name)[0].size == ((40, 56) if upright else (56, 40)), name


# Damage


def test_empty_file() -> None:
    with pytest.raises(ImageError, match=r"a\.jpg: is empty \(0 bytes\)"):
        decode(b"", "a.jpg")


@pytest.mark.parametrize("data", [b"<!DOCTYPE html><html>", b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"x"])
def test_not_an_image(data: bytes) -> None:
    with pytest.raises(ImageError, match=r"a\.jpg: is not an image, is damaged, or not of a supported format"):
        decode(data, "a.jpg")


@pytest.mark.parametrize("kind", ["EPS", "TGA", "PCX"])
def test_formats_left_out(kind: str) -> None:
    with pytest.raises(ImageError, match="not of a supported format"):
        decode(encode(SMOOTH, format=kind), "a.jpg")


def test_heic_without_plugin() -> None:
    data = struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic" + bytes(64)
    with pytest.raises(ImageError, match=r"a\.jpg: its format \(heic\) is not supported by the installed Pillow"):
        decode(data, "a.jpg")


@pytest.mark.filterwarnings("ignore:::PIL")
@pytest.mark.parametrize("name", CORPUS)
def test_truncation_is_never_passed_over(name: str) -> None:
    data = CORPUS[name]
    whole = pixels_of(data)
    refused = 0
    for length in {*range(1, len(data), 1 + len(data) // 150), *range(len(data) - 30, len(data))}:
        try:
            image, _ = decode(data[:length], name)
        except ImageError as error:
            assert str(error).startswith(f"{name}: ")
            refused += 1
        else:  # only what follows the pixels was lost
            assert np.array_equal(np.asarray(image), whole), length
    assert refused > 50


@pytest.mark.filterwarnings("ignore:::PIL")
@pytest.mark.parametrize("name", CORPUS)
def test_flipped_bytes_give_an_image_or_an_image_error(name: str) -> None:
    random = np.random.default_rng(1)
    for _ in range(150):
        data = bytearray(CORPUS[name])
        reach = min(len(data), int(random.choice([64, 600, len(data)])))
        for position in random.integers(0, reach, random.integers(1, 8)):
            data[position] = random.integers(0, 256)
        try:
            image, info = decode(bytes(data), name)
        except ImageError:
            continue
        assert image.mode == "RGB"
        assert image.size == (info.width, info.height)


GRAIN = Image.fromarray(np.random.default_rng(3).integers(0, 256, (48, 64, 3), dtype=np.uint8))
JPEGS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "progressive": {"progressive": True},
    "full colour": {"subsampling": 0},
    "optimized": {"optimize": True, "quality": 20},
    "restarts": {"restart_marker_rows": 1},
    "restarts within rows": {"restart_marker_blocks": 3},
}


def claiming(data: bytes, width: int, height: int) -> bytes:
    """A JPEG whose header says another size."""
    frame = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    return data[: frame + 5] + struct.pack(">HH", height, width) + data[frame + 9 :]


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("kind", JPEGS)
def test_a_jpeg_with_fewer_pixels_than_its_header_says(kind: str, mode: str) -> None:
    """libjpeg fills the rest with one colour, and says nothing."""
    data = encode(GRAIN.convert(mode), format="JPEG", **JPEGS[kind])
    for width, height in ((64, 112), (128, 96), (264, 48), (4000, 300)):
        with pytest.raises(ImageError, match=f"holds fewer pixels than the {width}x{height} that its header says"):
            decode(claiming(data, width, height), "a.jpg")


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("kind", JPEGS)
def test_a_whole_jpeg_may_end_in_one_colour(kind: str, mode: str) -> None:
    half = GRAIN.convert(mode)
    half.paste(Image.new(mode, (64, 30)), (0, 18))
    tail = b"\xff\xd9 and more behind its end"
    for image in (half, Image.new(mode, (64, 48)), half.crop((0, 0, 61, 47)), half.crop((0, 0, 5, 3))):
        data = encode(image, format="JPEG", **JPEGS[kind])
        assert decode(data, "a.jpg")[0].size == decode(data + tail, "a.jpg")[0].size == image.size


def test_the_worst_claim() -> None:
    data = encode(GRAIN, format="JPEG")
    with pytest.raises(ImageError, match="fewer pixels than the 13000x13000"):
        decode(claiming(data, 13_000, 13_000), "a.jpg")


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000)))


@pytest.mark.parametrize("limit", ["Pillow's", "none"])
@pytest.mark.parametrize("size", [(100_000, 100_000), (2_000_000_000, 2), (70_000, 10), (13_378, 13_378)])
def test_bombs_are_refused_by_their_header(monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], limit: str) -> None:
    if limit == "none":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("pixels were decoded"))
    tracemalloc.start()
    start = time.monotonic()
    with pytest.raises(ImageError, match=r"bomb\.png: is too large to decode"):
        decode(png_header(*size), "bomb.png")
    assert time.monotonic() - start < 1
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


# Reading


@pytest.mark.timeout(20)
def test_only_regular_files_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # a socket's whole path is limited to 108 bytes
        server.bind("socket.jpg")
    (tmp_path / "link.jpg").symlink_to("/dev/zero")
    for path in ["pipe.jpg", "socket.jpg", "link.jpg", "/dev/zero", f"file://{tmp_path}/pipe.jpg"]:
        with pytest.raises(ImageError, match="is a pipe, socket or device, not a regular file"):
            read_bytes(path)
    with pytest.raises(ImageError, match="is a folder, not a regular file"):
        read_bytes(str(tmp_path))


def test_links(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"content")
    (tmp_path / "good.jpg").symlink_to("a.jpg")
    (tmp_path / "dangling.jpg").symlink_to("lost/b.jpg")
    (tmp_path / "loop").symlink_to("loop")
    assert read_bytes(str(tmp_path / "good.jpg")) == b"content"
    with pytest.raises(ImageError, match=r"dangling\.jpg: is a link to lost/b\.jpg, which is gone"):
        read_bytes(str(tmp_path / "dangling.jpg"))
    for path in ("loop", "loop/a.jpg"):
        with pytest.raises(ImageError, match="is a link that leads back to itself"):
            read_bytes(str(tmp_path / path))


def test_missing_and_impossible_paths(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in [tmp_path / "none.jpg", tmp_path / "file" / "a.jpg"]:
        with pytest.raises(ImageError, match=f"{path}: is gone"):
            read_bytes(str(path))
    with pytest.raises(ImageError, match="cannot be opened"):
        read_bytes(str(tmp_path / ("a" * 300)))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no /proc")
def test_files_of_proc_are_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regular files of no size, of which some block for ever and others never end."""
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail(f"{self} was read"))
    (tmp_path / "kmsg.jpg").symlink_to("/proc/kmsg")
    (tmp_path / "own.jpg").symlink_to("/proc/self/status")
    assert read_bytes(str(tmp_path / "kmsg.jpg")) == read_bytes(str(tmp_path / "own.jpg")) == b""


def test_enormous_files_are_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.jpg").open("wb") as file:
        file.truncate(reading.MAX_BYTES + 1)  # sparse
    with pytest.raises(ImageError, match="more than the"):
        read_bytes(str(tmp_path / "a.jpg"))


def failing(monkeypatch: pytest.MonkeyPatch, error: OSError, times: int) -> list[Path]:
    """Lets Path.read_bytes fail so many times; returns the list of its calls."""
    calls: list[Path] = []
    real = Path.read_bytes

    def read(path: Path) -> bytes:
        calls.append(path)
        if len(calls) <= times:
            raise error
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    return calls


def test_permission_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg").write_bytes(b"content")
    calls = failing(monkeypatch, PermissionError(13, "Permission denied"), times=9)  # root may read anything
    with pytest.raises(ImageError, match=r"a\.jpg: this user may not read it"):
        read_bytes(str(tmp_path / "a.jpg"))
    assert len(calls) == 1


def test_passing_faults_are_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg").write_bytes(b"content")
    calls = failing(monkeypatch, OSError(5, "Input/output error"), times=2)
    assert read_bytes(str(tmp_path / "a.jpg")) == b"content"
    assert len(calls) == 3


def test_lasting_faults_are_transient_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg").write_bytes(b"content")
    calls = failing(monkeypatch, OSError(5, "Input/output error"), times=9)
    with pytest.raises(TransientError, match=r"a\.jpg: reading failed: .*Input/output error"):
        read_bytes(str(tmp_path / "a.jpg"))
    assert len(calls) == 3


def test_urls(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe_file("/images/a.b.jpg", b"content")
    assert read_bytes("memory://images/a.b.jpg") == b"content"
    with pytest.raises(ImageError, match=r"memory://images/none\.jpg: is gone"):
        read_bytes("memory://images/none.jpg")
    with pytest.raises(ConfigError, match="nosuch"):
        read_bytes("nosuch://bucket/a.jpg")
    (tmp_path / "a.jpg").write_bytes(b"local")
    assert read_bytes(f"file://{tmp_path}/a.jpg") == b"local"
