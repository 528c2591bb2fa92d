"""The models that settings name, as skeletons: the real classes on torch's meta device, from config.json alone.

A skeleton has every shape and no number, so that FLOPs and parameters can be counted on any machine in moments.
Each function raises ConfigError when a configuration is unavailable or not readable.
"""

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

from sare_core.config.captioning import CaptionSettings
from sare_core.config.detectors import DetectorSettings
from sare_core.config.reconstruction import ReconstructSettings
from sare_core.detectors.base import Detector
from sare_core.detectors.fusion import CrossAttentionFusion
from sare_core.detectors.image import ImageDetector
from sare_core.detectors.sare import SareDetector
from sare_core.errors import ConfigError
from sare_core.models.weights import resolve
from sare_core.plan.known import KNOWN

Built = TypeVar("Built")


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


def config_folder(model: str, revision: str | None = None) -> Path | None:
    """The folder with a model's configurations; None: unavailable, but its architecture is known."""
    if Path(model).is_dir():  # not through `resolve`, which would read the weights for their digest
        return Path(model)
    try:
        return Path(resolve(model, revision).folder)
    except ConfigError:
        if model in KNOWN:
            return None
        raise


@lru_cache(maxsize=2)
def diffusion(settings: ReconstructSettings) -> Diffusion:
    """The reconstruction model."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    model, folder = settings.model, config_folder(settings.model, settings.revision)
    text = _config(model, folder, "text_encoder")
    tokens = text.get("max_position_embeddings", 77)
    if folder is not None and (folder / "tokenizer" / "tokenizer_config.json").is_file():
        tokens = _read(folder / "tokenizer" / "tokenizer_config.json").get("model_max_length", tokens)
    return Diffusion(
        _skeleton(model, lambda: UNet2DConditionModel.from_config(_config(model, folder, "unet"))),
        _skeleton(model, lambda: AutoencoderKL.from_config(_config(model, folder, "vae"))),
        _skeleton(model, lambda: CLIPTextModel(CLIPTextConfig.from_dict(text))),
        tokens,
    )


def blip(settings: CaptionSettings) -> Any:
    """The BLIP that captions; settings.model is not None."""
    from transformers import BlipConfig, BlipForConditionalGeneration

    assert settings.model is not None
    config = _config(settings.model, config_folder(settings.model, settings.revision), "captioner", whole=True)
    return _skeleton(settings.model, lambda: BlipForConditionalGeneration(BlipConfig.from_dict(config)))


def detector(settings: DetectorSettings) -> Detector:
    """The detector with its encoders, frozen as the settings say."""
    kinds: dict[str, Callable[[DetectorSettings], Detector]] = {"sare": _Sare, "image": _Image}
    if settings.detector not in kinds:
        raise ConfigError(f"sare plan only counts {' and '.join(sorted(kinds))}, not detector {settings.detector!r}")
    return _skeleton(settings.detector, lambda: kinds[settings.detector](settings))


def _image_encoder(settings: DetectorSettings) -> Any:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    model = settings.image_encoder
    config = _config(model, config_folder(model, settings.image_encoder_revision), "image_encoder", whole=True)
    if "vision_config" in config:  # a whole CLIP
        config = config["vision_config"] | {"projection_dim": config.get("projection_dim", 512)}
    return CLIPVisionModelWithProjection(CLIPVisionConfig.from_dict(config))


def _semantic_encoder(settings: DetectorSettings) -> Any:
    import timm

    model = settings.semantic_encoder
    folder = config_folder(model, settings.semantic_encoder_revision)
    name = KNOWN[model]["semantic_encoder"]["model_name"] if folder is None else f"local-dir:{folder.absolute()}"
    return timm.create_model(name, pretrained=False, num_classes=0)


class _Sare(SareDetector):
    """SareDetector around skeletons: its own parts and forward pass, without reading weights."""

    def __init__(self, settings: DetectorSettings) -> None:
        Detector.__init__(self)
        self.query, self.semantic_tokens = settings.query, settings.semantic_tokens
        self.image_encoder, self.semantic_encoder = _image_encoder(settings), _semantic_encoder(settings)
        vision = self.image_encoder.config
        if not settings.tune_image_encoder:
            self.freeze("image_encoder")
        elif settings.query == "patches":
            self.image_encoder.visual_projection.requires_grad_(False)
        width = vision.projection_dim if settings.query == "projected" else vision.hidden_size
        semantic, embed = self.semantic_encoder.num_features, settings.embed_dim
        self.embedding = torch.nn.Linear(width, embed)
        self.fusion = CrossAttentionFusion(embed, semantic, settings.heads, settings.residual)
        self.head = torch.nn.Linear(embed, 1)


class _Image(ImageDetector):
    """ImageDetector around a skeleton."""

    def __init__(self, settings: DetectorSettings) -> None:
        Detector.__init__(self)
        self.image_encoder = _image_encoder(settings)
        if not settings.tune_image_encoder:
            self.freeze("image_encoder")
        self.head = torch.nn.Linear(self.image_encoder.config.projection_dim, 1)


def _config(model: str, folder: Path | None, part: str, whole: bool = False) -> dict[str, Any]:
    """The configuration of one part: of the folder itself (`whole`), of its sub-folder, or as known."""
    if folder is None:
        return KNOWN[model][part]
    return _read((folder if whole else folder / part) / "config.json")


def _read(path: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not readable ({error}). Fetch the model again, or name another.") from error
    return config


def _skeleton(model: str, build: Callable[[], Built]) -> Built:
    try:
        with torch.device("meta"):
            built = build()
    except (ValueError, TypeError, KeyError, RuntimeError, OSError) as error:
        raise ConfigError(f"{model}: its configuration does not make a model ({error}).") from error
    return built
