"""DIRE (Wang et al., ICCV 2023): a ResNet-50 on |x - x̂|, with x̂ by DDIM inversion and back, over 20 steps.

Its reconstruction model is here, as in the paper (4.1), Stable Diffusion; DIRE has ADM, a model of pixels.
"""

from typing import Any, ClassVar

from sare_core.detectors.map import MapDetector, MapSettings


class DireSettings(MapSettings):
    standardize: bool = False  # DIRE has ImageNet's constants; normalization=none: the map as it is, as DRCT has it


class DireDetector(MapDetector):
    """The detector `map` on maps of DDIM inversion, with the constants of photographs."""

    Settings = DireSettings
    maps: ClassVar[dict[str, dict[str, Any]]] = {
        "sare": {"reconstruct.method": "ddim_inversion", "reconstruct.steps": 20, "reconstruct.strength": 1.0}
    }
    source = "Wang et al., ICCV 2023"
    released = True
