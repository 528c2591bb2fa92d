"""Detectors by name, or as "package.module:Class" where they are somebody's own: detector.detector takes either.

A detector of sare itself is one file in this folder and one `register` line at the end of this one.
"""

import hashlib
import inspect
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from sare_core.config.detectors import DetectorSettings
from sare_core.errors import ConfigError

if TYPE_CHECKING:
    from sare_core.detectors.base import Detector

_DETECTORS: dict[str, str] = {}
_NOT_OWN = {"sare_core", "torch", "builtins", "abc", "typing"}


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


def detector_class(name: str) -> "type[Detector]":
    """The class that the setting detector.detector names.

    "package.module:Class" is imported as Python does it, and from the current folder, too.
    Raises ConfigError: no such detector, it cannot be imported, or it is no subclass of Detector.
    """
    from sare_core.detectors.base import Detector  # torch: seconds

    target = _DETECTORS.get(name, name)
    module, _, attribute = target.partition(":")
    if not module or not attribute:
        raise ConfigError(
            f"no detector {name!r}. The detectors are {', '.join(detector_names())}; an own one is written "
            'as "package.module:Class".'
        )
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # last, so that nothing in it hides a library
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, SyntaxError) as error:
        raise ConfigError(
            f"detector.detector={name}: cannot be imported ({error}). Run sare in the folder that holds "
            f"{module.partition('.')[0]}, or install it."
        ) from error
    if not (isinstance(found, type) and issubclass(found, Detector)):
        raise ConfigError(f"detector.detector={name}: is no subclass of sare_core.detectors.base.Detector.")
    return found


def code_version(name: str) -> str | None:
    """Of somebody's own detector the digest of its source: an edited class is another detector. None for sare's own,
    whose stages have a version.

    It covers the file of the class and those of its base classes outside sare and torch. What else these import is not
    in it: after a change there, change something in the class's file, a comment will do.
    Raises ConfigError: see `detector_class`; or there is no source file.
    """
    digest = hashlib.sha256()
    kinds = [kind for kind in detector_class(name).__mro__ if kind.__module__.partition(".")[0] not in _NOT_OWN]
    for module in sorted({kind.__module__ for kind in kinds}):
        try:
            digest.update(inspect.getsource(sys.modules[module]).encode() + b"\0")
        except OSError as error:
            raise ConfigError(
                f"detector.detector={name}: {module} has no source file to tell its version by."
            ) from error
    return digest.hexdigest()[:16] if kinds else None


def build_detector(
    settings: DetectorSettings, image_encoder_dir: str = "", semantic_encoder_dir: str = ""
) -> "Detector":
    """The detector that `settings.detector` names, its encoders read from local folders, on the CPU in float32.

    A folder may be empty where the class does not name its encoder in `encoders`.
    The new layers take their weights from torch's global generator: seed it first.
    Raises ConfigError: no such detector, a folder that does not hold what it should, settings that do not fit it.
    """
    build: Callable[..., Detector] = detector_class(settings.detector)
    return build(settings, image_encoder_dir, semantic_encoder_dir)


register("image", "sare_core.detectors.image:ImageDetector")
register("sare", "sare_core.detectors.sare:SareDetector")
