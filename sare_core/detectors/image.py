"""A plain image detector: a linear layer on frozen CLIP (as Ojha et al., CVPR 2023, UnivFD). It never sees the map."""

from torch import Tensor, nn

from sare_core.config.detectors import DetectorSettings
from sare_core.detectors.base import Detector
from sare_core.detectors.encoders import load_image_encoder, require_input_size


class ImageDetector(Detector):
    """The image branch alone: CLIP's projected embedding and one fully connected layer. Neither fusion nor f_s.

    Raises ConfigError: the image encoder's folder is unusable, or `input_size` is not its own.
    """

    inputs = ("image",)
    encoders = ("image_encoder",)

    def __init__(self, settings: DetectorSettings, image_encoder_dir: str, semantic_encoder_dir: str) -> None:
        super().__init__()
        self.image_encoder = load_image_encoder(image_encoder_dir)
        require_input_size(self.image_encoder, image_encoder_dir, settings.input_size)
        if not settings.tune_image_encoder:
            self.freeze("image_encoder")
        self.head = nn.Linear(self.image_encoder.config.projection_dim, 1)

    def forward(self, image: Tensor, sare: Tensor) -> Tensor:
        """Logits (B,) of images (B, 3, S, S), normalised; `sare` is there for the common interface and unused."""
        return self.head(self.image_encoder(pixel_values=image).image_embeds).squeeze(-1)
