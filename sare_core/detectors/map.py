"""Detectors that see SARE maps and never the image: of one map (as DIRE, ICCV 2023, of its own), and of two."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sare_core.config.detectors import DetectorSettings
from sare_core.detectors.base import Detector


class MapSettings(DetectorSettings):
    # Most of a map is near 0: under constants of photographs it would lie near -2, with little contrast. True: each
    # channel is brought to mean 0 and variance 1 over the training maps, and `normalization` plays no part.
    standardize: bool = True


class MapDetector(Detector):
    """A ResNet, trained as a whole, on the map (equation 4) and a linear layer on the mean of its last feature map."""

    Settings = MapSettings
    needs = frozenset({"sare"})
    encoders = ("semantic_encoder",)
    source = "ablation: the map alone"
    views = 1

    def __init__(self, settings: MapSettings, encoders: dict[str, Any]) -> None:
        super().__init__(settings, encoders)
        self.semantic_encoder = encoders["semantic_encoder"]
        channels = 3 * self.views
        self.scale = nn.BatchNorm2d(channels, affine=False) if settings.standardize else nn.Identity()
        self.head = nn.Linear(self.views * self.semantic_encoder.num_features, 1)

    def see(self, batch: dict[str, Tensor]) -> Tensor:
        """What the encoder is shown, three channels a view: (B, 3 * views, S, S)."""
        return batch["sare"]

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Logits (B,) of maps (B, 3, S, S)."""
        views = self.scale(self.see(batch)).unflatten(1, (self.views, 3)).flatten(0, 1)
        features = self.semantic_encoder.forward_features(views).mean(dim=(2, 3))
        return self.head(features.unflatten(0, (-1, self.views)).flatten(1)).squeeze(-1)


class DifferenceDetector(MapDetector):
    """What the caption changes: the map with caption, the one without, and the first less the second.

    One encoder sees the three, which keeps the pre-trained filters of three channels; their features stand side by side
    before the linear layer. The signed difference is a view of its own since no pooled feature could tell, cell by
    cell, where the caption brought x̂ nearer to x.
    """

    maps: ClassVar[dict[str, dict[str, Any]]] = {
        "sare": {},
        "uncaptioned": {"caption.captioner": "none", "caption.model": None},
    }
    source = "ablation: maps with and without caption"
    views = 3

    def see(self, batch: dict[str, Tensor]) -> Tensor:
        first, second = (batch[name] for name in self.maps)
        return torch.cat([first, second, first - second], dim=1)


class DifferenceInDifferenceDetector(DifferenceDetector):
    """The error of x, that of its reconstruction x̂, and the first less the second: as difference-in-difference has it
    (Qi et al., arXiv 2602.23732), of whose paper only the abstract could be read; it sees the three as above."""

    maps: ClassVar[dict[str, dict[str, Any]]] = {"sare": {}, "second_order": {"reconstruct.rounds": 2}}
    source = "Qi et al., 2026 (its abstract)"
