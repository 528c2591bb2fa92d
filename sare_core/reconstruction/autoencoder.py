"""The autoencoder alone: x̂ = D(E(x)), without noise, caption or U-Net. What every other method's error starts from."""

from typing import ClassVar

import torch

from sare_core.reconstruction.stable_diffusion import StableDiffusion


class Autoencoder(StableDiffusion):
    """Leaves the latents as they are."""

    denoises: ClassVar[bool] = False

    def change(self, latents: torch.Tensor, captions: list[str], generators: list[torch.Generator]) -> torch.Tensor:
        return latents
