"""Captioners: what an image shows, in one line (paper 3.2, "Image Captioning").

A captioner is one file in this folder with a function `load`, and one line in `CAPTIONERS`.
"""

from importlib import import_module
from typing import Any, Protocol

from PIL import Image

from sare_core.config.captioning import CaptionSettings
from sare_core.errors import ConfigError

CAPTIONERS = {  # name in the settings: module that is imported when it is chosen
    "blip": "blip",
    "llava-next": "llava_next",
    "none": "none",
    "table": "table",
}


class Captioner(Protocol):
    """What `load_captioner` gives.

    Attributes: name, as the settings spell it. revision, of what the captions come from when that is no model
    (`sha256:…` of a table); None for a model, whose weights say it.
    """

    name: str
    revision: str | None

    def caption(self, images: list[Image.Image], rows: list[dict[str, Any]]) -> list[str | None]:
        """One caption per image, in order; None: this image has none, and its row says failed.

        images: RGB, any sizes. rows: of the index, with at least image_id and path. An image's caption does not depend
        on the others of its batch, beyond rounding in half precision.
        """
        ...


def check_captioner(settings: CaptionSettings) -> None:
    """Raises ConfigError: no such captioner."""
    if settings.captioner not in CAPTIONERS:
        raise ConfigError(f"caption.captioner: no captioner {settings.captioner!r}; there are {', '.join(CAPTIONERS)}.")


def load_captioner(settings: CaptionSettings, weights_dir: str | None, device: str) -> Captioner:
    """The captioner that the settings name, ready to work.

    weights_dir: the model's local folder; None for captioners without one. device: as torch names it, e.g. cuda:0.
    Raises ConfigError: no such captioner, a setting it needs is missing, its folder or table is not usable.
    """
    check_captioner(settings)
    module = import_module(f"sare_core.captioning.{CAPTIONERS[settings.captioner]}")
    captioner: Captioner = module.load(settings, weights_dir, device)
    return captioner
