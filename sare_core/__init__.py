"""sare: tell AI-generated images from real ones by their semantic-aware reconstruction error.

In Python: `Detector` scores images, `Pipeline` captions and reconstructs them, `load_settings` reads a preset.
They are imported when they are first asked for, since torch takes seconds.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sare_core.config import load_settings
    from sare_core.errors import ConfigError, ImageError, SareError
    from sare_core.pipeline import Detector, Explanation, Pipeline

# Before torch is imported: threads of GNU's OpenMP that wait for each other spin for a moment, then sleep. By default
# they spin on, which beside another busy process made the mini preset's model many times slower on two cores.
if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = "2000"

# Before polars is imported: its allocator gives freed memory back at once. By default it keeps that for seconds, and of
# the steps from one large table to the next, each as large as the last, all would count.
os.environ.setdefault("_RJEM_MALLOC_CONF", "dirty_decay_ms:0,muzzy_decay_ms:0")

__all__ = ["ConfigError", "Detector", "Explanation", "ImageError", "Pipeline", "SareError", "load_settings"]
_HOMES = {"config": ("load_settings",), "errors": ("ConfigError", "ImageError", "SareError")}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'sare_core' has no attribute {name!r}")
    home = next((module for module, names in _HOMES.items() if name in names), "pipeline")
    return getattr(import_module(f"sare_core.{home}"), name)
