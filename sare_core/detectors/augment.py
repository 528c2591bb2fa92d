"""Augmentation in training, in DRCT's order and strengths (Chen et al., ICML 2024).

    before the crop   JPEG, scale, flip, noise, blur, quarter turn
    after it          colour, dropout, gray, and a shift, scale and turn

Paper 4.1 names flip, noise, blur and rotation; the others are off by default. The geometry is shared by image and maps;
all else touches the image only, since a map is a measurement of it. Of DRCT's list PCA noise is left out; hue,
saturation and value are torchvision's, which multiplies where albumentations adds.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from sare_core.config.training import AugmentSettings
from sare_core.detectors.window import padded, spans

Views = dict[str, Tensor]  # uint8 (3, H, W), by name: "image" is the image, all others are maps of it

HOLES, HOLE = 8, 8  # black squares, and their side in pixels
GRID = 10  # squares a side of the grid, each half as wide as its cell


class _Drawn(NamedTuple):
    """Numbers in [0, 1): for each augmentation whether it takes place, followed by what it needs."""

    flip: float
    noise: float
    variance: float
    blur: float
    kernel: float
    rotate: float
    turns: float
    top: float
    left: float


class _Further(NamedTuple):
    """The same for the rest of DRCT's list."""

    jpeg: float
    quality: float
    scale: float
    factor: float
    color: float
    which_color: float
    hue: float
    saturation: float
    value: float
    dropout: float
    which_dropout: float
    gray: float
    affine: float
    degrees: float
    zoom: float
    right: float
    down: float


class Augmentation:
    """What is done to the views of one image, drawn from its generator: nine numbers whatever comes of them; where any
    of the further ones is on, so many more; and a field of noise where that is added.

    place: of the crop, in [0, 1) from the top and from the left. quarters: turns by 90°.
    """

    def __init__(self, settings: AugmentSettings, rng: torch.Generator) -> None:
        self.settings, self.rng = settings, rng
        self.drawn = _Drawn(*torch.rand(len(_Drawn._fields), generator=rng).tolist())
        self.place = self.drawn.top, self.drawn.left
        # 0 is one of the four, as in DRCT.
        self.quarters = int(self.drawn.turns * 4) if self.drawn.rotate < settings.rotate90 else 0
        self.further: _Further | None = None
        if settings.further:
            self.further = _Further(*torch.rand(len(_Further._fields), generator=rng).tolist())
            self.holes = torch.rand(HOLES, 2, generator=rng).tolist()

    def before_crop(self, views: Views, cropped: set[str]) -> Views:
        """cropped: names of the views that are cropped and not resized; the others' scale plays no part."""
        if self.further:
            views = self._compress_and_scale(views, cropped, self.further)
        if self.drawn.flip < self.settings.flip:
            views = {name: F.horizontal_flip(view) for name, view in views.items()}
        return views

    def turned(self, view: Tensor) -> Tensor:
        """A view by its quarter turns."""
        return torch.rot90(view, self.quarters, dims=(-2, -1)) if self.quarters else view

    def noisy_window(self, view: Tensor, size: int) -> Tensor:
        """Of the image: with noise, blurred, turned, and then the window of it.

        Noise and blur are computed where the window will be, and as far around it as the blur reaches: the same pixels
        as of the whole image, in less time.
        """
        # The border is mirrored, which reaches no further.
        kernel = min(self._blur(), 2 * min(view.shape[-2:]) - 1)
        reach = kernel // 2
        # The field is drawn for the whole image: other numbers would make other samples, and other detectors.
        noise = self._noise()
        field = torch.randn(view.shape, generator=self.rng) * noise if noise else None
        whole = self.turned(view)
        rows, columns = spans(whole, size, self.place)
        top, left = max(rows.start - reach, 0), max(columns.start - reach, 0)
        around = ..., slice(top, rows.stop + reach), slice(left, columns.stop + reach)
        x = whole[around]
        if field is not None:
            x = _bytes(x + self.turned(field)[around])
        if kernel > 1:
            upright = torch.rot90(x, -self.quarters, dims=(-2, -1))
            x = self.turned(F.gaussian_blur(upright, [kernel, kernel]))  # sigma 0.15 size + 0.35, as OpenCV has it
        return padded(x[..., rows.start - top : rows.stop - top, columns.start - left : columns.stop - left], size)

    def _noise(self) -> float:
        """Standard deviation in levels; 0: none."""
        added = self.drawn.noise < self.settings.noise
        return _between(self.settings.noise_variance, self.drawn.variance) ** 0.5 if added else 0.0

    def _blur(self) -> int:
        """The kernel's side in pixels; 0: none."""
        smallest, largest = self.settings.blur_kernel
        size = smallest + 2 * int(self.drawn.kernel * ((largest - smallest) // 2 + 1))
        return size if self.drawn.blur < self.settings.blur else 0

    def _compress_and_scale(self, views: Views, cropped: set[str], drawn: _Further) -> Views:
        settings = self.settings
        if "image" in views and drawn.jpeg < settings.jpeg:
            low, high = settings.jpeg_quality
            views = views | {"image": F.jpeg(views["image"], low + int(drawn.quality * (high - low + 1)))}
        if drawn.scale < settings.scale:
            factor = _between(settings.scale_factor, drawn.factor)
            views = {name: _scaled(view, factor) if name in cropped else view for name, view in views.items()}
        return views

    def after_crop(self, views: Views) -> Views:
        """Of views of one size."""
        if (drawn := self.further) is None:
            return views
        settings = self.settings
        if (x := views.get("image")) is not None:
            if drawn.color < settings.color:
                x = _contrasted(x, drawn) if drawn.which_color < 0.5 else _tinted(x, drawn)
            if drawn.dropout < settings.dropout:
                x = _with_holes(x, self.holes) if drawn.which_dropout < 0.5 else _with_grid(x)
            if drawn.gray < settings.gray:
                x = F.rgb_to_grayscale(x, num_output_channels=3)
            views = views | {"image": x}
        if drawn.affine < settings.affine:
            shift = settings.affine_shift
            degrees = settings.affine_degrees * _either_way(drawn.degrees)
            zoom = 1 + settings.affine_scale * _either_way(drawn.zoom)
            right, down = shift * _either_way(drawn.right), shift * _either_way(drawn.down)
            views = {name: _moved(view, degrees, zoom, right, down) for name, view in views.items()}
        return views


def _between(limits: tuple[float, float], part: float) -> float:
    return limits[0] + part * (limits[1] - limits[0])


def _either_way(part: float) -> float:
    """[0, 1) to [-1, 1)."""
    return 2 * part - 1


def _bytes(pixels: Tensor) -> Tensor:
    return pixels.round().clamp(0, 255).to(torch.uint8)


def _scaled(view: Tensor, factor: float) -> Tensor:
    return F.resize(view, [max(1, round(side * factor)) for side in view.shape[-2:]], antialias=True)


def _contrasted(x: Tensor, drawn: _Further) -> Tensor:
    return _bytes(x * (1 + 0.2 * _either_way(drawn.saturation)) + 255 * 0.2 * _either_way(drawn.value))


def _tinted(x: Tensor, drawn: _Further) -> Tensor:
    x = F.adjust_hue(x, 20 / 180 * _either_way(drawn.hue))
    x = F.adjust_saturation(x, 1 + 30 / 255 * _either_way(drawn.saturation))
    return F.adjust_brightness(x, 1 + 20 / 255 * _either_way(drawn.value))


def _with_holes(x: Tensor, places: list[list[float]]) -> Tensor:
    x, (height, width) = x.clone(), x.shape[-2:]
    for down, right in places:
        top, left = int(down * max(height - HOLE + 1, 1)), int(right * max(width - HOLE + 1, 1))
        x[:, top : top + HOLE, left : left + HOLE] = 0
    return x


def _with_grid(x: Tensor) -> Tensor:
    cell = max(2, min(x.shape[-2:]) // GRID)
    down, right = (torch.arange(side) % cell < cell // 2 for side in x.shape[-2:])
    return x.masked_fill(down[:, None] & right, 0)


def _moved(view: Tensor, degrees: float, zoom: float, right: float, down: float) -> Tensor:
    """Shifts are parts of the side. What comes in at the border is black."""
    shift = [round(right * view.shape[-1]), round(down * view.shape[-2])]
    return F.affine(view, degrees, shift, zoom, [0.0, 0.0], interpolation=InterpolationMode.BILINEAR, fill=[0.0])
