"""Caption-guided reconstruction: equations 1 to 3 of the paper (3.2) with diffusers' own models and DDIM scheduler.

Gives what `StableDiffusionImg2ImgPipeline` with `DDIMScheduler` gives for the same generators; unlike it, the guidance
pass is left out where it cannot matter. With the setting sampler=lcm, what `LatentConsistencyModelImg2ImgPipeline`
gives; a U-Net that is not told the guidance is guided as usual there.
"""

from collections.abc import Callable

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor, nn

from sare_core.config.reconstruction import ReconstructSettings
from sare_core.reconstruction.consistency import told_guidance
from sare_core.reconstruction.stable_diffusion import Parts, StableDiffusion


class Img2Img(StableDiffusion):
    """Noises the latents to z_T and denoises them under the caption; at strength 0 they stay as they are."""

    def __init__(self, settings: ReconstructSettings, folder: str | Parts, device: str) -> None:
        super().__init__(settings, folder, device)
        if settings.strength > 0:
            self.steps_from_noise()

    def change(self, latents: Tensor, captions: list[str], generators: list[torch.Generator]) -> Tensor:
        settings = self.settings
        if settings.strength == 0:
            return latents
        if settings.sampler == "lcm":
            return self.consistent(latents, captions, generators)
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

    def consistent(self, latents: Tensor, captions: list[str], generators: list[torch.Generator]) -> Tensor:
        """As a latent consistency model is sampled: z_0 is noised and predicted anew, each time from less noise."""
        timesteps, predict = self.steps_from_noise(), self.guided(captions)
        # All noise before the first step: to bring it to the device is to wait for it.
        noises = [self.noise(latents, generators) for _ in timesteps]
        for t, t_there, noise in zip(timesteps, self.on_device(timesteps), noises, strict=True):
            latents = self.scheduler.add_noise(latents, noise, t_there.view(1))
            predicted = predict(self.unet, latents, t_there)
            # As the last step of a schedule, or it would draw noise from torch's own generator.
            self.scheduler.set_timesteps(1)
            self.scheduler.set_begin_index(0)
            latents = self.scheduler.step(predicted, t, latents).denoised
        return latents

    def noised(self, latents: Tensor, t: int, generators: list[torch.Generator]) -> Tensor:
        """Equation 1: z_T."""
        return self.scheduler.add_noise(latents, self.noise(latents, generators), torch.tensor([t]))

    def noise(self, latents: Tensor, generators: list[torch.Generator]) -> Tensor:
        """Each image's from its own generator."""
        return randn_tensor(latents.shape, generator=generators, device=torch.device(self.device), dtype=self.dtype)

    def guided(self, captions: list[str]) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
        """Equation 2: what a U-Net, given latents and a timestep, predicts of their noise under the captions."""
        w, width = self.settings.guidance_scale, self.unet.config.time_cond_proj_dim
        # With no caption, or w = 1, equation 2 reduces to one of its terms: its two passes would be one pass twice.
        guided = w != 1 and any(captions) and width is None
        told = None
        if width is not None:
            told = told_guidance(w, width).to(self.device, self.dtype).expand(len(captions), -1)
        condition = self.encode_texts(captions)
        if guided:
            condition = torch.cat([self.encode_texts([""] * len(captions)), condition])

        def predict(unet: nn.Module, latents: Tensor, t: Tensor) -> Tensor:
            rows = torch.cat([latents] * 2) if guided else latents
            epsilon: Tensor = unet(rows, t, condition, timestep_cond=told, return_dict=False)[0]
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
