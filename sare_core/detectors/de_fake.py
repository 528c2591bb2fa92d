"""DE-FAKE (Sha et al., CCS 2023): CLIP's embeddings of the image and of its caption, side by side, and three layers.

As its training script has it, CLIP is frozen and captions are BLIP's; the released CLIP is a tuned one.
"""

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from sare_core.config.detectors import DetectorSettings
from sare_core.config.training import AugmentSettings
from sare_core.detectors.base import Detector
from sare_core.detectors.encoders import require_input_size
from sare_core.detectors.transforms import Parts

TEXT_BYTES = 400  # of a caption, in UTF-8; CLIP's 77 tokens seldom hold as many


class DeFakeSettings(DetectorSettings):
    models: ClassVar[dict[str, str]] = DetectorSettings.models | {"text_encoder": "text_encoder_revision"}
    files: ClassVar[frozenset[str]] = frozenset({*models, *models.values()})

    image_encoder: str | None = "openai/clip-vit-base-patch32"
    text_encoder: str | None = "openai/clip-vit-base-patch32"  # a CLIP, or a Stable Diffusion with its text encoder
    text_encoder_revision: str | None = None
    image_view: Literal["crop", "resize"] = "resize"  # DE-FAKE squashes the image; here it is resized and cropped
    normalization: Literal["imagenet", "clip", "none"] = "clip"


class DeFakeDetector(Detector):
    """A perceptron on image and caption. The caption is that of the maps' folders, of which no map is read.

    Raises ConfigError: `input_size` is not the image encoder's own.
    """

    Settings = DeFakeSettings
    needs = frozenset({"image", "caption"})
    encoders = ("image_encoder", "text_encoder")
    source = "Sha et al., CCS 2023"
    released = True

    def __init__(self, settings: DeFakeSettings, encoders: dict[str, Any]) -> None:
        super().__init__(settings, encoders)
        self.image_encoder, self.text_encoder = encoders["image_encoder"], encoders["text_encoder"]
        require_input_size(self.image_encoder, settings.input_size)
        self.freeze("image_encoder")
        self.freeze("text_encoder")
        width = self.image_encoder.config.projection_dim + self.text_encoder.width
        self.hidden = nn.Sequential(nn.Linear(width, 512), nn.ReLU(), nn.Dropout(0.5), nn.Linear(512, 256), nn.ReLU())
        self.head = nn.Linear(256, 1)

    @classmethod
    def prepare(
        cls,
        parts: Parts,
        settings: DeFakeSettings,
        augment: AugmentSettings | None = None,
        rng: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """As of every detector; and the caption's bytes, filled up with zeros, since a batch is of tensors."""
        text = parts["caption"].encode()[:TEXT_BYTES].ljust(TEXT_BYTES, b"\0")
        caption = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        return super().prepare(parts, settings, augment, rng) | {"caption": caption}

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Logits (B,) of images (B, 3, S, S), normalised, and captions (B, bytes) uint8."""
        seen = self.image_encoder(pixel_values=batch["image"]).image_embeds
        said = self.text_encoder(_texts(batch["caption"]))
        return self.head(self.hidden(torch.cat([seen, said.to(seen.dtype)], dim=1))).squeeze(-1)


def _texts(captions: Tensor) -> list[str]:
    if captions.is_meta:
        return [""] * len(captions)
    return [bytes(row).rstrip(b"\0").decode(errors="ignore") for row in captions.tolist()]
