"""Images in memory to reconstructions and SARE maps (paper 3.2, equation 4). The stage and the Python API use it."""

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from sare_core.config.reconstruction import ReconstructSettings
from sare_core.errors import ConfigError, ImageError
from sare_core.images.decoding import fit_size, resize
from sare_core.reconstruction import Reconstructor, method_of
from sare_core.reconstruction.perceptual import load_lpips


class Mapped(NamedTuple):
    """What is made of one image x.

    reconstruction: x̂ of the first draw, of the last round, (H, W, 3) uint8. sare: the map, (H, W, 3) uint8, or of
    `sare_size` a side.
    lpips: equation 7's distance >= 0, None where it is not asked for. Map and distance are the mean over the draws.
    """

    reconstruction: np.ndarray
    sare: np.ndarray
    lpips: float | None


class Draw(NamedTuple):
    """One draw of the noise: x, (H, W, 3) uint8, in a second round the x̂ of the first; and x̂, (3, H, W) float32 in
    [0, 1], or (H, W, 3) uint8."""

    x: np.ndarray
    x_hat: np.ndarray | torch.Tensor


class Reconstructed(NamedTuple):
    """What the device makes of one image: its draws, and the mean of LPIPS over them; None: it is not asked for."""

    draws: list[Draw]
    lpips: float | None = None


class Mapper:
    """A reconstruction method at work on images, each with its own noise: `seed` and the image's id decide it."""

    def __init__(
        self,
        settings: ReconstructSettings,
        seed: int,
        reconstructor: Reconstructor,
        lpips: Callable[[np.ndarray, np.ndarray], float] | None = None,
    ) -> None:
        """Raises ConfigError: the model does not take reconstruct.size_multiple."""
        self.settings, self.seed, self.reconstructor, self.lpips = settings, seed, reconstructor, lpips
        self.multiple = settings.size_multiple or reconstructor.multiple
        if self.multiple % reconstructor.multiple:
            raise ConfigError(
                f"reconstruct.size_multiple={self.multiple}: this model takes multiples of {reconstructor.multiple}."
            )

    @staticmethod
    def load(settings: ReconstructSettings, seed: int, folder: str, device: str) -> "Mapper":
        """The method that the settings name, with its model from a local folder. Raises ConfigError: see `Method`."""
        reconstructor = method_of(settings).load(settings, folder, device)
        return Mapper(settings, seed, reconstructor, load_lpips(settings.lpips, device) if settings.lpips else None)

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of x̂ for an image of width × height pixels."""
        settings = self.settings
        return fit_size(width, height, settings.longer_side, self.multiple, settings.upscale)

    def fit(self, image: Image.Image) -> np.ndarray:
        """x as `maps` takes it, (H, W, 3) uint8: the RGB image at the size of x̂."""
        return np.asarray(resize(image, self.size(*image.size), self.settings.resample))

    def reconstruct(
        self, images: np.ndarray, captions: list[str], image_ids: list[str]
    ) -> list[Reconstructed | ImageError]:
        """A batch through the model: images from `fit`, stacked, with a caption (empty: none) and an id each.

        What an image gives does not depend on the others of its batch, beyond rounding in half precision. One that
        cannot be reconstructed, in any of its draws, comes back as an ImageError.
        """
        numbers = range(1, self.settings.noise_draws + 1)
        draws = [self._draw(images, captions, image_ids, number) for number in numbers]
        results = list[Reconstructed | ImageError]()
        for of_image in zip(*draws, strict=True):
            good = [each for each in of_image if not isinstance(each, ImageError)]
            failed = next((each for each in of_image if isinstance(each, ImageError)), None)
            results.append(failed or self._with_lpips(good))
        return results

    def _draw(
        self, images: np.ndarray, captions: list[str], image_ids: list[str], number: int
    ) -> list[Draw | ImageError]:
        """Each image's last round. All rounds of a draw have the same noise, so that they differ by their images."""
        begun, found = list(images), self._once(images, captions, image_ids, number)
        for _ in range(1, self.settings.rounds):
            # One that has failed goes along as it came, and is not looked at again.
            begun = [x if isinstance(made, ImageError) else rounded(made) for x, made in zip(begun, found, strict=True)]
            again = self._once(np.stack(begun), captions, image_ids, number)
            found = [made if isinstance(made, ImageError) else anew for made, anew in zip(found, again, strict=True)]
        return [made if isinstance(made, ImageError) else Draw(x, made) for x, made in zip(begun, found, strict=True)]

    def _once(
        self, images: np.ndarray, captions: list[str], image_ids: list[str], number: int
    ) -> list[np.ndarray | torch.Tensor | ImageError]:
        pixels = torch.from_numpy(images).to(getattr(self.reconstructor, "device", "cpu"))
        batch = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
        generators = [generator_for(self.seed, image_id, number) for image_id in image_ids]
        found = self.reconstructor.reconstruct(batch, captions, generators)
        # A GPU rounds in no time, and a fourth of the bytes comes back from it.
        return [rounded(made) if isinstance(made, torch.Tensor) and made.is_cuda else made for made in found]

    def _with_lpips(self, draws: list[Draw]) -> Reconstructed:
        if self.lpips is None:
            return Reconstructed(draws)
        levels = [(x, rounded(x_hat)) for x, x_hat in draws]
        return Reconstructed([Draw(*each) for each in levels], float(np.mean([self.lpips(*each) for each in levels])))

    def measure(self, found: Reconstructed) -> Mapped:
        """The map of one image. Needs no model and no device, so that it may run in a thread."""
        draws = [(x, rounded(x_hat)) for x, x_hat in found.draws]
        # Equation 4, in bytes: the difference of two, the lesser taken from the greater.
        errors = [np.maximum(x, x_hat) - np.minimum(x, x_hat) for x, x_hat in draws]
        sare = errors[0]
        if len(errors) > 1:
            sare = np.rint(np.mean(errors, axis=0)).astype(np.uint8)  # to the nearest level, a half to the even one
        if (side := self.settings.sare_size) != "full":
            sare = np.asarray(resize(Image.fromarray(sare), (side, side), "bilinear"))
        return Mapped(draws[0][1], sare, found.lpips)

    def maps(self, images: list[np.ndarray], captions: list[str], image_ids: list[str]) -> list[Mapped | ImageError]:
        """`reconstruct` and `measure` of images from `fit`, all of one size."""
        results = self.reconstruct(np.stack(images), captions, image_ids)
        return [found if isinstance(found, ImageError) else self.measure(found) for found in results]


def generator_for(seed: int, image_id: str, draw: int = 1) -> torch.Generator:
    """The image's own CPU generator, seeded by the run's seed, the id of the *unviewed* image, and the draw (from 1).

    So the noise is the same for every view and variant of an image, and does not depend on batch, order, device, or
    how many draws there are.
    """
    text = f"{seed}:{image_id}" + (f":{draw}" if draw > 1 else "")
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest) >> 1)


def rounded(draw: np.ndarray | torch.Tensor) -> np.ndarray:
    """(H, W, 3) uint8, rounded as diffusers does; what is of bytes already stays."""
    if isinstance(draw, np.ndarray):
        return draw
    planes = (draw * 255).round().to(torch.uint8)
    if planes.is_cuda:
        return planes.permute(1, 2, 0).contiguous().cpu().numpy()
    return np.stack(list(planes.numpy()), axis=-1)  # a third of the time that torch takes for it
