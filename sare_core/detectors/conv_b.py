"""Conv-B: ConvNeXt-Base (Liu et al., CVPR 2022), trained as a whole to tell fakes, as in the tables of DRCT."""

from typing import Any, ClassVar

from torch import Tensor, nn

from sare_core.config.detectors import BackboneSettings, DetectorSettings
from sare_core.detectors.base import Detector
from sare_core.detectors.encoders import build_backbone


class ConvBSettings(BackboneSettings):
    backbone: str | None = "timm/convnext_base.fb_in22k"  # DRCT: ImageNet-22k weights


class ConvBDetector(Detector):
    """A network of timm and a linear layer on its features.

    Raises ConfigError: there is no such network, or it takes images of another size.
    """

    Settings: ClassVar[type[DetectorSettings]] = ConvBSettings
    needs = frozenset({"image"})
    maps: ClassVar[dict[str, dict[str, Any]]] = {}
    source = "Liu et al., CVPR 2022"

    def __init__(self, settings: BackboneSettings, encoders: dict[str, Any]) -> None:
        super().__init__(settings, encoders)
        self.backbone = build_backbone(settings, encoders)
        self.head = nn.Linear(self.backbone.width, 1)

    @classmethod
    def roles(cls, settings: BackboneSettings) -> tuple[str, ...]:
        return () if settings.architecture is not None else ("backbone",)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Logits (B,) of images (B, 3, S, S), normalised."""
        return self.head(self.backbone(batch["image"])).squeeze(-1)
