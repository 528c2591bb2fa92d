"""A linear layer on any frozen image encoder of timm or open_clip: Perception Encoder, DINOv3, MetaCLIP 2, ResNets."""

from typing import Any, Literal

from torch import Tensor
from torchvision.transforms.v2 import functional as F

from sare_core.config.detectors import BackboneSettings
from sare_core.detectors.conv_b import ConvBDetector


class LinearProbeSettings(BackboneSettings):
    backbone: str | None = "timm/vit_pe_core_base_patch16_224.fb"
    normalization: Literal["none"] = "none"  # the encoder's own mean and deviation take its place


class LinearProbe(ConvBDetector):
    """Images as the encoder was pre-trained on them, and one logit from its features, of which only the head learns."""

    Settings = LinearProbeSettings
    source = "linear probe"

    def __init__(self, settings: LinearProbeSettings, encoders: dict[str, Any]) -> None:
        super().__init__(settings, encoders)
        self.freeze("backbone")

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Logits (B,) of images (B, 3, S, S) in [0, 1]."""
        images = F.normalize(batch["image"], list(self.backbone.mean), list(self.backbone.std))
        return super().forward({"image": images})
