"""Pre-trained encoders from local folders, as the model hub lays them out. A weight that a file lacks is an error."""

from pathlib import Path
from typing import Any, cast

import timm
import torch
from safetensors import SafetensorError, safe_open
from timm.models import ResNet
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from sare_core.errors import ConfigError
from sare_core.models.weights import require_whole

# What transformers, timm and safetensors raise over a broken or foreign config.json or weight file.
_UNREADABLE = (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError)
_CURE = "Fetch the model again, or name another."


def load_image_encoder(folder: str) -> CLIPVisionModelWithProjection:
    """A CLIP vision tower with its projection, in float32; of a folder with a whole CLIP the text tower is left out.

    On the meta device it is a skeleton, from config.json alone.
    Raises ConfigError: config.json or model.safetensors is missing or unusable.
    """
    if torch.empty(0).is_meta:
        return CLIPVisionModelWithProjection(CLIPVisionConfig.from_pretrained(folder))
    _require_files(folder)
    try:
        loaded: Any = CLIPVisionModelWithProjection.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except _UNREADABLE as error:
        raise ConfigError(f"{folder}: not readable as a CLIP vision model: {error!r}. {_CURE}") from error
    model, found = loaded
    _refuse_missing(folder, set(found["missing_keys"]))
    return model


def load_semantic_encoder(folder: str) -> ResNet:
    """A timm ResNet without its classifier, in float32; `forward_features` gives its last map (B, num_features, h, w).

    On the meta device it is a skeleton, from config.json alone.
    Raises ConfigError: config.json or model.safetensors is missing or unusable, or the model is no ResNet.
    """
    name = f"local-dir:{Path(folder).absolute()}"
    if torch.empty(0).is_meta:
        return cast(ResNet, timm.create_model(name, pretrained=False, num_classes=0))
    _require_files(folder)
    try:
        model = timm.create_model(name, pretrained=True, num_classes=0)
        with safe_open(Path(folder) / "model.safetensors", framework="pt") as file:
            stored = set(file.keys())
    except _UNREADABLE as error:
        raise ConfigError(f"{folder}: not readable as a timm model: {error!r}. {_CURE}") from error
    if not isinstance(model, ResNet):
        raise ConfigError(f"{folder}: holds a {type(model).__name__}; the semantic encoder is a ResNet of timm.")
    # Without its classifier timm loads a model loosely: what the file lacks would stay random.
    # Batch counters are absent from old files, and play no part with a fixed momentum.
    _refuse_missing(folder, {name for name in model.state_dict().keys() - stored if "num_batches_tracked" not in name})
    return model


def require_input_size(model: CLIPVisionModelWithProjection, input_size: int) -> None:
    """Raises ConfigError unless the image encoder takes images of `input_size` pixels."""
    size = model.config.image_size
    if size != input_size:
        raise ConfigError(
            f"detector.image_encoder takes images of {size} pixels: set detector.input_size={size} "
            f"(it is {input_size})."
        )


def _require_files(folder: str) -> None:
    if not Path(folder).is_dir():
        raise ConfigError(f"{folder}: no such model folder.")
    for name in ("config.json", "model.safetensors"):
        if not (Path(folder) / name).is_file():
            raise ConfigError(f"{folder}: holds no {name}. A model folder holds config.json and model.safetensors.")
    require_whole(folder)


def _refuse_missing(folder: str, names: set[str]) -> None:
    if names:
        raise ConfigError(f"{folder}: model.safetensors lacks {', '.join(sorted(names))}. {_CURE}")
