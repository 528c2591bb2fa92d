"""C2P-CLIP (Tan et al., AAAI 2025) as its released weights are: a linear layer on CLIP's L2-normalised embedding.

Its training, by LoRA under prompts of categories, was never released and is not built: here the head learns, or with
`detector.tune_image_encoder=true` all.
"""

from typing import Literal

from torch import Tensor
from torch.nn.functional import normalize

from sare_core.detectors.image import ImageDetector, ImageSettings


class C2PClipSettings(ImageSettings):
    image_view: Literal["crop", "resize"] = "resize"
    normalization: Literal["imagenet", "clip", "none"] = "clip"


class C2PClipDetector(ImageDetector):
    """The detector `image` on embeddings of length 1."""

    Settings = C2PClipSettings
    source = "Tan et al., AAAI 2025"
    released = True

    def features(self, images: Tensor) -> Tensor:
        return normalize(super().features(images))
