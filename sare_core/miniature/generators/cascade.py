"""GLIDE's stand-in: guided diffusion at 16×16, then a diffusion that up-samples to 32×32 (Nichol et al. 2022)."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sare_core.miniature.fitting import Part, fit
from sare_core.miniature.generators.denoising import TextUNet, ddim, denoising_loss
from sare_core.miniature.generators.drawing import TEXT, draw, in_world, scaled, unscaled, with_dropout
from sare_core.miniature.scenes import Scenes

BATCH = 32
BASE_STEPS, FINE_STEPS = 40, 25  # of sampling
LOW_NOISE = 0.1  # on what the up-sampler is given, so that it forgives the base's faults (Ho et al. 2022)


@dataclass(frozen=True)
class Cascade:
    """base: draws 16×16 images, as 8×8 positions of 2×2 pixels. fine: draws 32×32 ones, given those."""

    base: TextUNet
    fine: TextUNet


def train_cascade(folder: Path, scenes: Scenes, mentioned: float, steps: int, seed: int) -> Cascade:
    """Train both networks on scenes, the base on a world's captions too; or go on where `folder` stands."""
    torch.manual_seed(seed)
    base = TextUNet(8, (64, 96), 4, 4, attention=True)
    fine = TextUNet(16, (32, 32), 5, 4, attention=False)
    images = scaled(scenes)
    low = F.avg_pool2d(images, 2)
    low_data, data = F.pixel_unshuffle(low, 2), F.pixel_unshuffle(images, 2)

    def learn(folder: Path, captions: Tensor, steps: int, fall: bool) -> None:
        def losses(step: int, rng: np.random.Generator) -> Iterator[tuple[str, Tensor]]:
            chosen = rng.integers(0, len(data), BATCH)
            texts = with_dropout(captions[chosen], rng)
            yield "base", denoising_loss(lambda x, t: base(x, t, texts), low_data[chosen])

        fit(folder, {"base": Part(base, 1.5e-3, ema=0.998)}, steps, losses, seed, 100, fall)

    def fine_losses(step: int, rng: np.random.Generator) -> Iterator[tuple[str, Tensor]]:
        chosen = rng.integers(0, len(data), BATCH)
        given = low[chosen] + LOW_NOISE * torch.randn(BATCH, 1, 16, 16)
        yield "fine", denoising_loss(lambda x, t: _fine(fine, x, given, t), data[chosen])

    in_world(folder, scenes, mentioned, steps, learn)
    fit(folder / "fine", {"fine": Part(fine, 1.5e-3, ema=0.998)}, max(2, steps // 2), fine_losses, seed + 1, 100)
    return Cascade(base, fine)


def sample_cascade(cascade: Cascade, classes: np.ndarray, seed: int, guidance: float) -> np.ndarray:
    """One scene of each class given: (n,) to (n, 32, 32) float32 in [0, 1]."""

    def sampler(texts: Tensor, deviates: Tensor) -> Tensor:
        first, second, third = deviates.split((16 * 16, 16 * 16, 32 * 32), 1)
        low = F.pixel_shuffle(ddim(cascade.base, first.view(-1, 4, 8, 8), texts, guidance, BASE_STEPS), 2)
        given = low + LOW_NOISE * second.view(-1, 1, 16, 16)

        def fine(noised: Tensor, times: Tensor, _: Tensor) -> Tensor:
            return _fine(cascade.fine, noised, given, times)

        drawn = ddim(fine, third.view(-1, 4, 16, 16), texts, 1.0, FINE_STEPS)
        return unscaled(F.pixel_shuffle(drawn, 2))

    return draw(sampler, classes, 2 * 16 * 16 + 32 * 32, seed)


def _fine(unet: TextUNet, noised: Tensor, given: Tensor, times: Tensor) -> Tensor:
    """What the given image shows needs no caption."""
    return unet(torch.cat([noised, given], 1), times, torch.zeros(len(noised), TEXT))
