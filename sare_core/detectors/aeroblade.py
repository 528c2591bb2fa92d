"""AEROBLADE (Ricker et al., CVPR 2024): the LPIPS distance of an image from what the autoencoder makes of it.

Nothing in it is trained but a threshold and a steepness, which make a logit of the distance and leave its order, and so
the AUC, as it is. Its authors take the least distance over several autoencoders, and whole images; here it is one
autoencoder, and what the crop leaves of image and x̂ at the size of the image.
"""

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from sare_core.config.detectors import DetectorSettings
from sare_core.detectors.base import Detector
from sare_core.reconstruction.perceptual import lpips_network


class AerobladeSettings(DetectorSettings):
    lpips: Literal["vgg", "alex", "alex-random"] = "vgg"
    layer: int | None = Field(2, ge=1, le=5)  # whose distance it is; null: the sum of all five, which is LPIPS
    sare_view: Literal["whole", "crop"] = "crop"  # x̂ together with the image
    normalization: Literal["none"] = "none"


class AerobladeDetector(Detector):
    """A small distance means fake.

    Raises ConfigError: the weights of LPIPS's network are unavailable.
    """

    Settings = AerobladeSettings
    needs = frozenset({"image", "reconstruction"})
    maps: ClassVar[dict[str, dict[str, Any]]] = {"sare": {"reconstruct.method": "autoencoder"}}
    source = "Ricker et al., CVPR 2024"

    def __init__(self, settings: AerobladeSettings, encoders: dict[str, Any]) -> None:
        super().__init__(settings, encoders)
        self.layer = settings.layer
        self.lpips = lpips_network(settings.lpips, "detector.lpips")
        self.freeze("lpips")
        self.scale = nn.BatchNorm1d(1, affine=False)
        self.threshold, self.steepness = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))

    def distance(self, image: Tensor, reconstruction: Tensor) -> Tensor:
        """LPIPS (B,) >= 0 of pictures (B, 3, S, S) in [0, 1]."""
        whole, layers = self.lpips(image, reconstruction, retPerLayer=True, normalize=True)
        found: Tensor = whole if self.layer is None else layers[self.layer - 1]
        return found.flatten()

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Logits (B,) of image and x̂ ("reconstruction")."""
        distance = self.scale(self.distance(batch["image"], batch["reconstruction"])[:, None])
        return (self.steepness.exp() * (self.threshold - distance)).squeeze(-1)
