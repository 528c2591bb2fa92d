"""Code of the user's own: modules that register what is in them, and classes and functions by import string."""

import hashlib
import inspect
import sys
from collections.abc import Iterable
from functools import lru_cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from sare_core.errors import ConfigError

GROUP = "sare.plugins"  # entry points of installed packages: NAME = "package.module"
_NOT_OWN = {"sare_core", "torch", "builtins", "abc", "typing"}


def load_plugins(modules: Iterable[str]) -> None:
    """Import the modules that installed packages announce, and those that the setting `plugins` names.

    A plugin calls `register` of sare_core.detectors, of sare_core.captioning and the like.
    Raises ConfigError: one cannot be imported.
    """
    _load_installed()
    for module in modules:
        _import(module, f"plugins={module}")


def find(target: str, setting: str) -> Any:
    """What "package.module:name" stands for, imported as Python does it, and from the current folder, too.

    Raises ConfigError: it cannot be imported; `setting` says who asks.
    """
    module, _, name = target.partition(":")
    try:
        return getattr(_import(module, setting), name)
    except AttributeError as error:
        raise ConfigError(f"{setting}: cannot be imported ({error}). {_cure(module)}") from error


def own_code(found: Any, setting: str) -> str | None:
    """Of a class or function of the user's own the digest of its source; None of sare's own, whose stages have a
    version.

    It covers its file and those of its base classes outside sare and torch. What else these import is not in it: after
    a change there, change something in the file, a comment will do. Raises ConfigError: there is no source file.
    """
    kinds = found.__mro__ if isinstance(found, type) else [found]
    modules = sorted({kind.__module__ for kind in kinds if kind.__module__.partition(".")[0] not in _NOT_OWN})
    digest = hashlib.sha256()
    for module in modules:
        try:
            digest.update(inspect.getsource(sys.modules[module]).encode() + b"\0")
        except OSError as error:
            raise ConfigError(f"{setting}: {module} has no source file to tell its version by.") from error
    return digest.hexdigest()[:16] if modules else None


@lru_cache
def _load_installed() -> None:
    for point in entry_points(group=GROUP):
        _import(point.value, f"the entry point {point.name} of {GROUP}")


def _import(module: str, setting: str) -> Any:
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # last, so that nothing in it hides a library
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):  # it is there, and lacks another
            raise ConfigError(f"{setting}: cannot be imported ({error}). Install that, or mend {module}.") from error
        raise ConfigError(f"{setting}: cannot be imported ({error}). {_cure(module)}") from error
    except (Exception, SystemExit) as error:  # whatever somebody's own code does when it is imported
        raise ConfigError(f"{setting}: cannot be imported ({type(error).__name__}: {error}). Mend {module}.") from error


def _cure(module: str) -> str:
    return f"Run sare in the folder that holds {module.partition('.')[0]}, or install it."
