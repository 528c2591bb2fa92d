"""Settings that all detectors share: `detector.*`. Each class adds its own (sare_core/detectors)."""

from typing import ClassVar, Literal

from pydantic import Field

from sare_core.config.section import Section


class DetectorSettings(Section):
    """Which detector, its pre-trained encoders, and how it sees images and maps (paper 4.1)."""

    models: ClassVar[dict[str, str]] = {
        "image_encoder": "image_encoder_revision",
        "semantic_encoder": "semantic_encoder_revision",
    }
    files: ClassVar[frozenset[str]] = frozenset({*models, *models.values()})

    detector: str  # a name in sare_core.detectors, or "package.module:Class" of an own one
    # Of these a detector loads those that it has a use for.
    image_encoder: str | None = None  # E_x: a CLIP vision model with projection (transformers), by hub id or folder
    image_encoder_revision: str | None = None
    semantic_encoder: str | None = None  # E_s: a timm ResNet, by hub id or folder
    semantic_encoder_revision: str | None = None
    input_size: int = Field(ge=8)  # 4.1: 224
    image_view: Literal["crop", "resize"] = "crop"  # native size, padded and cropped (DRCT); or resized first
    sare_view: Literal["whole", "crop"] = "whole"  # the whole map resized; or cropped together with the image
    normalization: Literal["imagenet", "clip"] = "imagenet"  # DRCT feeds CLIP with ImageNet's constants
