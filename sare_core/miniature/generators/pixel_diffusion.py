"""ADM's stand-in: class-conditional diffusion of pixels (Dhariwal & Nichol 2021), guided without a classifier.

The U-Net works on 16×16 positions of 2×2 pixels each, which costs a quarter and loses nothing.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sare_core.miniature.fitting import Part, fit
from sare_core.miniature.generators.denoising import TextUNet, ddim, denoising_loss
from sare_core.miniature.generators.drawing import draw, in_world, scaled, unscaled, with_dropout
from sare_core.miniature.scenes import Scenes

SAMPLING_STEPS = 40


def train_pixel_diffusion(folder: Path, scenes: Scenes, mentioned: float, steps: int, seed: int) -> TextUNet:
    """Train on scenes and a world's captions, or go on where `folder` stands."""
    torch.manual_seed(seed)
    unet = TextUNet(16, (32, 64, 96), 4, 4, attention=True)
    data = F.pixel_unshuffle(scaled(scenes), 2)

    def learn(folder: Path, captions: Tensor, steps: int, fall: bool) -> None:
        def losses(step: int, rng: np.random.Generator) -> Iterator[tuple[str, Tensor]]:
            chosen = rng.integers(0, len(data), 32)
            texts = with_dropout(captions[chosen], rng)
            yield "unet", denoising_loss(lambda x, t: unet(x, t, texts), data[chosen])

        fit(folder, {"unet": Part(unet, 1.5e-3, ema=0.998)}, steps, losses, seed, 100, fall)

    in_world(folder, scenes, mentioned, steps, learn)
    return unet


def sample_pixel_diffusion(unet: TextUNet, classes: np.ndarray, seed: int, guidance: float) -> np.ndarray:
    """One scene of each class given: (n,) to (n, 32, 32) float32 in [0, 1]."""

    def sampler(texts: Tensor, deviates: Tensor) -> Tensor:
        drawn = ddim(unet, deviates.view(-1, 4, 16, 16), texts, guidance, SAMPLING_STEPS)
        return unscaled(F.pixel_shuffle(drawn, 2))

    return draw(sampler, classes, 32 * 32, seed)
