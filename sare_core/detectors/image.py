"""A plain image detector: a linear layer on frozen CLIP (as Ojha et al., CVPR 2023, UnivFD). It never sees a map."""

from typing import Any, ClassVar

from torch import Tensor, nn

from sare_core.config.detectors import DetectorSettings
from sare_core.detectors.base import Detector
from sare_core.detectors.encoders import require_input_size


class ImageSettings(DetectorSettings):
    tune_image_encoder: bool = False  # DRCT and UnivFD freeze it


class ImageDetector(Detector):
    """The image branch alone: CLIP's projected embedding and one fully connected layer. Neither fusion nor f_s.

    Raises ConfigError: `input_size` is not the image encoder's own.
    """

    Settings = ImageSettings
    needs = frozenset({"image"})
    maps: ClassVar[dict[str, dict[str, Any]]] = {}
    encoders = ("image_encoder",)
    source = "ablation: the image alone"

    def __init__(self, settings: ImageSettings, encoders: dict[str, Any]) -> None:
        super().__init__(settings, encoders)
        self.image_encoder = encoders["image_encoder"]
        require_input_size(self.image_encoder, settings.input_size)
        if not settings.tune_image_encoder:
            self.freeze("image_encoder")
        self.head = nn.Linear(self.image_encoder.config.projection_dim, 1)

    def features(self, images: Tensor) -> Tensor:
        """(B, projection_dim) of images (B, 3, S, S), normalised."""
        features: Tensor = self.image_encoder(pixel_values=images).image_embeds
        return features

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Logits (B,) of images (B, 3, S, S), normalised."""
        return self.head(self.features(batch["image"])).squeeze(-1)
