"""DRCT (Chen et al., ICML 2024): an image detector that is trained on reconstructions too, with a contrastive loss.

The paper's backbone (4.1). Its reconstructions are Stable Diffusion in-painting with an empty mask and no prompt:
`reconstruct.method=inpaint` with an in-painting model and `reconstruct.strength=1`. Under other methods x̂ is theirs,
without a caption in any case. What differs from DRCT's code: one logit in place of two (the same loss, its difference);
pairs are those of a micro-batch (DRCT: of the batch on all GPUs, so set train.micro_batch_size accordingly); held-out
images are scored without their reconstructions.
"""

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import normalize, relu

from sare_core.config.detectors import BackboneSettings
from sare_core.detectors.base import Detector
from sare_core.detectors.encoders import build_backbone, require_input_size
from sare_core.detectors.transforms import Parts


class DrctSettings(BackboneSettings):
    """With `backbone` or `architecture` its Conv-B form, trained as a whole; else on CLIP, the image encoder."""

    tune_image_encoder: bool = False
    embed_dim: int = Field(1024, ge=1)
    contrastive_weight: float = Field(0.3, ge=0, le=1)  # α; the cross-entropy has the rest


class DrctDetector(Detector):
    """Features of the image, a linear embedding, one logit. In training an image is two samples: itself, and x̂, a fake.

    Raises ConfigError: `input_size` is not the encoder's own.
    """

    Settings = DrctSettings
    needs = frozenset({"image", "reconstruction"})
    maps: ClassVar[dict[str, dict[str, Any]]] = {"sare": {"caption.captioner": "none", "caption.model": None}}
    scored_alone = True
    source = "Chen et al., ICML 2024"
    released = True

    def __init__(self, settings: DrctSettings, encoders: dict[str, Any]) -> None:
        super().__init__(settings, encoders)
        self.contrastive_weight = settings.contrastive_weight
        self.image_encoder: Any = None
        if "image_encoder" in encoders:
            self.image_encoder = encoders["image_encoder"]
            require_input_size(self.image_encoder, settings.input_size)
            width = self.image_encoder.config.projection_dim
            if not settings.tune_image_encoder:
                self.freeze("image_encoder")
        else:
            self.backbone = build_backbone(settings, encoders)
            width = self.backbone.width
        self.embedding = nn.Linear(width, settings.embed_dim)
        self.head = nn.Linear(settings.embed_dim, 1)
        self._embedded = torch.empty(0)  # of the last batch, for the loss

    @classmethod
    def roles(cls, settings: DrctSettings) -> tuple[str, ...]:
        if settings.architecture is not None:
            return ()
        return ("image_encoder",) if settings.backbone is None else ("backbone",)

    @classmethod
    def samples(cls, settings: DrctSettings) -> tuple[str, ...]:
        return ("image", "reconstruction")

    @classmethod
    def sample(cls, name: str, parts: Parts, label: int) -> tuple[Parts, int]:
        """The image with its label, or x̂, which is a fake whatever it was made of."""
        return {"image": parts[name]}, label if name == "image" else 1

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Logits (B,) of images (B, 3, S, S), normalised."""
        if self.image_encoder is not None:
            features = self.image_encoder(pixel_values=batch["image"]).image_embeds
        else:
            features = self.backbone(batch["image"])
        self._embedded = self.embedding(features)
        return self.head(self._embedded).squeeze(-1)

    def loss(self, logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """(1 - α) cross-entropy + α contrastive loss of the embeddings that led to these logits."""
        contrast = contrastive_loss(self._embedded.float(), batch["label"])
        return (1 - self.contrastive_weight) * super().loss(logits, batch) + self.contrastive_weight * contrast


def contrastive_loss(embeddings: Tensor, labels: Tensor, margin: float = 1.0) -> Tensor:
    """Distances d of L2-normalised embeddings (B, D): the mean d of pairs of one label, and that of (margin - d)+ of
    the other pairs. Each mean is over those of its terms that are not 0, and 0 where there are none.

    It is what DRCT calls: ContrastiveLoss(pos_margin=0, neg_margin=1) of pytorch-metric-learning.
    """
    distances = torch.pdist(normalize(embeddings))
    first, second = torch.triu_indices(len(labels), len(labels), offset=1, device=labels.device)
    alike = labels[first] == labels[second]
    return _mean_of_positive(distances[alike]) + _mean_of_positive(relu(margin - distances[~alike]))


def _mean_of_positive(terms: Tensor) -> Tensor:
    return terms.sum() / (terms > 0).sum().clamp(min=1)
