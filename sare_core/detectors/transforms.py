"""From an image and its SARE maps, as stored, to the normalised tensors that a detector reads.

Paper 4.1 and DRCT, in DRCT's order: flip, noise, blur, quarter turn, zero padding, crop, normalisation. The geometry
is shared by image and maps; noise and blur touch the image only, since a map is a measurement of it.
All work before the normalisation is on 8-bit pixels, so that padding is black. Noise and blur are computed where the
crop will be, and as far around it as the blur reaches: the same pixels as of the whole image, in less time.
"""

from typing import Any, NamedTuple

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
}


class _Chance(NamedTuple):
    """What is drawn for a sample. Without anything drawn it is the centre, unchanged.

    noise: the standard deviation, in levels. blur: the kernel's side in pixels, 0 for none. quarters: turns by 90°.
    place: of the crop, in [0, 1) of what there is to spare from the top and from the left; None: the centre.
    """

    flip: bool = False
    noise: float = 0.0
    blur: int = 0
    quarters: int = 0
    place: tuple[float, float] | None = None


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

    if (augment is None) != (rng is None):
        raise ValueError("augment and rng go together: both for training, neither for evaluation")
    drawn = _Chance() if augment is None or rng is None else _draw(augment, rng)
    mean, std = NORMALIZATION[settings.normalization]
    for name, view in views.items():
        view = F.horizontal_flip(view) if drawn.flip else view
        if name == "image":
            view = _image_window(view, size, drawn, rng)
        elif settings.sare_view == "crop":
            view = _window(view, size, drawn)
        else:
            view = F.resize(_turn(view, drawn.quarters), [size, size], antialias=True)
        views[name] = F.normalize(F.to_dtype(view.contiguous(), torch.float32, scale=True), mean, std)
    return views


def as_tensor(picture: Any) -> Tensor:
    """An RGB picture as a uint8 tensor (3, H, W); a tensor as it is."""
    return picture if isinstance(picture, Tensor) else F.pil_to_tensor(picture)


def _draw(augment: AugmentSettings, rng: torch.Generator) -> _Chance:
    flip, noise, variance, blur, kernel, rotate, turns, top, left = torch.rand(9, generator=rng).tolist()
    low, high = augment.noise_variance
    smallest, largest = augment.blur_kernel
    return _Chance(
        flip=flip < augment.flip,
        noise=(low + variance * (high - low)) ** 0.5 if noise < augment.noise else 0.0,
        blur=smallest + 2 * int(kernel * ((largest - smallest) // 2 + 1)) if blur < augment.blur else 0,
        quarters=int(turns * 4) if rotate < augment.rotate90 else 0,  # 0 is one of the four, as in DRCT
        place=(top, left),
    )


def _turn(view: Tensor, quarters: int) -> Tensor:
    return torch.rot90(view, quarters, dims=(-2, -1)) if quarters else view


def _window(view: Tensor, size: int, drawn: _Chance) -> Tensor:
    """The crop of (3, H, W) after its turn; what is smaller than `size` is centred on black."""
    view = _turn(view, drawn.quarters)
    rows, columns = _spans(view, size, drawn.place)
    return _pad(view[..., rows, columns], size)


def _image_window(view: Tensor, size: int, drawn: _Chance, rng: torch.Generator | None) -> Tensor:
    """The same of an image to which noise and blur come before the turn."""
    kernel = min(drawn.blur, 2 * min(view.shape[-2:]) - 1)  # the border is mirrored, which reaches no further
    reach = kernel // 2
    # The field is drawn for the whole image: other numbers would make other samples, and other detectors.
    field = torch.randn(view.shape, generator=rng) if drawn.noise else None
    turned = _turn(view, drawn.quarters)
    rows, columns = _spans(turned, size, drawn.place)
    top, left = max(rows.start - reach, 0), max(columns.start - reach, 0)
    around = ..., slice(top, rows.stop + reach), slice(left, columns.stop + reach)
    x = turned[around]
    if field is not None:
        field = _turn(field, drawn.quarters)[around] * drawn.noise
        x = (x + field).round().clamp(0, 255).to(torch.uint8)
    if kernel > 1:
        upright = _turn(x, -drawn.quarters)
        x = _turn(F.gaussian_blur(upright, [kernel, kernel]), drawn.quarters)  # sigma 0.15 size + 0.35, as OpenCV's
    x = x[..., rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    return _pad(x, size)


def _spans(view: Tensor, size: int, place: tuple[float, float] | None) -> list[slice]:
    """Rows and columns of (…, H, W) that a size × size window at `place`, or at the centre, sees."""
    spare = [max(side - size, 0) for side in view.shape[-2:]]
    starts = [n // 2 for n in spare] if place is None else [int(p * (n + 1)) for p, n in zip(place, spare, strict=True)]
    return [slice(start, start + min(side, size)) for start, side in zip(starts, view.shape[-2:], strict=True)]


def _pad(view: Tensor, size: int) -> Tensor:
    narrow, short = size - view.shape[-1], size - view.shape[-2]
    return F.pad(view, [narrow // 2, short // 2, narrow - narrow // 2, short - short // 2])
