"""From an image and its SARE maps, as stored, to the normalised tensors that a detector reads.

Paper 4.1 and DRCT, in DRCT's order: flip, noise, blur, quarter turn, zero padding, crop, normalisation. The geometry
is shared by image and maps; noise and blur touch the image only, since a map is a measurement of it.
All work before the normalisation is on 8-bit pixels, so that padding is black.
"""

from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from sare_core.config.detectors import DetectorSettings
from sare_core.config.training import AugmentSettings

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

    With `augment` (training) flips, turns, noise, blur and the place of the crop are drawn from `rng`, nine numbers
    whatever comes of them (and a field of noise where that is added). Without it (evaluation) the crop is the centre.
    Raises ValueError: only one of `augment` and `rng` is given.
    """
    size = settings.input_size
    views = {name: as_tensor(part) for name, part in parts.items() if isinstance(part, Image.Image | Tensor)}
    if "image" in views and settings.image_view == "resize":
        views["image"] = F.resize(views["image"], [size], antialias=True)  # the shorter side
    if "image" in views and settings.sare_view == "crop":
        shape = list(views["image"].shape[-2:])
        views |= {name: F.resize(view, shape, antialias=True) for name, view in views.items() if name != "image"}

    place = None
    if augment is not None and rng is not None:
        views, place = _augment(views, augment, rng)
    elif augment is not None or rng is not None:
        raise ValueError("augment and rng go together: both for training, neither for evaluation")

    mean, std = NORMALIZATION[settings.normalization]
    for name, view in views.items():
        cropped = name == "image" or settings.sare_view == "crop"
        view = _crop(view, size, place) if cropped else F.resize(view, [size, size], antialias=True)
        views[name] = F.normalize(F.to_dtype(view, torch.float32, scale=True), mean, std)
    return views


def as_tensor(picture: Any) -> Tensor:
    """An RGB picture as a uint8 tensor (3, H, W); a tensor as it is."""
    return picture if isinstance(picture, Tensor) else F.pil_to_tensor(picture)


def _augment(
    views: dict[str, Tensor], augment: AugmentSettings, rng: torch.Generator
) -> tuple[dict[str, Tensor], tuple[float, float]]:
    """All views augmented, and the place of the crop in [0, 1) from the top and from the left."""
    flip, noise, variance, blur, kernel, rotate, turns, top, left = torch.rand(9, generator=rng).tolist()
    if flip < augment.flip:
        views = {name: F.horizontal_flip(view) for name, view in views.items()}
    x = views.get("image")
    if x is not None and noise < augment.noise:
        low, high = augment.noise_variance
        field = torch.randn(x.shape, generator=rng) * (low + variance * (high - low)) ** 0.5
        x = (x + field).round().clamp(0, 255).to(torch.uint8)
    if x is not None and blur < augment.blur:
        smallest, largest = augment.blur_kernel
        size = smallest + 2 * int(kernel * ((largest - smallest) // 2 + 1))
        size = min(size, 2 * min(x.shape[-2:]) - 1)  # the border is mirrored, which reaches no further
        x = F.gaussian_blur(x, [size, size])  # sigma 0.15 size + 0.35, as OpenCV has it
    views |= {} if x is None else {"image": x}
    if rotate < augment.rotate90:
        quarters = int(turns * 4)  # 0 is one of the four, as in DRCT
        views = {name: torch.rot90(view, quarters, dims=(-2, -1)) for name, view in views.items()}
    return views, (top, left)


def _crop(view: Tensor, size: int, place: tuple[float, float] | None) -> Tensor:
    """A size x size window at `place`, or at the centre, of (3, H, W); what is smaller is centred on black first."""
    narrow, short = (max(size - side, 0) for side in (view.shape[-1], view.shape[-2]))
    view = F.pad(view, [narrow // 2, short // 2, narrow - narrow // 2, short - short // 2])
    spare_y, spare_x = view.shape[-2] - size, view.shape[-1] - size
    if place is None:
        top, left = spare_y // 2, spare_x // 2
    else:
        top, left = int(place[0] * (spare_y + 1)), int(place[1] * (spare_x + 1))
    return F.crop(view, top, left, size, size)
