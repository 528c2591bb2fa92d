"""Latent diffusion in Stable Diffusion v1's parts, trained on pictures and their captions of the web."""

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from sare_core.miniature.fitting import Part
from sare_core.miniature.latent import SCHEDULER
from sare_core.scale_model.contrast import photographed, tokenise
from sare_core.scale_model.scenes import Scenes
from sare_core.scale_model.training import fit

NO_CAPTION = 0.1  # share of the pictures that are shown without their caption, for guidance
BATCH = 32


def train_unet(
    folder: Path,
    unet: Any,
    vae: Any,
    text_encoder: Any,
    scenes: Scenes,
    captions: Sequence[str],
    steps: int,
    seed: int,
    rate: float = 1e-3,
) -> Any:
    """Train `unet` to predict the noise in latents of photographs, one caption each; or go on where `folder` stands."""
    encoded = cache(lambda: encode_scenes(vae, scenes.pixels, seed))  # a finished training does not need it
    texts = {text: number for number, text in enumerate(["", *sorted(set(captions))])}
    with torch.no_grad():
        states = text_encoder(tokenise(list(texts))).last_hidden_state
    caption_of = torch.tensor([texts[text] for text in captions])
    scheduler = DDIMScheduler.from_config(SCHEDULER)

    def losses(step: int, rng: np.random.Generator) -> Iterator[tuple[str, Tensor]]:
        chosen = torch.from_numpy(rng.integers(0, len(scenes), BATCH))
        said = caption_of[chosen].masked_fill(torch.from_numpy(rng.random(BATCH) < NO_CAPTION), 0)
        means, deviations = (part[chosen] for part in encoded())
        latents = means + deviations * torch.randn_like(means)
        noise, t = torch.randn_like(latents), torch.randint(0, 1000, (BATCH,))
        predicted = unet(scheduler.add_noise(latents, noise, t), t, states[said]).sample
        yield "unet", (predicted - noise).square().mean()

    fit(folder, {"unet": Part(unet, rate, ema=0.998)}, steps, losses, seed, warmup=100)
    return unet


@torch.no_grad()
def encode_scenes(vae: Any, pixels: np.ndarray, seed: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the latents of photographs of scenes, (n, 4, 8, 8) each, scaled to unit size."""
    parts = []
    with torch.random.fork_rng(devices=[]):  # or the step that asks for them would go on with other numbers
        torch.manual_seed(seed)
        for batch in torch.from_numpy(pixels).unsqueeze(1).split(500):
            posterior = vae.encode(photographed(batch).expand(-1, 3, -1, -1) * 2 - 1).latent_dist
            parts.append(torch.stack([posterior.mean, posterior.std]) * vae.config.scaling_factor)
    means, deviations = torch.cat(parts, dim=1)
    return means, deviations
