"""Small ResNets of timm's: the semantic encoder, trained on classes as ImageNet trains one, and a counter of extras."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from sare_core.miniature.contrast import encoder_input, mirrored, photographed
from sare_core.miniature.fitting import Part, fit
from sare_core.miniature.scenes import CLASSES, EXTRAS, Scenes

# ResNet-50's bottleneck blocks, one a stage; at 32 pixels its last map has 4×4 cells (output_stride 8).
ARCHITECTURE: dict[str, Any] = {"layers": [1, 1, 1, 1], "channels": [16, 32, 48, 64], "output_stride": 8}


def train_classifier(folder: Path, scenes: Scenes, steps: int, seed: int) -> Any:
    """The semantic encoder: (n, 6) logits of CLASSES. Trains on photographs, or goes on where `folder` stands."""
    classes = torch.from_numpy(scenes.classes).long()
    return _train(folder, scenes, len(CLASSES), lambda logits, n: cross_entropy(logits, classes[n]), steps, seed)


def train_counter(folder: Path, scenes: Scenes, steps: int, seed: int) -> Any:
    """What is there beside the main article: (n, 4) logits, one for each of EXTRAS. It only measures."""
    extras = torch.from_numpy(scenes.extras).float()
    loss = binary_cross_entropy_with_logits
    return _train(folder, scenes, len(EXTRAS), lambda logits, n: loss(logits, extras[n]), steps, seed)


def _train(
    folder: Path, scenes: Scenes, outputs: int, loss: Callable[[Tensor, Tensor], Tensor], steps: int, seed: int
) -> Any:
    import timm

    torch.manual_seed(seed)
    about = {"tag": "fashion_mnist", "input_size": (3, 32, 32), "first_conv": "conv1", "classifier": "fc"}
    model = timm.create_model("resnet50", pretrained=False, pretrained_cfg=about, num_classes=outputs, **ARCHITECTURE)
    images = torch.from_numpy(scenes.pixels).unsqueeze(1)

    def losses(step: int, rng: np.random.Generator) -> Iterator[tuple[str, Tensor]]:
        chosen = torch.from_numpy(rng.integers(0, len(images), 64))
        yield "classifier", loss(model(encoder_input(mirrored(photographed(images[chosen]), rng))), chosen)

    fit(folder, {"classifier": Part(model, 2e-3, weight_decay=0.05, ema=0.99)}, steps, losses, seed)
    return model
