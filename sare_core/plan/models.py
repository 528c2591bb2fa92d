"""The models that settings name, as skeletons: the real classes on torch's meta device, from config.json alone.

A skeleton has every shape and no number, so that FLOPs and parameters can be counted on any machine in moments.
`published/` holds the architectures of the paper's own models, for machines that cannot reach the model hub.
Each function raises ConfigError when a configuration is unavailable or not readable.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

from sare_core.config import Settings
from sare_core.config.captioning import CaptionSettings
from sare_core.config.detectors import DetectorSettings
from sare_core.config.reconstruction import ReconstructSettings
from sare_core.detectors import build_detector, named_encoders
from sare_core.detectors.base import Detector
from sare_core.errors import ConfigError
from sare_core.models.weights import resolve

Built = TypeVar("Built")
PUBLISHED = Path(__file__).parent / "published"


class Diffusion(NamedTuple):
    """The parts of a Stable Diffusion model; tokens: that its text encoder is given, padding included."""

    unet: Any
    vae: Any
    text_encoder: Any
    tokens: int

    @property
    def multiple(self) -> int:
        """Pixels a latent: sizes are floored to multiples of it."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))


def config_folder(model: str, revision: str | None = None) -> Path:
    """The folder with a model's configurations: its own, the hub's, or the published architecture."""
    if Path(model).is_dir():  # not through `resolve`, which would read the weights for their digest
        return Path(model)
    try:
        return Path(resolve(model, revision).folder)
    except ConfigError:
        if (PUBLISHED / model).is_dir():
            return PUBLISHED / model
        raise


def unavailable(settings: Settings) -> list[str]:
    """The models whose own configuration is unavailable, so that the published architecture is counted."""
    encoders = [model for model, _ in named_encoders(settings.detector).values()]
    named = [settings.caption.model, settings.reconstruct.model, *encoders]
    known = [name for name in dict.fromkeys(named) if name and (PUBLISHED / name).is_dir()]
    return [name for name in known if config_folder(name).is_relative_to(PUBLISHED)]


@lru_cache(maxsize=2)
def diffusion(settings: ReconstructSettings) -> Diffusion:
    """The reconstruction model, without values."""
    return build_diffusion(settings, "meta")


def build_diffusion(settings: ReconstructSettings, device: str) -> Diffusion:
    """The reconstruction model with random weights, on a device."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    model, folder = settings.model, config_folder(settings.model, settings.revision)
    unet, vae, text = (_read(folder / part / "config.json") for part in ("unet", "vae", "text_encoder"))
    tokenizer = folder / "tokenizer" / "tokenizer_config.json"
    tokens = text.get("max_position_embeddings", 77)
    return Diffusion(
        _build(model, lambda: UNet2DConditionModel.from_config(unet), device),
        _build(model, lambda: AutoencoderKL.from_config(vae), device),
        _build(model, lambda: CLIPTextModel(CLIPTextConfig.from_dict(text)), device),
        _read(tokenizer).get("model_max_length", tokens) if tokenizer.is_file() else tokens,
    )


def learnt_steps(settings: ReconstructSettings) -> tuple[int, bool]:
    """original_inference_steps, which sampler=lcm goes by; whether the model's own configuration was there to ask."""
    from diffusers import LCMScheduler

    config: dict[str, Any] = {}
    with suppress(ConfigError):
        config = _read(config_folder(settings.model, settings.revision) / "scheduler" / "scheduler_config.json")
    usual = signature(LCMScheduler).parameters["original_inference_steps"].default
    return int(config.get("original_inference_steps", usual)), bool(config)


def blip(settings: CaptionSettings, device: str = "meta") -> Any:
    """The BLIP that captions, with random weights; settings.model is not None."""
    from transformers import BlipConfig, BlipForConditionalGeneration

    assert settings.model is not None
    config = _read(config_folder(settings.model, settings.revision) / "config.json")
    return _build(settings.model, lambda: BlipForConditionalGeneration(BlipConfig.from_dict(config)), device)


def detector(settings: DetectorSettings, device: str = "meta") -> Detector:
    """The detector around its encoders, frozen as the settings say; with random weights."""
    folders = {role: str(config_folder(*named)) for role, named in named_encoders(settings).items()}
    return _build(settings.detector, lambda: build_detector(settings, folders), device)


def _read(path: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not readable ({error}). Fetch the model again, or name another.") from error
    return config


def _build(model: str, build: Callable[[], Built], device: str) -> Built:
    try:
        with torch.device(device):
            return build()
    except (ValueError, TypeError, KeyError, RuntimeError, OSError) as error:
        raise ConfigError(f"{model}: its configuration does not make a model ({error}).") from error
