"""Caption-guided reconstruction: equations 1 to 3 of the paper (3.2) with diffusers' own models and DDIM scheduler.

Gives what `StableDiffusionImg2ImgPipeline` with `DDIMScheduler` gives for the same generators; unlike it, the guidance
pass is left out where it cannot matter.
"""

import torch
from diffusers.utils.torch_utils import randn_tensor

from sare_core.reconstruction.stable_diffusion import StableDiffusion


class Img2Img(StableDiffusion):
    """Noises the latents to z_T and denoises them under the caption; at strength 0 they stay as they are."""

    def change(self, latents: torch.Tensor, captions: list[str], generators: list[torch.Generator]) -> torch.Tensor:
        settings, scheduler = self.settings, self.scheduler
        if settings.strength == 0:
            return latents
        timesteps = self.steps_from_noise()
        noise = randn_tensor(latents.shape, generator=generators, device=torch.device(self.device), dtype=self.dtype)
        latents = scheduler.add_noise(latents, noise, torch.tensor(timesteps[:1]))  # equation 1: z_T

        # With no caption, or w = 1, equation 2 reduces to one of its terms: its two passes would be one pass twice.
        guided = settings.guidance_scale != 1 and any(captions)
        condition = self.encode_texts(captions)
        if guided:
            condition = torch.cat([self.encode_texts([""] * len(captions)), condition])
        for t, t_there in zip(timesteps, self.on_device(timesteps), strict=True):
            rows = torch.cat([latents] * 2) if guided else latents
            epsilon = self.unet(rows, t_there, encoder_hidden_states=condition, return_dict=False)[0]
            if guided:  # equation 2
                null, captioned = epsilon.chunk(2)
                epsilon = null + settings.guidance_scale * (captioned - null)
            latents = scheduler.step(
                epsilon, t, latents, eta=settings.eta, generator=generators if settings.eta > 0 else None
            ).prev_sample  # equation 3, as DDIM has it
        return latents
