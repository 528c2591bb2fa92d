"""Caption-guided reconstruction: equations 1 to 3 of the paper (3.2) with diffusers' own models and DDIM scheduler.

Gives what `StableDiffusionImg2ImgPipeline` with `DDIMScheduler` gives for the same generators; unlike it, the guidance
pass is left out where it cannot matter.
"""

from collections.abc import Callable

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor, nn

from sare_core.reconstruction.stable_diffusion import StableDiffusion


class Img2Img(StableDiffusion):
    """Noises the latents to z_T and denoises them under the caption; at strength 0 they stay as they are."""

    def change(self, latents: Tensor, captions: list[str], generators: list[torch.Generator]) -> Tensor:
        settings = self.settings
        if settings.strength == 0:
            return latents
        timesteps = self.steps_from_noise()
        latents, predict = self.noised(latents, timesteps[0], generators), self.guided(captions)
        for step, (t, t_there) in enumerate(zip(timesteps, self.on_device(timesteps), strict=True)):
            unet = self.outer if step % settings.cache_interval else self.unet
            latents = self.scheduler.step(
                predict(unet, latents, t_there),
                t,
                latents,
                eta=settings.eta,
                generator=generators if settings.eta > 0 else None,
            ).prev_sample  # equation 3, as DDIM has it
        return latents

    def noised(self, latents: Tensor, t: int, generators: list[torch.Generator]) -> Tensor:
        """Equation 1: z_T, each image's noise from its own generator."""
        noise = randn_tensor(latents.shape, generator=generators, device=torch.device(self.device), dtype=self.dtype)
        return self.scheduler.add_noise(latents, noise, torch.tensor([t]))

    def guided(self, captions: list[str]) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
        """Equation 2: what a U-Net, given latents and a timestep, predicts of their noise under the captions."""
        w = self.settings.guidance_scale
        # With no caption, or w = 1, equation 2 reduces to one of its terms: its two passes would be one pass twice.
        guided = w != 1 and any(captions)
        condition = self.encode_texts(captions)
        if guided:
            condition = torch.cat([self.encode_texts([""] * len(captions)), condition])

        def predict(unet: nn.Module, latents: Tensor, t: Tensor) -> Tensor:
            rows = torch.cat([latents] * 2) if guided else latents
            epsilon: Tensor = unet(rows, t, encoder_hidden_states=condition, return_dict=False)[0]
            if guided:
                null, captioned = epsilon.chunk(2)
                epsilon = null + w * (captioned - null)
            return epsilon

        return predict


class OneStep(Img2Img):
    """z_0 as the U-Net predicts it from z_T, in a single pass under the caption: noised as `Img2Img`'s latents are.

    R²BD (arXiv 2601.08867) is called one-step too, but does another thing in its published code: without a caption, a
    DDIM step to the noise and one back, with a model of its own. With Stable Diffusion that is `ddim_inversion` with
    steps=50, strength=0.02 and latents=mean.
    """

    def change(self, latents: Tensor, captions: list[str], generators: list[torch.Generator]) -> Tensor:
        if self.settings.strength == 0:
            return latents
        t, *_ = self.steps_from_noise()
        latents = self.noised(latents, t, generators)
        epsilon = self.guided(captions)(self.unet, latents, *self.on_device([t]))
        predicted: Tensor = self.scheduler.step(epsilon, t, latents).pred_original_sample
        return predicted
