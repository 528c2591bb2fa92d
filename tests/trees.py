"""Small trees in the layouts of the public data sets, with their true folder and file names, and real image files.

Photographs are JPEGs of many sizes, generated images square PNGs, as in the data sets themselves. The same call makes
the same files.
"""

import os
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

# Canonical name: outer folder, inner folder, name of fake number n of class c, side in pixels (scaled down).
GENIMAGE = {
    "midjourney": ("Midjourney", "imagenet_midjourney", "{c}_midjourney_{n}.png", 96),
    "sdv1.4": ("stable_diffusion_v_1_4", "imagenet_ai_0419_sdv4", "{c:03}_sdv4_{n:05}.png", 80),
    "sdv1.5": ("stable_diffusion_v_1_5", "imagenet_ai_0424_sdv5", "{c:03}_sdv5_{n:05}.png", 80),
    "adm": ("ADM", "imagenet_ai_0508_adm", "{c}_adm_{n}.PNG", 64),
    "glide": ("glide", "imagenet_glide", "GLIDE_1000_200_{h:02}_{c:03}_glide_{n:05}.png", 64),
    "wukong": ("wukong", "imagenet_ai_0424_wukong", "{c}_wukong_image{n}.png", 80),
    "vqdm": ("VQDM", "imagenet_ai_0419_vqdm", "VQDM_1000_200_{h:02}_{c:03}_vqdm_{n:05}.png", 64),
    "biggan": ("BigGAN", "imagenet_ai_0419_biggan", "{c:03}_biggan_{n:05}.png", 48),
}
# Folder: its classes, if it has that level.
FORENSYNTHS: dict[str, tuple[str, ...]] = {
    "progan": ("airplane", "cat", "train"),
    "stylegan": ("bedroom", "cat"),
    "stylegan2": ("car", "church"),
    "cyclegan": ("horse", "winter"),
    **dict.fromkeys(("biggan", "stargan", "gaugan", "crn", "imle", "seeingdark", "san"), ()),
    **dict.fromkeys(("deepfake", "whichfaceisreal"), ()),
}
_WNIDS = ("n01440764", "n02123045", "n02504458", "n03126707")


def genimage_tree(root: Path, per_cell: int = 4, seed: int = 0, subsets: Iterable[str] = tuple(GENIMAGE)) -> Path:
    """`<outer>/<inner>/{train,val}/{ai,nature}`, with `per_cell` images in each class folder."""
    rng = np.random.default_rng(seed)
    for subset in subsets:
        outer, inner, fake, side = GENIMAGE[subset]
        for split in ("train", "val"):
            for n in range(per_cell):
                c = int(rng.integers(1000))
                number = int(rng.integers(50_000)) + 50_000 * n
                real = f"{_WNIDS[n % 4]}_{number}.JPEG" if split == "train" else f"ILSVRC2012_val_{number:08}.JPEG"
                photograph(root / outer / inner / split / "nature" / real, rng)
                generated(root / outer / inner / split / "ai" / fake.format(c=c, h=c // 100, n=n), rng, side)
    return root


def forensynths_tree(root: Path, per_cell: int = 2, seed: int = 0, folders: Iterable[str] = tuple(FORENSYNTHS)) -> Path:
    """`<name>/[<class>/]{0_real,1_fake}`, PNG but for whichfaceisreal; crn and imle share their reals."""
    rng = np.random.default_rng(seed)
    for name in folders:
        for place in [root / name / kind for kind in FORENSYNTHS[name]] or [root / name]:
            for n in range(per_cell):
                if name == "whichfaceisreal":
                    photograph(place / "0_real" / f"{36109 + n}.jpeg", rng)
                    photograph(place / "1_fake" / f"image-2019-02-17_03365{n}.jpeg", rng)
                    continue
                shared = np.random.default_rng(n) if name in ("crn", "imle") else rng
                generated(place / "0_real" / f"{n:05}.png", shared, 64)
                generated(place / "1_fake" / f"{name} sample {n:05}.png", rng, 64)
    return root


def photograph(path: Path, rng: np.random.Generator) -> None:
    """A JPEG of quality 96 with sides of 48 to 96 pixels."""
    width, height = rng.integers(48, 97, 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(_pixels(rng, int(width), int(height))).save(path, "JPEG", quality=96)


def generated(path: Path, rng: np.random.Generator, side: int = 64) -> None:
    """A square PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(_pixels(rng, side, side)).save(path, "PNG")


def nasty_files(folder: Path, seed: int = 7) -> dict[str, str]:
    """Files as the world has them, each with pixels of its own: name to "ok" or "error", as an index must find them."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    before = {path.name for path in folder.iterdir()}

    def image() -> Image.Image:
        return Image.fromarray(_pixels(rng, 64, 48))

    image().convert("CMYK").save(folder / "cmyk.jpg")
    image().quantize(16).save(folder / "palette.png")
    Image.fromarray(rng.integers(0, 65536, (48, 64)).astype(np.uint16)).save(folder / "sixteen-bit.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    image().save(folder / "rotated.jpg", exif=exif)
    image().save(folder / "wrong-extension.png", "JPEG")
    image().save(folder / "no-extension", "PNG")
    image().save(folder / "two.dots.jpg")
    image().save(folder / "UPPER.PNG")
    image().save(folder / "été 写真.webp")
    good = {path.name for path in folder.iterdir()} - before

    image().save(folder / "truncated.jpg")
    data = (folder / "truncated.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(data[: len(data) * 2 // 3])
    (folder / "zero-bytes.png").touch()
    (folder / "bomb.png").write_bytes(_png_header(60_000, 60_000))
    (folder / "text.jpg").write_text("not an image")
    (folder / "dangling.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(folder / "pipe.jpg")
    bad = {path.name for path in folder.iterdir()} - before - good
    return dict.fromkeys(sorted(good), "ok") | dict.fromkeys(sorted(bad), "error")


def _pixels(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Smooth blobs with some grain, uint8 (height, width, 3): compresses like a photograph, never twice the same."""
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return (smooth + rng.integers(-8, 9, smooth.shape)).clip(0, 255).astype(np.uint8)


def _png_header(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
