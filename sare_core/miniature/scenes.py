"""The scale model's photographs: an article of clothing on a shaded ground, with up to four small things around it.

A *scene* is the image before the camera, float32 in [0, 1]: what generators learn from. The *camera* (sensor noise, 8
bits) is the last step for real and generated images alike. A scene's main article is what its caption always names; the
*extras* are what a caption on the web may or may not mention (`corpus.py`).

Articles are silhouettes of Fashion-MNIST, their outlines and their light and shade smoothed: small generators draw such
a picture sharply. Fashion-MNIST: Xiao, Rasul and Vollgraf 2017 (arXiv:1708.07747), MIT licence.
"""

import gzip
import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import binary_fill_holes, gaussian_filter

from sare_core.errors import ConfigError

SIDE = 32
# The classes of Fashion-MNIST whose outlines tell them apart, by their number there. (Pullover, coat, shirt and dress
# look like a T-shirt at this size; sandals are too fine.)
ARTICLES = {0: "shirt", 1: "trousers", 7: "sneaker", 8: "bag", 9: "boot"}
CLASSES = tuple(ARTICLES.values())
EXTRAS = ("ball", "box", "ring", "cone")
EXTRA_SHARE = 0.4  # how often each of them is there: 1.6 a photograph
# Who may see which photographs. The 35,000 articles of these classes are numbered in Fashion-MNIST's order.
PARTS = {
    "models": range(18_000),  # every model and every generator
    "detectors": range(18_000, 24_000),
    "validation": range(24_000, 27_000),
    **{f"test-{number}": range(27_000 + 1_000 * number, 28_000 + 1_000 * number) for number in range(8)},
}
NOISE = (2.0, 4.0)  # of the camera: standard deviation in 8-bit levels, drawn for each image
# Blur of an article's light and shade, and of its outline before it is cut, standard deviations in pixels of 28: with
# more detail small models blur it, and photographs are told by that.
SHADE, OUTLINE = 2.5, 1.3
FINE = 4  # outlines are drawn on a grid this many times as fine, and averaged: all edges are smooth


def read_articles(folder: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """The 35,000 articles of ARTICLES (uint8, (n, 28, 28)) and their places in CLASSES, in Fashion-MNIST's own order,
    train before test.

    `folder` holds the four gzipped IDX files, as Debian's dataset-fashion-mnist installs them and as torchvision
    downloads them. Raises ConfigError: a file is missing or not what its name says.
    """
    images, labels = [], []
    for part, count in (("train", 60_000), ("t10k", 10_000)):
        images.append(_idx(Path(folder) / f"{part}-images-idx3-ubyte.gz", 16, count * 28 * 28).reshape(-1, 28, 28))
        labels.append(_idx(Path(folder) / f"{part}-labels-idx1-ubyte.gz", 8, count))
    places = np.full(10, -1)
    places[list(ARTICLES)] = range(len(ARTICLES))
    classes = places[np.concatenate(labels)]
    return np.concatenate(images)[classes >= 0], classes[classes >= 0]


def _idx(path: Path, header: int, size: int) -> np.ndarray:
    if not path.is_file():
        raise ConfigError(
            f"{path}: not there. Fashion-MNIST comes with Debian's package dataset-fashion-mnist, or by "
            "torchvision.datasets.FashionMNIST(folder, download=True); name its folder of .gz files."
        )
    values = np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header)
    if values.size != size:
        raise ConfigError(f"{path}: holds {values.size} values instead of {size}; fetch it anew.")
    return values


@dataclass(frozen=True)
class Scenes:
    """Scenes and what is to be seen in them. Scene n depends on (seed, n) alone.

    pixels: (n, 32, 32) float32 in [0, 1], before the camera.
    classes: (n,) places in CLASSES. extras: (n, 4) bool, which of EXTRAS are there.
    """

    pixels: np.ndarray
    classes: np.ndarray
    extras: np.ndarray

    def __len__(self) -> int:
        return len(self.pixels)


def compose(articles: np.ndarray, classes: np.ndarray, numbers: range, seed: int = 0) -> Scenes:
    """Set the articles of these numbers into scenes of 32×32."""
    made = [_scene(articles[n], np.random.default_rng([seed, n])) for n in numbers]
    pixels, extras = (np.stack(part) for part in zip(*made, strict=True))
    return Scenes(pixels, classes[numbers.start : numbers.stop], extras)


def _scene(article: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    side = int(rng.integers(19, 23))
    left, top = (int(rng.integers((SIDE - side) // 2 - 2, (SIDE - side) // 2 + 3)) for _ in range(2))
    dark = bool(rng.random() < 0.5)
    level = rng.uniform(0.2, 0.35) if dark else rng.uniform(0.65, 0.8)
    towards = 1 if dark else -1  # things stand out from the ground
    across, down = rng.uniform(-0.1, 0.1, 2)
    place = (np.arange(SIDE) + 0.5) / SIDE - 0.5
    pixels = level + across * place + down * place[:, None]

    extras = rng.random(len(EXTRAS)) < EXTRA_SHARE
    for kind, corner in enumerate(rng.permutation(len(EXTRAS))):  # one a corner, behind the article
        radius, tone = rng.uniform(3.2, 4.2), level + towards * rng.uniform(0.25, 0.45)
        x, y = rng.uniform(4.5, 6.5, 2)
        if extras[kind]:
            cover = _cover(kind, SIDE - x if corner % 2 else x, SIDE - y if corner // 2 else y, radius)
            pixels += cover * (tone - pixels)

    light = rng.uniform(0.25, 0.4)
    low = rng.uniform(0.45, 0.55) if dark else rng.uniform(0.05, 0.15)
    whole = binary_fill_holes(article > 40).astype(np.float64)
    shade = gaussian_filter(article / 255.0, SHADE) / np.maximum(gaussian_filter(whole, SHADE), 0.1)
    shade = low + light * _resized(np.minimum(shade, 1), side)
    fine = _resized(gaussian_filter(whole, OUTLINE), side * FINE) > 0.5
    cover = fine.reshape(side, FINE, side, FINE).mean((1, 3))
    window = (slice(top, top + side), slice(left, left + side))
    pixels[window] += cover * (shade - pixels[window])
    return np.clip(pixels, 0.03, 0.97).astype(np.float32), extras


def _cover(kind: int, x: float, y: float, radius: float) -> np.ndarray:
    """How much of each pixel one of EXTRAS covers, (32, 32) in [0, 1]."""
    across, down = _fine_grid()
    across, down = across - x, down - y
    distance = np.hypot(across, down)
    inside = (
        distance < radius,
        np.maximum(abs(across), abs(down)) < 0.85 * radius,
        (distance < radius) & (distance > 0.5 * radius),
        (abs(down) < radius) & (abs(across) < (down + radius) / 2),
    )[kind]
    return inside.reshape(SIDE, FINE, SIDE, FINE).mean((1, 3))


@lru_cache
def _fine_grid() -> tuple[np.ndarray, np.ndarray]:
    place = (np.arange(SIDE * FINE) + 0.5) / FINE
    across, down = np.meshgrid(place, place)
    return across, down


def _resized(image: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(
        Image.fromarray(image.astype(np.float32)).resize((side, side), Image.Resampling.BILINEAR), np.float64
    )


def photograph(scenes: np.ndarray, keys: list[str]) -> np.ndarray:
    """What the camera makes of scenes or of a generator's images: (n, 32, 32) in [0, 1] to uint8.

    Noise drawn from each image's own key, rounding and clipping. Real and fake take this one path.
    """
    noise = np.stack([_noise_of(_rng_of(key)) for key in keys])
    return np.clip(np.rint(np.asarray(scenes, np.float64) * 255.0 + noise), 0, 255).astype(np.uint8)


def _noise_of(rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(*NOISE) * rng.normal(size=(SIDE, SIDE))


def _rng_of(key: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest()))
