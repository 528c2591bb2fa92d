"""ADM's stand-in: class-conditional diffusion of pixels (Dhariwal & Nichol 2021), guided without a classifier.

The U-Net works on 16×16 positions of 2×2 pixels each, which costs a quarter and loses nothing.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sare_core.miniature.fitting import Part, fit
from sare_core.miniature.generators.denoising import class_unet, ddim, denoising_loss
from sare_core.miniature.generators.drawing import draw, guided, scaled, unscaled, with_dropout
from sare_core.miniature.scenes import Scenes

GUIDANCE = 1.5
SAMPLING_STEPS = 40


def train_pixel_diffusion(folder: Path, scenes: Scenes, steps: int, seed: int) -> Any:
    """Train on scenes, or go on where `folder` stands."""
    torch.manual_seed(seed)
    unet = class_unet(16, (32, 64, 128), 4, 4, attention=True)
    data = F.pixel_unshuffle(scaled(scenes), 2)

    def losses(step: int, rng: np.random.Generator) -> Iterator[tuple[str, Tensor]]:
        chosen = rng.integers(0, len(data), 32)
        classes = with_dropout(scenes.classes[chosen], rng)
        yield "unet", denoising_loss(lambda x, t: unet(x, 1000 * t, classes).sample, data[chosen])

    fit(folder, {"unet": Part(unet, 1.5e-3, ema=0.997)}, steps, losses, seed)
    return unet


def sample_pixel_diffusion(unet: Any, classes: np.ndarray, seed: int) -> np.ndarray:
    """One scene of each class given: (n,) to (n, 32, 32) float32 in [0, 1]."""

    def sampler(classes: Tensor, deviates: Tensor) -> Tensor:
        def predict(x: Tensor, t: Tensor) -> Tensor:
            return guided(lambda c: unet(x.repeat(2, 1, 1, 1), 1000 * t.repeat(2), c).sample, classes, GUIDANCE)

        return unscaled(F.pixel_shuffle(ddim(predict, deviates.view(-1, 4, 16, 16), SAMPLING_STEPS), 2))

    return draw(sampler, classes, 32 * 32, seed)
