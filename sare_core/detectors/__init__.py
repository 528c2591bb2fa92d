"""Detectors by name. One file in this folder and one `register` line at the end of this one add a detector."""

from importlib import import_module
from typing import TYPE_CHECKING

from sare_core.config import DetectorSettings
from sare_core.errors import ConfigError

if TYPE_CHECKING:
    from sare_core.detectors.base import Detector

_DETECTORS: dict[str, str] = {}


def register(name: str, target: str) -> None:
    """Make a detector known as `name`; `target` is "package.module:Class", imported when it is first built.

    Raises ValueError: the name is taken.
    """
    if name in _DETECTORS:
        raise ValueError(f"detector {name!r} is registered already, as {_DETECTORS[name]}")
    _DETECTORS[name] = target


def detector_names() -> list[str]:
    """Names that the setting detector.detector takes."""
    return sorted(_DETECTORS)


def build_detector(settings: DetectorSettings, image_encoder_dir: str, semantic_encoder_dir: str) -> "Detector":
    """The detector that `settings.detector` names, its encoders read from local folders, on the CPU in float32.

    The new layers take their weights from torch's global generator: seed it first.
    Raises ConfigError: no such detector, a folder that does not hold what it should, settings that do not fit it.
    """
    if settings.detector not in _DETECTORS:
        raise ConfigError(f"no detector {settings.detector!r}. The detectors are {', '.join(detector_names())}.")
    module, _, name = _DETECTORS[settings.detector].partition(":")
    detector: Detector = getattr(import_module(module), name)(settings, image_encoder_dir, semantic_encoder_dir)
    return detector


register("image", "sare_core.detectors.image:ImageDetector")
register("sare", "sare_core.detectors.sare:SareDetector")
