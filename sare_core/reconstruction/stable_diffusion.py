"""What the methods share of Stable Diffusion: its parts loaded by diffusers, images to latents and back, and texts.

Each distinct text is encoded once while it is in use, and no step waits for the device.
"""

from inspect import signature
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from diffusers import AutoencoderKL, DDIMScheduler, LCMScheduler, UNet2DConditionModel
from diffusers.utils.torch_utils import randn_tensor
from transformers import CLIPTextModel, CLIPTokenizer

from sare_core.config.reconstruction import ReconstructSettings
from sare_core.errors import ConfigError, ImageError
from sare_core.models.compiled import compiler_errors
from sare_core.models.memory import Fitting
from sare_core.models.weights import CURE, require_tokenizer, require_whole
from sare_core.reconstruction import check_steps
from sare_core.reconstruction.attention import attend_by, pad_heads
from sare_core.reconstruction.batching import empty_rows
from sare_core.reconstruction.caching import split
from sare_core.reconstruction.compiling import compile_parts
from sare_core.reconstruction.merging import merging
from sare_core.reconstruction.quantising import quantise

TOO_LARGE = "Set a smaller reconstruct.longer_side, or reconstruct.dtype=float16."


class Parts(NamedTuple):
    """A Stable Diffusion model, on its device and in its dtype. The autoencoder alone has but the first."""

    vae: Any
    unet: Any = None
    text_encoder: Any = None
    tokenizer: Any = None
    scheduler: Any = None


class StableDiffusion:
    """A Stable Diffusion model that encodes images, changes their latents as a method does, and decodes them.

    A method is a subclass with its own `change`. folder: in the layout that `StableDiffusionPipeline.from_pretrained`
    reads; or its parts. No safety checker is ever loaded. Where a batch does not fit into memory, autoencoder and U-Net
    take it in parts (models/memory.py).
    Raises ConfigError when a part of the model is missing or cannot be read.
    """

    denoises: ClassVar[bool] = True  # False: the autoencoder alone is loaded

    def __init__(self, settings: ReconstructSettings, folder: str | Parts, device: str) -> None:
        self.settings, self.device, self.dtype = settings, device, getattr(torch, settings.dtype)
        parts = folder if isinstance(folder, Parts) else self._load(folder)
        self.vae, self.unet, self.text_encoder, self.tokenizer, self.scheduler = parts
        self.multiple = 2 ** (len(self.vae.config.block_out_channels) - 1)
        self._texts: dict[str, torch.Tensor] = {}
        self.encoding, self.changing, self.decoding = (
            Fitting(part, TOO_LARGE) for part in ("encoder", "U-Net", "decoder")
        )
        self.empty_rows = 0  # since `ran` was last asked
        if settings.sampler == "lcm":
            self.scheduler = _consistent(self.scheduler.config)
        elif self.unet is not None and self.unet.config.time_cond_proj_dim is not None:
            raise ConfigError(
                f"reconstruct.model={settings.model}: its U-Net is told the guidance (time_cond_proj_dim), as those of "
                "latent consistency models are. Set reconstruct.method=img2img reconstruct.sampler=lcm, or name "
                "another model."
            )
        self.outer: Any = None  # the U-Net's outermost layers, for steps that take its deep features again
        if self.unet is not None:
            self._prepare_unet()
        if settings.speed != "exact":
            compile_parts(self.vae, self.unet, self.outer)

    def _prepare_unet(self) -> None:
        """As the settings have it. Raises ConfigError: this U-Net or device cannot."""
        settings = self.settings
        if settings.pad_heads:
            pad_heads(self.unet)
        if settings.speed == "quantised":
            quantise(self.unet)
        self.unet = merging(self.unet, settings.token_merging)
        if settings.cache_interval > 1:
            self.unet, self.outer = split(self.unet)
        if settings.attention != "default":
            attend_by(settings.attention, self.unet, self.outer)

    def _load(self, folder: str) -> Parts:
        require_whole(folder)
        vae = self._part(AutoencoderKL, folder, "vae")
        if not self.denoises:
            return Parts(vae)
        require_tokenizer(Path(folder) / "tokenizer")  # without its files, transformers makes one that knows no word
        return Parts(
            vae,
            self._part(UNet2DConditionModel, folder, "unet"),
            self._part(CLIPTextModel, folder, "text_encoder"),
            self._part(CLIPTokenizer, folder, "tokenizer"),
            # From the checkpoint's own config: a bare DDIMScheduler() has other betas and clips.
            self._part(DDIMScheduler, folder, "scheduler"),
        )

    def change(self, latents: torch.Tensor, captions: list[str], generators: list[torch.Generator]) -> torch.Tensor:
        """The latents of x̂, from z_0 of equation 1: (N, channels, h, w), scaled as the U-Net takes them."""
        raise NotImplementedError

    @torch.no_grad()
    def reconstruct(
        self, images: torch.Tensor, captions: list[str], generators: list[torch.Generator]
    ) -> list[torch.Tensor | ImageError]:
        """See `Reconstructor`. An image whose result is not finite or all black comes back as an ImageError."""
        count, full = len(images), self.settings.batch_size
        if missing := empty_rows(count, full, self.settings.speed):
            self.empty_rows += missing
            images = torch.cat([images, images[-1:].expand(missing, -1, -1, -1)])
            captions = [*captions, *captions[-1:] * missing]
            generators = [*generators, *(torch.Generator().manual_seed(0) for _ in range(missing))]
        # One compiled graph a size, of full batches: what is not filled up runs as if nothing were compiled.
        with compiler_errors(), torch.compiler.set_stance("default" if len(images) == full else "force_eager"):
            latents = torch.cat(self.encoding(self._encode, images.to(self.device, self.dtype), generators))
            latents = torch.cat(self.changing(self.change, latents, list(captions), generators))
            return list(chain.from_iterable(self.decoding(self._decode, latents)))[:count]

    def ran(self) -> dict[str, int]:
        """Since it was last asked: images that each part took at once, at most, and empty rows that filled batches."""
        parts = {"encoder": self.encoding, "unet": self.changing, "decoder": self.decoding}
        found = {name: part.most for name, part in parts.items()} | {"empty_rows": self.empty_rows}
        self.empty_rows = self.encoding.most = self.changing.most = self.decoding.most = 0
        return found

    def steps_from_noise(self) -> list[int]:
        """The timesteps of the steps from z_T to z_0, the noisiest first.

        DDIM's, where T = floor(strength * T_max); or those that `LatentConsistencyModelImg2ImgPipeline` takes.
        Python numbers, for the scheduler: a step indexed by a tensor on the device would wait for it. The U-Net takes
        them from `on_device`. Raises ConfigError: there is none, or the model knows fewer. Methods ask once when they
        are loaded, so that a run that cannot start does not.
        """
        settings = self.settings
        check_steps(settings, self.scheduler.config.get("original_inference_steps"))
        if settings.sampler == "lcm":
            self.scheduler.set_timesteps(settings.steps, strength=settings.strength)
            return list[int](self.scheduler.timesteps.tolist())
        self.scheduler.set_timesteps(settings.steps)
        timesteps: list[int] = self.scheduler.timesteps[-settings.denoising_steps :].tolist()
        return timesteps

    def on_device(self, timesteps: list[int]) -> list[torch.Tensor]:
        """The timesteps as the U-Net takes them: a number would be copied to the device at each step, and be a constant
        of a compiled U-Net, which had to be compiled for each."""
        return list(torch.tensor(timesteps, device=self.device))

    def encode_texts(self, texts: list[str]) -> torch.Tensor:
        """ψ(C): (N, 77, width). Distinct texts are encoded once while they are in use."""
        if new := sorted(set(texts) - self._texts.keys()):
            tokens = self.tokenizer(
                new,
                padding="max_length",
                max_length=self.tokenizer.model_max_length,
                truncation=True,
                return_tensors="pt",
            )
            states = self.text_encoder(tokens.input_ids.to(self.device))[0].to(self.dtype)
            if len(self._texts) > 4096:  # short captions repeat a lot; forget now and then so that memory stays flat
                self._texts = {text: self._texts[text] for text in {*texts, ""} & self._texts.keys()}
            self._texts.update(zip(new, states, strict=True))
        return torch.stack([self._texts[text] for text in texts])

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

    def _encode(self, images: torch.Tensor, generators: list[torch.Generator]) -> torch.Tensor:
        posterior = self.vae.encode(images, return_dict=False)[0]
        if self.settings.latents == "mean":
            return posterior.mode() * self.vae.config.scaling_factor
        noise = [
            randn_tensor(posterior.mean[:1].shape, generator=generator, device=images.device, dtype=self.dtype)
            for generator in generators
        ]
        return (posterior.mean + posterior.std * torch.cat(noise)) * self.vae.config.scaling_factor

    def _decode(self, latents: torch.Tensor) -> list[torch.Tensor | ImageError]:
        decoded = self.vae.decode(latents / self.vae.config.scaling_factor, return_dict=False)[0]
        finite = torch.isfinite(decoded.float()).all(dim=(1, 2, 3)) & torch.isfinite(latents.float()).all(dim=(1, 2, 3))
        decoded = (decoded.float() / 2 + 0.5).clamp(0, 1)
        black = (decoded * 255).round().amax(dim=(1, 2, 3)) == 0
        return [
            _verdict(image, ok, dark) for image, ok, dark in zip(decoded, finite.tolist(), black.tolist(), strict=True)
        ]


def _consistent(config: Any) -> LCMScheduler:
    """Of a checkpoint's scheduler, without what an LCMScheduler does not take, of which diffusers would warn."""
    known = signature(LCMScheduler).parameters
    # diffusers' own notes begin with _, such as which values nobody gave and are LCMScheduler's to choose.
    kept = {name: value for name, value in config.items() if name in known or name.startswith("_")}
    scheduler: LCMScheduler = LCMScheduler.from_config(kept)
    return scheduler


def _verdict(decoded: torch.Tensor, finite: bool, black: bool) -> torch.Tensor | ImageError:
    if not finite:
        return ImageError("the reconstruction is not finite (NaN or infinite)")
    if black:
        return ImageError("the reconstruction is all black")
    return decoded


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
