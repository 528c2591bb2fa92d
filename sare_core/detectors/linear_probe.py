"""A linear layer on any frozen image encoder of timm or open_clip: Perception Encoder, DINOv3, MetaCLIP 2, ResNets."""

from typing import Any, Literal

from torch import Tensor, nn
from torchvision.transforms.v2 import functional as F

from sare_core.config.detectors import BackboneSettings
from sare_core.detectors.conv_b import ConvBDetector


class LinearProbeSettings(BackboneSettings):
    backbone: str | None = "timm/vit_pe_core_base_patch16_224.fb"
    normalization: Literal["none"] = "none"  # the encoder's own mean and deviation take its place


class LinearProbe(ConvBDetector):
    """Images as the encoder was pre-trained on them, and a linear layer on its features, the only part that learns.

    Features are first brought to mean 0 and variance 1 over the training images: encoders differ in scale, and one
    learning rate would not do for all.
    """

    Settings = LinearProbeSettings
    source = "linear probe"

    def __init__(self, settings: LinearProbeSettings, encoders: dict[str, Any]) -> None:
        super().__init__(settings, encoders)
        self.freeze("backbone")
        self.scale = nn.BatchNorm1d(self.backbone.width, affine=False)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Logits (B,) of images (B, 3, S, S) in [0, 1]."""
        images = F.normalize(batch["image"], list(self.backbone.mean), list(self.backbone.std))
        return self.head(self.scale(self.backbone(images))).squeeze(-1)
