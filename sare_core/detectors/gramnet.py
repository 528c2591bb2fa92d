"""GramNet (Liu et al., CVPR 2020): a ResNet-18, and Gram matrices of its features at six depths, which tell texture.

As DRCT trains it for its tables: random weights, one logit of fake. The authors' own has ImageNet weights
(detector.backbone=timm/resnet18.tv_in1k detector.architecture=null), images squashed to 512 pixels, and 1 for real.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sare_core.config.detectors import BackboneSettings
from sare_core.detectors.base import Detector
from sare_core.detectors.encoders import build_backbone
from sare_core.errors import ConfigError

DEPTHS = (3, 64, 64, 64, 128, 256)  # channels of: image, first convolution, pooled, stages 1 to 3
LAST = 512


class GramNetSettings(BackboneSettings):
    architecture: str | None = "resnet18"


class GramNetDetector(Detector):
    """The trunk's pooled features and six Gram vectors, scaled by one number that is learnt, through two layers.

    Raises ConfigError: the network is no ResNet-18 or -34.
    """

    Settings = GramNetSettings
    needs = frozenset({"image"})
    maps: ClassVar[dict[str, dict[str, Any]]] = {}
    source = "Liu et al., CVPR 2020"
    released = True

    def __init__(self, settings: GramNetSettings, encoders: dict[str, Any]) -> None:
        super().__init__(settings, encoders)
        self.backbone = build_backbone(settings, encoders)
        stages = [stage["num_chs"] for stage in getattr(self.backbone.network, "feature_info", [])]
        if stages != [64, 64, 128, 256, LAST] or not hasattr(self.backbone.network, "layer4"):
            raise ConfigError(
                "detector gramnet takes a ResNet-18 or ResNet-34 of timm, as backbone or as architecture."
            )
        self.branches = nn.ModuleList(GramBranch(channels) for channels in DEPTHS)
        self.scale = nn.Parameter(torch.ones(1))
        self.hidden = nn.Sequential(nn.Linear(LAST + 32 * len(DEPTHS), LAST), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(LAST, 1)

    @classmethod
    def roles(cls, settings: GramNetSettings) -> tuple[str, ...]:
        return () if settings.architecture is not None else ("backbone",)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Logits (B,) of images (B, 3, S, S), normalised."""
        trunk, x = self.backbone.network, batch["image"]
        depths = [x]
        depths.append(trunk.act1(trunk.bn1(trunk.conv1(x))))
        depths.append(trunk.maxpool(depths[-1]))
        for stage in (trunk.layer1, trunk.layer2, trunk.layer3):
            depths.append(stage(depths[-1]))
        textures = [self.scale * branch(depth) for branch, depth in zip(self.branches, depths, strict=True)]
        pooled = trunk.layer4(depths[-1]).mean(dim=(2, 3))
        return self.head(self.hidden(torch.cat([pooled, *textures], dim=1))).squeeze(-1)


class GramBranch(nn.Module):
    """From features (B, C, h, w) to 32 numbers that say how their channels go together, wherever that is."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.features = _convolution(channels, 32)
        self.summary = nn.Sequential(_convolution(1, 16, 2), _convolution(16, 32, 2), nn.AdaptiveAvgPool2d(1))

    def forward(self, features: Tensor) -> Tensor:
        return self.summary(gram(self.features(features)).unsqueeze(1)).flatten(1)


def gram(features: Tensor) -> Tensor:
    """Inner products of the channels of (B, C, h, w) over all places, divided by C h w: (B, C, C)."""
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2) / features[0].numel()


def _convolution(channels: int, out: int, stride: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(out), nn.ReLU())
