"""Settings of detectors: `detector.*`."""

from typing import ClassVar, Literal

from pydantic import Field

from sare_core.config.section import Section


class DetectorSettings(Section):
    """Paper 3.3, equations 5 and 6. Silent on tokens, heads and residual; docs/settings.md lists the choices."""

    models: ClassVar[dict[str, str]] = {
        "image_encoder": "image_encoder_revision",
        "semantic_encoder": "semantic_encoder_revision",
    }
    files: ClassVar[frozenset[str]] = frozenset({*models, *models.values()})

    detector: str  # a name in sare_core.detectors, or "package.module:Class" of an own one
    image_encoder: str  # E_x: a CLIP vision model with projection (transformers)
    image_encoder_revision: str | None = None
    tune_image_encoder: bool  # DRCT, the backbone, freezes it
    query: Literal["projected", "patches"]  # f_x: the projected embedding (one token), or the patch tokens
    semantic_encoder: str  # E_s: a timm ResNet, by hub id or folder
    semantic_encoder_revision: str | None = None
    semantic_input: Literal["sare", "image", "zero"]  # what E_s is fed: the map; for controls the image, or a map of 0
    semantic_tokens: Literal["map", "pooled"]  # f_s: the last feature map's cells (49 at 224), or their mean
    embed_dim: int = Field(ge=1)  # DRCT's embedding: 1024
    heads: int = Field(ge=1)
    residual: bool  # without it, and with one key, the image would drop out of the result
    input_size: int = Field(ge=8)  # 4.1: 224
    image_view: Literal["crop", "resize"]  # native size, padded and cropped (DRCT); or resized first
    sare_view: Literal["whole", "crop"]  # the whole map resized; or cropped together with the image
    normalization: Literal["imagenet", "clip"]  # DRCT feeds CLIP with ImageNet's constants
