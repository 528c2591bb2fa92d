"""Caption-guided reconstruction: equations 1 to 3 of the paper (3.2) with diffusers' own models and DDIM scheduler.

Gives what `StableDiffusionImg2ImgPipeline` with `DDIMScheduler` gives for the same generators; unlike it, each distinct
caption is encoded once, the null text once, the guidance pass is left out where it cannot matter, and no step waits for
the device.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.utils.torch_utils import randn_tensor
from transformers import CLIPTextModel, CLIPTokenizer

from sare_core.config.reconstruction import ReconstructSettings
from sare_core.errors import ConfigError, ImageError
from sare_core.models.weights import CURE, require_tokenizer, require_whole


def generator_for(seed: int, image_id: str) -> torch.Generator:
    """The image's own CPU generator, seeded by the run's seed and the id of the *unviewed* image.

    So the noise is the same for every view and variant of an image, and does not depend on batch, order or device.
    """
    digest = hashlib.blake2b(f"{seed}:{image_id}".encode(), digest_size=8).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest) >> 1)


@dataclass(frozen=True)
class Reconstruction:
    """x̂ of one image. decoded: (3, H, W) float32 in [0, 1] on the device, before rounding."""

    decoded: torch.Tensor

    def pixels(self) -> np.ndarray:
        """(H, W, 3) uint8, rounded as diffusers does."""
        return (self.decoded * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()


class Reconstructor:
    """A Stable Diffusion model that noises an image half way and denoises it under its caption; or only codes it.

    folder: in the layout that `StableDiffusionPipeline.from_pretrained` reads. No safety checker is ever loaded.
    Raises ConfigError when a part of the model is missing or cannot be read.
    """

    def __init__(self, settings: ReconstructSettings, folder: str, device: str) -> None:
        self.settings, self.device, self.dtype = settings, device, getattr(torch, settings.dtype)
        require_whole(folder)
        self.vae = self._part(AutoencoderKL, folder, "vae")
        self.unet = self._part(UNet2DConditionModel, folder, "unet")
        self.text_encoder = self._part(CLIPTextModel, folder, "text_encoder")
        require_tokenizer(Path(folder) / "tokenizer")  # without its files, transformers makes one that knows no word
        self.tokenizer = self._part(CLIPTokenizer, folder, "tokenizer")
        # From the checkpoint's own config: a bare DDIMScheduler() has other betas and clips.
        self.scheduler = self._part(DDIMScheduler, folder, "scheduler")
        self.multiple = 2 ** (len(self.vae.config.block_out_channels) - 1)
        self._texts: dict[str, torch.Tensor] = {}

    def _part(self, kind: Any, folder: str, name: str) -> Any:
        model = issubclass(kind, torch.nn.Module)
        options = {"torch_dtype": self.dtype, "output_loading_info": True} if model else {}
        try:
            part = kind.from_pretrained(folder, subfolder=name, **options)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ConfigError(
                f"{folder}/{name}: not a readable {kind.__name__} ({_first_line(error)}). "
                "Give a whole Stable Diffusion folder or hub id as reconstruct.model."
            ) from error
        if model:
            part, loading = part
            if missing := sorted(loading["missing_keys"]):  # they would be random
                raise ConfigError(f"{folder}/{name}: the weights lack {missing[0]} ({len(missing)} in all). {CURE}")
            part = part.to(self.device).eval().requires_grad_(False)
        return part

    @torch.no_grad()
    def reconstruct(
        self, images: torch.Tensor, captions: list[str], generators: list[torch.Generator]
    ) -> list[Reconstruction | ImageError]:
        """x̂ for a batch of images of one size.

        images: (N, 3, H, W) in [-1, 1], H and W multiples of `self.multiple`. One caption and one generator an image.
        At strength 0 the captions play no part. An image whose result is not finite or all black comes back as an
        ImageError.
        """
        latents = self._encode(images.to(self.device, self.dtype), generators)  # z_0
        if self.settings.strength > 0:
            latents = self._renoise(latents, list(captions), generators)
        decoded = self.vae.decode(latents / self.vae.config.scaling_factor, return_dict=False)[0]
        finite = torch.isfinite(decoded.float()).all(dim=(1, 2, 3)) & torch.isfinite(latents.float()).all(dim=(1, 2, 3))
        decoded = (decoded.float() / 2 + 0.5).clamp(0, 1)
        black = (decoded * 255).round().amax(dim=(1, 2, 3)) == 0
        return [
            _verdict(image, ok, dark) for image, ok, dark in zip(decoded, finite.tolist(), black.tolist(), strict=True)
        ]

    def _renoise(self, latents: torch.Tensor, captions: list[str], generators: list[torch.Generator]) -> torch.Tensor:
        """Equations 1 to 3: z_0 noised to z_T, and denoised under its caption."""
        settings, scheduler = self.settings, self.scheduler
        scheduler.set_timesteps(settings.steps)
        count = min(int(settings.steps * settings.strength), settings.steps)  # T = floor(strength * T_max)
        if count == 0:
            raise ConfigError(
                f"reconstruct.strength={settings.strength} of {settings.steps} steps leaves no step; raise one of them."
            )
        # Python numbers: a step indexed by a tensor on the device would wait for it.
        timesteps = scheduler.timesteps[len(scheduler.timesteps) - count :].tolist()

        noise = randn_tensor(latents.shape, generator=generators, device=torch.device(self.device), dtype=self.dtype)
        latents = scheduler.add_noise(latents, noise, torch.tensor(timesteps[:1]))  # equation 1: z_T

        # With no caption, or w = 1, equation 2 reduces to one of its terms: its two passes would be one pass twice.
        guided = settings.guidance_scale != 1 and any(captions)
        condition = self._encode_texts(captions)
        if guided:
            condition = torch.cat([self._encode_texts([""] * len(captions)), condition])
        for t in timesteps:
            rows = torch.cat([latents] * 2) if guided else latents
            epsilon = self.unet(rows, t, encoder_hidden_states=condition, return_dict=False)[0]
            if guided:  # equation 2
                null, captioned = epsilon.chunk(2)
                epsilon = null + settings.guidance_scale * (captioned - null)
            latents = scheduler.step(
                epsilon, t, latents, eta=settings.eta, generator=generators if settings.eta > 0 else None
            ).prev_sample  # equation 3, as DDIM has it
        return latents

    def _encode(self, images: torch.Tensor, generators: list[torch.Generator]) -> torch.Tensor:
        posterior = self.vae.encode(images, return_dict=False)[0]
        if self.settings.latents == "mean":
            return posterior.mode() * self.vae.config.scaling_factor
        noise = [
            randn_tensor(posterior.mean[:1].shape, generator=generator, device=images.device, dtype=self.dtype)
            for generator in generators
        ]
        return (posterior.mean + posterior.std * torch.cat(noise)) * self.vae.config.scaling_factor

    def _encode_texts(self, captions: list[str]) -> torch.Tensor:
        """ψ(C): (N, 77, width). Distinct texts are encoded once while they are in use."""
        if new := sorted(set(captions) - self._texts.keys()):
            tokens = self.tokenizer(
                new,
                padding="max_length",
                max_length=self.tokenizer.model_max_length,
                truncation=True,
                return_tensors="pt",
            )
            states = self.text_encoder(tokens.input_ids.to(self.device))[0].to(self.dtype)
            if len(self._texts) > 4096:  # short captions repeat a lot; forget now and then so that memory stays flat
                self._texts = {text: self._texts[text] for text in {*captions, ""} & self._texts.keys()}
            self._texts.update(zip(new, states, strict=True))
        return torch.stack([self._texts[caption] for caption in captions])


def _verdict(decoded: torch.Tensor, finite: bool, black: bool) -> Reconstruction | ImageError:
    if not finite:
        return ImageError("the reconstruction is not finite (NaN or infinite)")
    if black:
        return ImageError("the reconstruction is all black")
    return Reconstruction(decoded)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
