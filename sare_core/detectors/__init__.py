"""Detectors by name, or as "package.module:Class" where they are somebody's own: detector.detector takes either.

A detector of sare itself is one file in this folder and one `register` line at the end of this one. A plugin
(sare_core/config/plugins.py) calls `register` too.
"""

from typing import TYPE_CHECKING

from sare_core.config.detectors import DetectorSettings
from sare_core.config.plugins import find, own_code
from sare_core.errors import ConfigError

if TYPE_CHECKING:
    from sare_core.detectors.base import Detector

_DETECTORS: dict[str, str] = {}


def register(name: str, target: str) -> None:
    """Make a detector known as `name`; `target` is "package.module:Class", imported when it is first asked for.

    Raises ValueError: the name is taken.
    """
    if _DETECTORS.setdefault(name, target) != target:
        raise ValueError(f"detector {name!r} is registered already, as {_DETECTORS[name]}")


def detector_class(name: str) -> "type[Detector]":
    """The class that the setting detector.detector names.

    Raises ConfigError: no such detector, it cannot be imported, it is no subclass of Detector, or it needs what there
    is not.
    """
    from sare_core.detectors.base import NEEDS, Detector  # torch: seconds

    target = _DETECTORS.get(name, name)
    if not all(target.partition(":")):
        raise ConfigError(
            f"no detector {name!r}. The detectors are {', '.join(detector_names())}; an own one is written "
            'as "package.module:Class".'
        )
    found = find(target, f"detector.detector={name}")
    if not (isinstance(found, type) and issubclass(found, Detector)):
        raise ConfigError(f"detector.detector={name}: is no subclass of sare_core.detectors.base.Detector.")
    if odd := sorted(found.needs - (NEEDS if found.maps else {"image"})):
        known = f"of {', '.join(sorted(NEEDS))}" if found.maps else "without maps a detector can need the image alone"
        raise ConfigError(f"detector.detector={name}: needs {', '.join(odd)}; {known}.")
    return found


def detector_names() -> list[str]:
    """Names that the setting detector.detector takes."""
    return sorted(_DETECTORS)


def code_version(name: str) -> str | None:
    """Of somebody's own detector the digest of its source: an edited class is another detector. See `own_code`.

    Raises ConfigError: see `detector_class`; or there is no source file.
    """
    return own_code(detector_class(name), f"detector.detector={name}")


def named_encoders(settings: DetectorSettings) -> dict[str, tuple[str, str | None]]:
    """Model and revision of each pre-trained encoder that the detector loads, by role.

    Raises ConfigError: the settings name none.
    """
    roles = detector_class(settings.detector).roles(settings)
    if missing := [role for role in roles if getattr(settings, role, None) is None]:
        raise ConfigError(f"setting detector.{missing[0]} is missing: detector {settings.detector} loads it.")
    return {role: (getattr(settings, role), getattr(settings, settings.models[role])) for role in roles}


def build_detector(settings: DetectorSettings, folders: dict[str, str] | None = None) -> "Detector":
    """The detector that `settings.detector` names, its encoders read from local folders, on the CPU in float32.

    folders: of the encoders, by role; at least those that the class names in `roles`.
    The new layers take their weights from torch's global generator: seed it first.
    Raises ConfigError: no such detector, a folder that does not hold what it should, settings that do not fit it.
    """
    kind = detector_class(settings.detector)
    encoders = {role: kind.load_encoder(role, (folders or {})[role]) for role in kind.roles(settings)}
    return kind(settings, encoders)


register("aeroblade", "sare_core.detectors.aeroblade:AerobladeDetector")
register("c2p_clip", "sare_core.detectors.c2p_clip:C2PClipDetector")
register("conv_b", "sare_core.detectors.conv_b:ConvBDetector")
register("de_fake", "sare_core.detectors.de_fake:DeFakeDetector")
register("difference", "sare_core.detectors.map:DifferenceDetector")
register("difference_in_difference", "sare_core.detectors.map:DifferenceInDifferenceDetector")
register("dire", "sare_core.detectors.dire:DireDetector")
register("drct", "sare_core.detectors.drct:DrctDetector")
register("gramnet", "sare_core.detectors.gramnet:GramNetDetector")
register("image", "sare_core.detectors.image:ImageDetector")
register("linear_probe", "sare_core.detectors.linear_probe:LinearProbe")
register("map", "sare_core.detectors.map:MapDetector")
register("sare", "sare_core.detectors.sare:SareDetector")
register("univfd", "sare_core.detectors.univfd:UnivFDDetector")
