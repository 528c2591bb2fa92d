"""The semantic encoder of the miniature: a small ResNet of timm's, trained on the classes, as ImageNet trains one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from sare_core.miniature.contrast import encoder_input, through_camera
from sare_core.miniature.fitting import Part, fit
from sare_core.miniature.scenes import CLASSES, Scenes

# ResNet-50's bottleneck blocks, one a stage; at 32 pixels its last map has 4×4 cells (output_stride 8).
ARCHITECTURE: dict[str, Any] = {"layers": [1, 1, 1, 1], "channels": [16, 32, 48, 64], "output_stride": 8}


def train_classifier(folder: Path, scenes: Scenes, steps: int, seed: int) -> Any:
    """Train on photographs of scenes, mirrored half the time; or go on where `folder` stands."""
    import timm

    torch.manual_seed(seed)
    about = {"tag": "fashion_mnist", "input_size": (3, 32, 32), "first_conv": "conv1", "classifier": "fc"}
    model = timm.create_model(
        "resnet50", pretrained=False, pretrained_cfg=about, num_classes=len(CLASSES), **ARCHITECTURE
    )
    images, classes = torch.from_numpy(scenes.pixels).unsqueeze(1), torch.from_numpy(scenes.classes).long()

    def losses(step: int, rng: np.random.Generator) -> Iterator[tuple[str, Tensor]]:
        chosen = torch.from_numpy(rng.integers(0, len(images), 128))
        batch = through_camera(images[chosen])
        mirrored = torch.from_numpy(rng.random(len(batch)) < 0.5).view(-1, 1, 1, 1)
        batch = torch.where(mirrored, batch.flip(3), batch)
        yield "classifier", cross_entropy(model(encoder_input(batch)), classes[chosen])

    fit(folder, {"classifier": Part(model, 2e-3, weight_decay=0.05, ema=0.99)}, steps, losses, seed)
    return model
