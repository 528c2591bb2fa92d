"""DDIM inversion without a caption: the reconstruction of DIRE (Wang et al., ICCV 2023), here with Stable Diffusion.

DIRE inverts and denoises over all steps (20 of them), with a model of pixels; `reconstruct.strength=1` does so here.
"""

import torch
from diffusers import DDIMInverseScheduler

from sare_core.config.reconstruction import ReconstructSettings
from sare_core.reconstruction.stable_diffusion import Parts, StableDiffusion


class DDIMInversion(StableDiffusion):
    """Follows the deterministic DDIM path from z_0 to z_T and back; no noise is added, and no text but the null text.

    A step inverts the one that leads back: both take the U-Net's answer at the timestep of their noisier end.
    """

    def __init__(self, settings: ReconstructSettings, folder: str | Parts, device: str) -> None:
        super().__init__(settings, folder, device)
        self.inverse = DDIMInverseScheduler.from_config(self.scheduler.config)
        self.steps_from_noise()

    def change(self, latents: torch.Tensor, captions: list[str], generators: list[torch.Generator]) -> torch.Tensor:
        back = self.steps_from_noise()
        self.inverse.set_timesteps(self.settings.steps)
        there = self.inverse.timesteps[: len(back)].tolist()
        null = self.encode_texts([""] * len(latents))
        latents = latents.float()  # so that in half precision the way back is not lost in rounding
        for scheduler, timesteps in ((self.inverse, there), (self.scheduler, back)):
            for t, t_there in zip(timesteps, self.on_device(timesteps), strict=True):
                epsilon = self.unet(latents.to(self.dtype), t_there, encoder_hidden_states=null, return_dict=False)[0]
                latents = scheduler.step(epsilon.float(), t, latents).prev_sample
        return latents.to(self.dtype)
