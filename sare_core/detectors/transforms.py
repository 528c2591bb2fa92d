"""From an image and its SARE maps, as stored, to the normalised tensors that a detector reads.

Paper 4.1 and DRCT: augmentation, zero padding, crop, augmentation of what is left (augment.py says which), and
normalisation. All work before the last is on 8-bit pixels, so that padding is black.
"""

from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from sare_core.config.detectors import DetectorSettings
from sare_core.config.training import AugmentSettings
from sare_core.detectors.augment import Augmentation
from sare_core.detectors.window import window

Parts = dict[str, Any]  # of an image, as they are stored: pictures by name, and its caption

# Mean and standard deviation of R, G and B in [0, 1].
NORMALIZATION = {
    "imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "clip": ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]),
    "none": ([0.0, 0.0, 0.0], [1.0, 1.0, 1.0]),
}


def prepare(
    parts: Parts,
    settings: DetectorSettings,
    augment: AugmentSettings | None = None,
    rng: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """The detector's views of an image's parts: of each picture a float32 tensor (3, S, S), S = `input_size`.

    parts: RGB pictures, or uint8 tensors (3, H, W) of them: "image" is the image, if it is there; all others are maps
    of it, and treated alike. What is no picture is left out.

    With `augment` (training) what is done to the views, and the place of the crop, are drawn from `rng`. Without it
    (evaluation) the crop is the centre.
    Raises ValueError: only one of `augment` and `rng` is given.
    """
    size = settings.input_size
    views = {name: as_tensor(part) for name, part in parts.items() if isinstance(part, Image.Image | Tensor)}
    if "image" in views and settings.image_view == "resize":
        views["image"] = F.resize(views["image"], [size], antialias=True)  # the shorter side
    if "image" in views and settings.sare_view == "crop":
        shape = list(views["image"].shape[-2:])
        views |= {name: F.resize(view, shape, antialias=True) for name, view in views.items() if name != "image"}

    if (augment is None) != (rng is None):
        raise ValueError("augment and rng go together: both for training, neither for evaluation")
    drawn = Augmentation(augment, rng) if augment and rng else None
    cropped = set(views) if settings.sare_view == "crop" else {"image"}
    if drawn:
        views = drawn.before_crop(views, cropped)
    for name, view in views.items():
        if drawn is None:
            views[name] = window(view, size) if name in cropped else F.resize(view, [size, size], antialias=True)
        elif name == "image":
            views[name] = drawn.noisy_window(view, size)
        else:
            view = drawn.turned(view)
            crop = name in cropped
            views[name] = window(view, size, drawn.place) if crop else F.resize(view, [size, size], antialias=True)
    if drawn:
        views = drawn.after_crop(views)
    mean, std = NORMALIZATION[settings.normalization]
    return {
        name: F.normalize(F.to_dtype(view.contiguous(), torch.float32, scale=True), mean, std)
        for name, view in views.items()
    }


def as_tensor(picture: Any) -> Tensor:
    """An RGB picture as a uint8 tensor (3, H, W); a tensor as it is."""
    return picture if isinstance(picture, Tensor) else F.pil_to_tensor(picture)
