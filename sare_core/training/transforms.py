"""From an image and its SARE map, as stored, to the two normalised tensors that a detector reads.

Paper 4.1 and DRCT, in DRCT's order: flip, noise, blur, quarter turn, zero padding, crop, normalisation. The geometry
is shared by image and map; noise and blur touch the image only, since the map is a measurement of it.
All work before the normalisation is on 8-bit pixels, so that padding is black.
"""

import hashlib

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from sare_core.config.detectors import DetectorSettings
from sare_core.config.training import AugmentSettings

# Mean and standard deviation of R, G and B in [0, 1].
NORMALIZATION = {
    "imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "clip": ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]),
}


def sample_generator(seed: int, epoch: int, image_id: str) -> torch.Generator:
    """The generator of one image in one epoch: workers, processes and order play no part in what it draws."""
    digest = hashlib.sha256(f"{seed}/{epoch}/{image_id}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8]))


def prepare(
    image: Image.Image,
    sare: Image.Image,
    settings: DetectorSettings,
    augment: AugmentSettings | None = None,
    rng: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """The detector's views of an RGB image and its RGB map: two float32 tensors (3, S, S), S = `input_size`.

    By `semantic_input` the image itself, brought to the size of the map, or a map of zeros takes the place of the map;
    from there on it is treated alike.

    With `augment` (training) flips, turns, noise, blur and the place of the crop are drawn from `rng`, nine numbers
    whatever comes of them (and a field of noise where that is added). Without it (evaluation) the crop is the centre.
    Raises ValueError: only one of `augment` and `rng` is given.
    """
    size = settings.input_size
    x, s = F.pil_to_tensor(image), F.pil_to_tensor(sare)
    if settings.semantic_input == "image":
        s = F.resize(x, list(s.shape[-2:]), antialias=True)
    elif settings.semantic_input == "zero":
        s = torch.zeros_like(s)
    if settings.image_view == "resize":
        x = F.resize(x, [size], antialias=True)  # the shorter side
    if settings.sare_view == "crop":
        s = F.resize(s, list(x.shape[-2:]), antialias=True)

    place = None
    if augment is not None and rng is not None:
        x, s, place = _augment(x, s, augment, rng)
    elif augment is not None or rng is not None:
        raise ValueError("augment and rng go together: both for training, neither for evaluation")

    x = _crop(x, size, place)
    s = _crop(s, size, place) if settings.sare_view == "crop" else F.resize(s, [size, size], antialias=True)
    mean, std = NORMALIZATION[settings.normalization]
    x, s = (F.normalize(F.to_dtype(view, torch.float32, scale=True), mean, std) for view in (x, s))
    return x, s


def _augment(
    x: Tensor, s: Tensor, augment: AugmentSettings, rng: torch.Generator
) -> tuple[Tensor, Tensor, tuple[float, float]]:
    """Both views augmented, and the place of the crop in [0, 1) from the top and from the left."""
    flip, noise, variance, blur, kernel, rotate, turns, top, left = torch.rand(9, generator=rng).tolist()
    if flip < augment.flip:
        x, s = F.horizontal_flip(x), F.horizontal_flip(s)
    if noise < augment.noise:
        low, high = augment.noise_variance
        field = torch.randn(x.shape, generator=rng) * (low + variance * (high - low)) ** 0.5
        x = (x + field).round().clamp(0, 255).to(torch.uint8)
    if blur < augment.blur:
        smallest, largest = augment.blur_kernel
        size = smallest + 2 * int(kernel * ((largest - smallest) // 2 + 1))
        size = min(size, 2 * min(x.shape[-2:]) - 1)  # the border is mirrored, which reaches no further
        x = F.gaussian_blur(x, [size, size])  # sigma 0.15 size + 0.35, as OpenCV has it
    if rotate < augment.rotate90:
        quarters = int(turns * 4)  # 0 is one of the four, as in DRCT
        x, s = torch.rot90(x, quarters, dims=(-2, -1)), torch.rot90(s, quarters, dims=(-2, -1))
    return x, s, (top, left)


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
