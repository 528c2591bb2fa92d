"""Pre-trained encoders from local folders, as the model hub lays them out. A weight that a file lacks is an error."""

from pathlib import Path
from typing import Any, cast

import open_clip
import timm
import torch
from safetensors import SafetensorError, safe_open
from timm.models import ResNet
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from sare_core.config.detectors import BackboneSettings
from sare_core.errors import ConfigError
from sare_core.models.weights import require_tokenizer, require_whole

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


class Backbone(nn.Module):
    """A network that makes one vector of an image: (B, 3, S, S) to (B, width).

    mean, std: of each channel of the images that it was pre-trained on, in [0, 1]. size: the only S that it takes, or
    None.
    """

    def __init__(
        self, network: Any, width: int, mean: tuple[float, ...], std: tuple[float, ...], size: int | None
    ) -> None:
        super().__init__()
        self.network, self.width, self.mean, self.std, self.size = network, width, mean, std, size

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.network(images)
        return features

    def require_size(self, input_size: int) -> None:
        """Raises ConfigError unless it takes images of `input_size` pixels."""
        if self.size not in (None, input_size):
            raise ConfigError(
                f"detector.backbone takes images of {self.size} pixels: set detector.input_size={self.size} "
                f"(it is {input_size})."
            )


def load_backbone(folder: str) -> Backbone:
    """Any image model of timm without its classifier, or the image tower of one of open_clip, in float32.

    On the meta device it is a skeleton, from the configuration alone.
    Raises ConfigError: configuration or weights are missing or unusable, or they do not fit each other.
    """
    config = Path(folder) / "config.json"
    of_timm = config.is_file() and '"architecture"' in config.read_text()
    if (Path(folder) / "open_clip_config.json").is_file() and not of_timm:  # some hub models have both
        return _load_open_clip(folder)
    name, meta = f"local-dir:{Path(folder).absolute()}", torch.empty(0).is_meta
    if not meta:
        _require_files(folder)
    try:
        network: Any = timm.create_model(name, pretrained=not meta)  # with its classifier: timm loads strictly then
    except _UNREADABLE as error:
        raise ConfigError(f"{folder}: not readable as a timm model: {error!r}. {_CURE}") from error
    network.reset_classifier(0)
    return _of_timm(network)


def build_backbone(settings: BackboneSettings, encoders: dict[str, Any]) -> Backbone:
    """The backbone that was loaded, or the settings' architecture with weights from torch's global generator.

    Raises ConfigError: timm knows no such architecture, or the network takes images of another size.
    """
    if "backbone" in encoders:
        backbone: Backbone = encoders["backbone"]
    else:
        try:
            backbone = _of_timm(timm.create_model(str(settings.architecture), num_classes=0))
        except (RuntimeError, ValueError, TypeError) as error:
            raise ConfigError(f"detector.architecture={settings.architecture}: no model of timm ({error}).") from error
    backbone.require_size(settings.input_size)
    return backbone


def _of_timm(network: Any) -> Backbone:
    about = network.pretrained_cfg
    patches: Any = getattr(network, "patch_embed", None)
    if hasattr(patches, "strict_img_size"):  # of transformers; it says more than the configuration
        size = patches.img_size[0] if patches.strict_img_size else None
    else:
        size = about["input_size"][-1] if about.get("fixed_input_size") else None
    return Backbone(network, network.head_hidden_size, about["mean"], about["std"], size)


def _load_open_clip(folder: str) -> Backbone:
    meta = torch.empty(0).is_meta
    if not meta:
        require_whole(folder)
    try:
        model: Any = open_clip.create_model(
            f"local-dir:{folder}", load_weights=not meta, device="meta" if meta else "cpu", precision="fp32"
        )
    except _UNREADABLE as error:
        raise ConfigError(f"{folder}: not readable as an open_clip model: {error!r}. {_CURE}") from error
    tower, about = model.visual, open_clip.get_model_preprocess_cfg(model)
    size = about["size"]
    return Backbone(tower, tower.output_dim, about["mean"], about["std"], size if isinstance(size, int) else size[0])


class TextEncoder(nn.Module):
    """CLIP's text tower: one vector (N, width) of each text, which is cut to the tokens that the tower takes.

    projected: whether `model` has CLIP's projection; without, as in Stable Diffusion, the vector is that of the text's
    end before it.
    """

    def __init__(self, model: Any, tokenizer: Any, projected: bool) -> None:
        super().__init__()
        self.model, self.tokenizer, self.projected = model, tokenizer, projected
        self.width = model.config.projection_dim if projected else model.config.hidden_size

    def forward(self, texts: list[str]) -> Tensor:
        length, device = self.model.config.max_position_embeddings, self.model.device
        if self.tokenizer is None:  # a skeleton
            tokens = {"input_ids": torch.zeros(len(texts), length, dtype=torch.long, device=device)}
        else:
            tokens = self.tokenizer(texts, padding=True, truncation=True, max_length=length, return_tensors="pt")
            tokens = {name: tokens[name].to(device) for name in ("input_ids", "attention_mask")}
        output = self.model(**tokens)
        vectors: Tensor = output.text_embeds if self.projected else output.pooler_output
        return vectors


def load_text_encoder(folder: str) -> TextEncoder:
    """CLIP's text tower and tokenizer, in float32, from the folder of a CLIP or of a Stable Diffusion.

    On the meta device it is a skeleton without tokenizer, from config.json alone.
    Raises ConfigError: config.json, weights or tokenizer are missing or unusable.
    """
    place, words = (Path(folder) / part for part in ("text_encoder", "tokenizer"))
    whole = not place.is_dir()  # a CLIP; Stable Diffusion's tower has no projection
    place, words = (Path(folder), Path(folder)) if whole else (place, words)
    kind: Any = CLIPTextModelWithProjection if whole else CLIPTextModel
    if torch.empty(0).is_meta:
        return TextEncoder(kind(CLIPTextConfig.from_pretrained(place)), None, whole)
    _require_files(str(place))
    require_tokenizer(words)
    try:
        model, found = kind.from_pretrained(
            place, dtype=torch.float32, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
        tokenizer = CLIPTokenizer.from_pretrained(words, local_files_only=True)
    except _UNREADABLE as error:
        raise ConfigError(f"{place}: not readable as a CLIP text model: {error!r}. {_CURE}") from error
    _refuse_missing(str(place), set(found["missing_keys"]))
    return TextEncoder(model, tokenizer, whole)


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
