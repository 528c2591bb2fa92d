"""Captioners: what an image shows, in one line (paper 3.2, "Image Captioning").

A captioner is one file in this folder with a function `load`, and one line in `CAPTIONERS`.
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from PIL import Image

from sare_core.config.captioning import CaptionSettings
from sare_core.config.plugins import find, own_code
from sare_core.errors import ConfigError, ImageError

CAPTIONERS = {  # name in the settings: module that is imported when it is chosen
    "blip": "blip",
    "llava-next": "llava_next",
    "none": "none",
    "server": "server",
    "table": "table",
}


class Captioner(Protocol):
    """What `load_captioner` gives.

    Attributes: name, as the settings spell it. revision, of what the captions come from when that is no model
    (`sha256:…` of a table); None for a model, whose weights say it.
    """

    name: str
    revision: str | None

    def caption(self, images: list[Image.Image], rows: list[dict[str, Any]]) -> Sequence[str | ImageError | None]:
        """One caption per image, in order; None, or an ImageError that says why: it has none, and its row says failed.

        images: RGB, any sizes. rows: of the index, with at least image_id and path. An image's caption does not depend
        on the others of its batch, beyond rounding in half precision.
        """
        ...


@runtime_checkable
class Preparing(Protocol):
    """What a captioner may offer besides: `caption(images, rows)` is `generate(prepare(images))`, and the images of the
    next batches are prepared in threads while a model is at work."""

    def prepare(self, images: list[Image.Image]) -> Any:
        """The images of a batch as `generate` takes them, on the CPU. Threads call it."""
        ...

    def generate(self, prepared: Any) -> Sequence[str | ImageError | None]:
        """What `caption` gives of them."""
        ...


def register(name: str, target: str) -> None:
    """Make a captioner of the user's own known as `name`; `target` is "package.module:load", called as
    `load(settings, weights_dir, device)`.

    Raises ValueError: the name is taken, or `target` is no "module:function".
    """
    if not all(target.partition(":")):
        raise ValueError(f"captioner {name!r}: write its target as 'package.module:load', not {target!r}")
    if CAPTIONERS.setdefault(name, target) != target:
        raise ValueError(f"captioner {name!r} is registered already, as {CAPTIONERS[name]}")


def captioner_code(settings: CaptionSettings) -> str | None:
    """Of a captioner of the user's own the digest of its source, as own_code has it; None of sare's own."""
    check_captioner(settings)
    target = CAPTIONERS[settings.captioner]
    setting = f"caption.captioner={settings.captioner}"
    return own_code(find(target, setting), setting) if ":" in target else None


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
    target = CAPTIONERS[settings.captioner]
    target = target if ":" in target else f"sare_core.captioning.{target}:load"
    captioner: Captioner = find(target, f"caption.captioner={settings.captioner}")(settings, weights_dir, device)
    return captioner
