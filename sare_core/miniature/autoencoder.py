"""AutoencoderKL of the miniature: 32×32 pixels to latents of 8×8, trained against blur."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional as F

from sare_core.miniature.fitting import Part, fit
from sare_core.miniature.scenes import TRAINING_NOISE

KL_WEIGHT = 1e-7  # on the sum over latents: ten times more and sampled latents lose the texture
GRADIENT_WEIGHT = 1.0  # on differences of neighbours: L1 on pixels alone forgives a soft edge
CRITIC_WEIGHT = 0.05
CRITIC_FROM = 0.25  # of the run: the critic joins when shapes stand


class PatchCritic(nn.Module):
    """A patch discriminator (Isola et al. 2017): logits of overlapping windows, in which blur shows."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, width, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, 2, 1),
            nn.GroupNorm(8, 2 * width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 1, 3, 1, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


def train_autoencoder(folder: Path, pixels: np.ndarray, channels: tuple[int, int, int], steps: int, seed: int) -> Any:
    """Train on scenes ((n, 32, 32) in [0, 1]), or go on where `folder` stands.

    Input: the scene with up to the camera's noise; target: the scene. Its `scaling_factor` makes latents of unit size.
    """
    torch.manual_seed(seed)
    vae: Any = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=channels,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=32,
    )
    critic = PatchCritic()
    parts = {
        "vae": Part(vae, 2e-3, betas=(0.5, 0.9), weight_decay=0.0, ema=0.99),
        "critic": Part(critic, 5e-4, betas=(0.5, 0.9), weight_decay=0.0),
    }
    data = torch.from_numpy(pixels).unsqueeze(1) * 2 - 1

    def losses(step: int, rng: np.random.Generator) -> Iterator[tuple[str, Tensor]]:
        real = data[rng.integers(0, len(data), 64)]
        sigma = torch.rand(len(real), 1, 1, 1) * TRAINING_NOISE[1] / 127.5
        posterior = vae.encode((real + sigma * torch.randn_like(real)).expand(-1, 3, -1, -1)).latent_dist
        decoded = vae.decode(posterior.sample()).sample
        gray = decoded.mean(dim=1, keepdim=True)
        loss = (decoded - real).abs().mean() + KL_WEIGHT * posterior.kl().mean()
        loss = loss + GRADIENT_WEIGHT * sum((_slope(gray, d) - _slope(real, d)).abs().mean() for d in (2, 3))
        adversarial = step >= CRITIC_FROM * steps
        if adversarial:
            loss = loss - CRITIC_WEIGHT * critic(gray).mean()
        yield "vae", loss
        if adversarial:
            yield "critic", F.relu(1 - critic(real)).mean() + F.relu(1 + critic(gray.detach())).mean()

    fit(folder, parts, steps, losses, seed)
    with torch.no_grad():
        latents = vae.encode(data[:2000].expand(-1, 3, -1, -1)).latent_dist.mean
    vae.register_to_config(scaling_factor=1 / float(latents.std()))
    return vae


def _slope(images: Tensor, dim: int) -> Tensor:
    return images.diff(dim=dim)
