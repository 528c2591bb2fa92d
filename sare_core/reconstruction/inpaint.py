"""In-painting with nothing to paint: DRCT's reconstruction (Chen et al., ICML 2024), without a text.

The U-Net of an in-painting model sees, beside the noisy latents, a mask and the latents of what lies outside of it.
With an empty mask that is the whole image, so x̂ resembles it even from noise alone (`reconstruct.strength=1`, DRCT's).
Gives what `StableDiffusionInpaintPipeline` with `DDIMScheduler` gives; DRCT takes the scheduler of its model's folder.
"""

import torch
from diffusers.utils.torch_utils import randn_tensor

from sare_core.config.reconstruction import ReconstructSettings
from sare_core.errors import ConfigError
from sare_core.reconstruction.stable_diffusion import Parts, StableDiffusion


class Inpaint(StableDiffusion):
    """Denoises from z_T under the image's own latents and the null text, for which guidance would change nothing.

    Raises ConfigError: the model is none for in-painting.
    """

    def __init__(self, settings: ReconstructSettings, folder: str | Parts, device: str) -> None:
        super().__init__(settings, folder, device)
        found, wanted = self.unet.config.in_channels, 2 * self.vae.config.latent_channels + 1
        if found != wanted:
            raise ConfigError(
                f"reconstruct.model={settings.model}: its U-Net takes {found} channels, that of an in-painting model "
                f"{wanted}. Name one, such as stable-diffusion-v1-5/stable-diffusion-inpainting, or another "
                "reconstruct.method."
            )
        self.steps_from_noise()

    def change(self, latents: torch.Tensor, captions: list[str], generators: list[torch.Generator]) -> torch.Tensor:
        settings, scheduler, known = self.settings, self.scheduler, latents
        timesteps = self.steps_from_noise()
        noise = randn_tensor(latents.shape, generator=generators, device=torch.device(self.device), dtype=self.dtype)
        start = scheduler.add_noise(known, noise, torch.tensor(timesteps[:1]))
        latents = noise * scheduler.init_noise_sigma if settings.strength == 1 else start
        empty, null = torch.zeros_like(known[:, :1]), self.encode_texts([""] * len(latents))
        for t, t_there in zip(timesteps, self.on_device(timesteps), strict=True):
            rows = torch.cat([latents, empty, known], dim=1)
            epsilon = self.unet(rows, t_there, encoder_hidden_states=null, return_dict=False)[0]
            latents = scheduler.step(
                epsilon, t, latents, eta=settings.eta, generator=generators if settings.eta > 0 else None
            ).prev_sample
        return latents
