"""AutoencoderKL of the scale model: 32×32 pixels to latents of 8×8."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from sare_core.miniature.contrast import mirrored, photographed
from sare_core.miniature.fitting import Part, fit
from sare_core.miniature.scenes import Scenes

KL_WEIGHT = 1e-6  # on the sum over latents


def train_autoencoder(
    folder: Path, scenes: Scenes, channels: tuple[int, int, int], latents: int, steps: int, seed: int
) -> Any:
    """Train on photographs, to give back the scene without the camera's noise; or go on where `folder` stands.

    The loss is L1 of pixels and of the differences of neighbours, since the first alone forgives a soft edge. Its
    `scaling_factor` makes latents of unit size.
    """
    torch.manual_seed(seed)
    vae: Any = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=channels,
        layers_per_block=1,
        latent_channels=latents,
        norm_num_groups=8,
        sample_size=32,
        mid_block_add_attention=False,  # costs as much as all the rest, and adds nothing at 8×8
    )
    vae = vae.to(memory_format=torch.channels_last)
    data = torch.from_numpy(scenes.pixels).unsqueeze(1) * 2 - 1

    def losses(step: int, rng: np.random.Generator) -> Iterator[tuple[str, Tensor]]:
        real = mirrored(data[rng.integers(0, len(data), 16)], rng)
        seen = (photographed(real / 2 + 0.5) * 2 - 1).expand(-1, 3, -1, -1)
        posterior = vae.encode(seen.contiguous(memory_format=torch.channels_last)).latent_dist
        decoded = vae.decode(posterior.sample()).sample
        gray = decoded.mean(dim=1, keepdim=True)
        loss = (decoded - real).abs().mean() + KL_WEIGHT * posterior.kl().mean()
        yield "vae", loss + sum((gray.diff(dim=d) - real.diff(dim=d)).abs().mean() for d in (2, 3))

    fit(folder, {"vae": Part(vae, 1.5e-3, weight_decay=0.0, ema=0.997)}, steps, losses, seed)
    with torch.no_grad():
        encoded: Any = vae.encode(data[:2000].expand(-1, 3, -1, -1)).latent_dist.mean
    vae.register_to_config(scaling_factor=1 / float(encoded.std()))
    return vae
