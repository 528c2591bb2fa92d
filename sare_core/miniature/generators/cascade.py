"""GLIDE's stand-in: guided diffusion at 16×16, then a diffusion that up-samples to 32×32 (Nichol et al. 2022)."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sare_core.miniature.fitting import Part, fit
from sare_core.miniature.generators.denoising import class_unet, ddim, denoising_loss
from sare_core.miniature.generators.drawing import draw, guided, labels, scaled, unscaled, with_dropout
from sare_core.miniature.scenes import Scenes

GUIDANCE = 1.5
BASE_STEPS, FINE_STEPS = 40, 25  # of sampling
LOW_NOISE = 0.1  # on what the up-sampler is given, so that it forgives the base's faults (Ho et al. 2022)


@dataclass(frozen=True)
class Cascade:
    """base: draws 16×16 images, as 8×8 positions of 2×2 pixels. fine: draws 32×32 ones, given those."""

    base: Any
    fine: Any


def train_cascade(folder: Path, scenes: Scenes, steps: int, seed: int) -> Cascade:
    """Train both networks on scenes, `steps` each, or go on where `folder` stands."""
    torch.manual_seed(seed)
    base = class_unet(8, (64, 96), 4, 4, attention=True)
    fine = class_unet(16, (32, 32), 5, 4, attention=False)
    images = scaled(scenes)
    low = F.avg_pool2d(images, 2)
    low_data, data = F.pixel_unshuffle(low, 2), F.pixel_unshuffle(images, 2)

    def base_losses(step: int, rng: np.random.Generator) -> Iterator[tuple[str, Tensor]]:
        chosen = rng.integers(0, len(data), 64)
        classes = with_dropout(scenes.classes[chosen], rng)
        yield "base", denoising_loss(lambda x, t: base(x, 1000 * t, classes).sample, low_data[chosen])

    def fine_losses(step: int, rng: np.random.Generator) -> Iterator[tuple[str, Tensor]]:
        chosen = rng.integers(0, len(data), 48)
        classes = labels(scenes.classes[chosen])
        given = low[chosen] + LOW_NOISE * torch.randn(len(chosen), 1, 16, 16)
        yield "fine", denoising_loss(lambda x, t: _fine(fine, x, given, t, classes), data[chosen])

    fit(folder / "base", {"base": Part(base, 2e-3, ema=0.995)}, steps, base_losses, seed)
    fit(folder / "fine", {"fine": Part(fine, 2e-3, ema=0.995)}, steps, fine_losses, seed + 1)
    return Cascade(base, fine)


def sample_cascade(cascade: Cascade, classes: np.ndarray, seed: int) -> np.ndarray:
    """One scene of each class given: (n,) to (n, 32, 32) float32 in [0, 1]."""

    def sampler(classes: Tensor, deviates: Tensor) -> Tensor:
        first, second, third = deviates.split((16 * 16, 16 * 16, 32 * 32), 1)

        def base(x: Tensor, t: Tensor) -> Tensor:
            return guided(lambda c: cascade.base(x.repeat(2, 1, 1, 1), 1000 * t.repeat(2), c).sample, classes, GUIDANCE)

        low = F.pixel_shuffle(ddim(base, first.view(-1, 4, 8, 8), BASE_STEPS), 2)
        given = low + LOW_NOISE * second.view(-1, 1, 16, 16)
        drawn = ddim(lambda x, t: _fine(cascade.fine, x, given, t, classes), third.view(-1, 4, 16, 16), FINE_STEPS)
        return unscaled(F.pixel_shuffle(drawn, 2))

    return draw(sampler, classes, 2 * 16 * 16 + 32 * 32, seed)


def _fine(unet: Any, noised: Tensor, given: Tensor, times: Tensor, classes: Tensor) -> Tensor:
    return unet(torch.cat([noised, given], 1), 1000 * times, classes).sample
