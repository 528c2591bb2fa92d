"""UnivFD (Ojha et al., CVPR 2023): the detector `image` with CLIP's own constants, as its authors train and test it.

DRCT and the paper's tables train it again with ImageNet's constants, which is `image`, or normalization=imagenet here.
"""

from typing import Literal

from sare_core.detectors.image import ImageDetector, ImageSettings


class UnivFDSettings(ImageSettings):
    normalization: Literal["imagenet", "clip", "none"] = "clip"


class UnivFDDetector(ImageDetector):
    """A linear layer on the projected embedding of frozen CLIP; images at their own size, padded and cropped."""

    Settings = UnivFDSettings
    source = "Ojha et al., CVPR 2023"
    released = True
