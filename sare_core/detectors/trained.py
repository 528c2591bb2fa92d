"""A trained detector, ready to score images."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.utils.data import default_collate

from sare_core.config.detectors import DetectorSettings
from sare_core.detectors import build_detector
from sare_core.detectors.transforms import Parts


class TrainedDetector:
    """A detector with the weights of a checkpoint, in evaluation mode on one device.

    encoders: local folders, by role. tensors: of the checkpoint, by their names there. dtype: as torch names it.
    Raises ConfigError: see `build_detector`; or the checkpoint is another detector's.
    """

    def __init__(
        self,
        settings: DetectorSettings,
        encoders: dict[str, str],
        tensors: Mapping[str, Tensor],
        device: str = "cpu",
        dtype: str = "float32",
    ) -> None:
        self.settings, self.device, self.dtype = settings, device, getattr(torch, dtype)
        model = build_detector(settings, encoders)
        model.load_trained({name.removeprefix("model."): tensor for name, tensor in tensors.items()})
        self.model = model.to(device, self.dtype).eval()

    def prepare(self, parts: Parts) -> dict[str, Tensor]:
        """One image's parts, as `read_parts` gives them, to a sample that `logits` takes: the centre, unchanged."""
        return self.model.prepare(parts, self.settings)

    def logits(self, samples: list[dict[str, Tensor]]) -> Tensor:
        """Logits (N,) of N samples, float32 on the CPU; above 0 means fake, and sigmoid gives the chance of it."""
        return self.logits_of(self.collate(samples))

    def collate(self, samples: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """The samples of a batch, stacked as `logits_of` takes them: the device need not wait for that."""
        stacked: dict[str, Tensor] = default_collate(samples)
        return stacked

    @torch.no_grad()
    def logits_of(self, stacked: dict[str, Tensor]) -> Tensor:
        """See `logits`; of the samples that `collate` has stacked."""
        batch = {
            name: values.to(self.device, self.dtype if values.is_floating_point() else None)
            for name, values in stacked.items()
        }
        logits: Tensor = self.model(batch)
        return logits.float().cpu()
