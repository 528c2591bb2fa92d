"""Fewer denoising steps, and more draws of the noise: what becomes of x̂, of the map's mean, and of what it tells.

On the demo's training images of sdv1.4, as `sare mini` unpacks them. No detector is trained on them here.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from benchmarks.bars import Row
from sare_core.captioning.blip import load
from sare_core.config import load_settings
from sare_core.reconstruction.mapper import Mapper

# reconstruct.steps, of which strength 0.7 takes 7, 4, 2 and 1; and reconstruct.noise_draws.
CASES = ((10, 1), (6, 1), (4, 1), (2, 1), (6, 4), (4, 4))
IMAGES = Path("data/mini/stable_diffusion_v_1_4/imagenet_ai_0419_sdv4/train")
COUNT = 200  # of each class, the last by name
BATCH = 50


class Made(NamedTuple):
    """By image: x̂ under the caption, the mean error under it, and that less the error without."""

    again: np.ndarray
    error: np.ndarray
    change: np.ndarray


def rows(folder: Path) -> Iterator[Row]:
    torch.set_num_threads(1)
    settings = load_settings("mini")
    paths = [path for kind in ("nature", "ai") for path in sorted((IMAGES / kind).glob("*.png"))[-COUNT:]]
    labels = np.repeat([0, 1], COUNT)
    images = [Image.open(path).convert("RGB") for path in paths]
    captions = list(load(settings.caption, settings.caption.model, "cpu").caption(images, []))
    exact = None
    for steps, draws in CASES:
        config = settings.reconstruct.model_copy(update={"steps": steps, "noise_draws": draws})
        made = _reconstruct(Mapper.load(config, 0, config.model, "cpu"), images, captions)
        exact = exact or made
        moved = np.abs(made.again.astype(int) - exact.again)
        figures = [
            f"x̂ moves by {moved.mean():.1f} levels (99 %: {np.percentile(moved, 99):.0f})",
            f"mean error correlates {np.corrcoef(made.error, exact.error)[0, 1]:.2f}",
            f"AUC {100 * roc_auc_score(labels, -made.error):.1f}, less uncaptioned "
            f"{100 * roc_auc_score(labels, -made.change):.1f}",
        ]
        passes = draws * int(steps * config.strength)
        on = f"{passes} guided passes of the U-Net an image, {COUNT} + {COUNT} images"
        yield Row(f"steps={steps}, noise_draws={draws}", on, "; ".join(figures), "none: it makes another x̂", True)


def _reconstruct(mapper: Mapper, images: list[Image.Image], captions: list[Any]) -> Made:
    pixels, names = [mapper.fit(image) for image in images], [str(number) for number in range(len(images))]
    again, under = [], {"caption": list[float](), "none": list[float]()}
    for start in range(0, len(images), BATCH):
        part = slice(start, start + BATCH)
        for kind, texts in (("caption", captions[part]), ("none", [""] * len(pixels[part]))):
            found: Any = mapper.maps(pixels[part], texts, names[part])
            under[kind] += [float(each.sare.mean()) for each in found]
            again += [each.reconstruction for each in found] if kind == "caption" else []
    error = np.array(under["caption"])
    return Made(np.stack(again), error, error - np.array(under["none"]))
