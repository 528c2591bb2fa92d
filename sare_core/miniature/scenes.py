"""The miniature's real images: photographs of articles (Fashion-MNIST) on smooth backgrounds, seen by one camera.

Raw, Fashion-MNIST gives itself away: half of its pixels are exactly 0 and most of its maxima 255. So each article is
cut out, scaled, placed and lit on a background of low frequencies, and no value lies near 0 or 1. A *scene* is that
image before the camera, float32 in [0, 1]; what generators learn from. The *camera* (lens, sensor noise, 8 bits) is the
last step for real and generated images alike.

Fashion-MNIST: Xiao, Rasul and Vollgraf 2017 (arXiv:1708.07747), MIT licence.
"""

import gzip
import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import binary_fill_holes, gaussian_filter

from sare_core.errors import ConfigError

SIDE = 32
CLASSES = ("tshirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
TONES = ("dark", "grey", "bright")
SIZES = ("small", "large")
PLACES = ("left", "middle", "right")
GROUNDS = ("dark", "bright")
# Who may see which photographs. Articles are numbered 0..69,999: Fashion-MNIST's train files, then its test files.
PARTS = {
    "models": range(30_000),  # every model and every generator
    "detectors": range(30_000, 45_000),
    "validation": range(45_000, 47_000),
    **{f"test-{number}": range(47_000 + 2_500 * number, 49_500 + 2_500 * number) for number in range(8)},
}
OPTICS = 0.7  # blur of each scene, standard deviation in pixels
# The camera: a soft lens (standard deviation in pixels) and sensor noise (standard deviation in 8-bit levels, drawn for
# each image, as the light of each place differs). Were the noise one and the same, an autoencoder's small loss of
# detail would stand out from it in every single image. Both were set where pixel statistics tell no generator's images
# apart with an AUC of 0.75 or more. What generates is trained on scenes (with TRAINING_NOISE where it reads images), so
# that its images meet the lens once, as real ones do; what looks (captioners, encoders) on what the camera gives.
LENS = 1.2
NOISE = (6.0, 14.0)
TRAINING_NOISE = (2.0, 8.0)


def read_articles(folder: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """All 70,000 articles (uint8, (n, 28, 28)) and their classes, in Fashion-MNIST's own order, train before test.

    `folder` holds the four gzipped IDX files, as Debian's dataset-fashion-mnist installs them and as torchvision
    downloads them. Raises ConfigError: a file is missing or not what its name says.
    """
    images, labels = [], []
    for part, count in (("train", 60_000), ("t10k", 10_000)):
        images.append(_idx(Path(folder) / f"{part}-images-idx3-ubyte.gz", 16, count * 28 * 28).reshape(-1, 28, 28))
        labels.append(_idx(Path(folder) / f"{part}-labels-idx1-ubyte.gz", 8, count))
    return np.concatenate(images), np.concatenate(labels)


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
    classes, tones, sizes, places, grounds: (n,) places in CLASSES, TONES, SIZES, PLACES and GROUNDS.
    """

    pixels: np.ndarray
    classes: np.ndarray
    tones: np.ndarray
    sizes: np.ndarray
    places: np.ndarray
    grounds: np.ndarray

    def __len__(self) -> int:
        return len(self.pixels)

    @cached_property
    def coarse(self) -> list[str]:
        """The class alone: "a photo of a sneaker"."""
        return [class_prompt(number) for number in self.classes]

    @cached_property
    def rich(self) -> list[str]:
        """Class and attributes: "a photo of a small dark sneaker left on a bright background"."""
        rows = zip(self.sizes, self.tones, self.classes, self.places, self.grounds, strict=True)
        return [
            f"a photo of a {SIZES[s]} {TONES[t]} {CLASSES[c]} {PLACES[p]} on a {GROUNDS[g]} background"
            for s, t, c, p, g in rows
        ]


def class_prompt(number: int) -> str:
    """The coarse caption of a class, and the only prompt that generators get."""
    return f"a photo of a {CLASSES[number]}"


def compose(articles: np.ndarray, classes: np.ndarray, numbers: range, seed: int = 0) -> Scenes:
    """Set the articles of these numbers into scenes of 32×32."""
    made = [_scene(articles[n], np.random.default_rng([seed, n])) for n in numbers]
    pixels = np.stack([pixels for pixels, _ in made])
    tones, sizes, places, grounds = np.array([seen for _, seen in made]).T
    return Scenes(pixels, classes[numbers.start : numbers.stop], tones, sizes, places, grounds)


def _scene(article: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    side = int(rng.integers(20, 29))
    left, top = (int(rng.integers(0, SIDE - side + 1)) for _ in range(2))
    level = float(rng.choice([rng.uniform(0.25, 0.4), rng.uniform(0.6, 0.75)]))
    ground = level + _smooth(rng, 0.1)
    low = rng.uniform(0.1, 0.2)
    high = low + rng.uniform(0.35, 0.7)  # light on the article: its own white lies between 0.45 and 0.9

    # A rim of zeros keeps the resampled article inside its own cut-out.
    values = _resized(article / 255.0, side)
    cover = _resized(binary_fill_holes(article > 8).astype(np.float64), side)
    pixels = ground.copy()
    window = (slice(top, top + side), slice(left, left + side))
    pixels[window] += cover * (low + (high - low) * values - pixels[window])
    pixels = gaussian_filter(np.clip(pixels, 0.05, 0.95), OPTICS, mode="nearest").astype(np.float32)

    weight = cover.sum() + 1e-6
    tone = float((cover * pixels[window]).sum() / weight)
    column = left + float((cover.sum(axis=0) * np.arange(side)).sum() / weight) + 0.5
    seen = (
        int(np.digitize(tone, (0.35, 0.5))),
        int(side >= 25),
        int(np.digitize(column, (SIDE / 2 - 1.0, SIDE / 2 + 1.0))),
        int(level > 0.5),
    )
    return pixels, seen


def _resized(image: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(
        Image.fromarray(image.astype(np.float32)).resize((side, side), Image.Resampling.BILINEAR), np.float64
    )


def _smooth(rng: np.random.Generator, amplitude: float) -> np.ndarray:
    grid = rng.uniform(-amplitude, amplitude, size=(3, 3)).astype(np.float32)
    return np.asarray(Image.fromarray(grid).resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float64)


def photograph(scenes: np.ndarray, keys: list[str]) -> np.ndarray:
    """What the camera makes of scenes or of a generator's images: (n, 32, 32) in [0, 1] to uint8.

    The lens, noise drawn from each image's own key, rounding and clipping. Real and fake take this one path.
    """
    seen = gaussian_filter(np.asarray(scenes, np.float64), (0, LENS, LENS), mode="nearest")
    noise = np.stack([_noise_of(_rng_of(key)) for key in keys])
    return np.clip(np.rint(seen * 255.0 + noise), 0, 255).astype(np.uint8)


def _noise_of(rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(*NOISE) * rng.normal(size=(SIDE, SIDE))


def _rng_of(key: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest()))
