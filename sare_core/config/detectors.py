"""Settings that all detectors share: `detector.*`. Each class adds its own (sare_core/detectors).

A class that gives a shared setting a default of its own means it: where `--set detector.detector` names it in place of
a preset's detector, that default comes before the preset's value.
"""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

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
    normalization: Literal["imagenet", "clip", "none"] = "imagenet"  # DRCT feeds CLIP with ImageNet's; none: [0, 1]


class BackboneSettings(DetectorSettings):
    """Of a detector around a network of timm: a pre-trained one, or an architecture with random weights."""

    models: ClassVar[dict[str, str]] = DetectorSettings.models | {"backbone": "backbone_revision"}
    files: ClassVar[frozenset[str]] = frozenset({*models, *models.values()})

    backbone: str | None = None  # by hub id or folder, of timm or open_clip
    backbone_revision: str | None = None
    architecture: str | None = None  # a name of timm, such as resnet18, in place of `backbone`: random weights

    @model_validator(mode="after")
    def _one_network(self) -> Self:
        if self.backbone is not None and self.architecture is not None:
            raise ValueError("backbone and architecture: each names the network; set one of them to null")
        return self
