"""What generators share: the scale of their pixels, the class that says nothing, and how samples are drawn."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from sare_core.miniature.scenes import CLASSES, TRAINING_NOISE, Scenes

NO_CLASS = len(CLASSES)  # stands for "any article": what guidance pushes away from (Ho & Salimans 2022)
CLASS_DROPOUT = 0.1
BATCH = 100


def scaled(scenes: Scenes) -> Tensor:
    """Scenes as (n, 1, 32, 32), centred, with a standard deviation near 0.7."""
    return torch.from_numpy(scenes.pixels).unsqueeze(1) * 4 - 2


def unscaled(images: Tensor) -> Tensor:
    """(n, 1, 32, 32), scaled, to pixels (n, 32, 32) in [0, 1]."""
    return (images.squeeze(1) / 4 + 0.5).clamp(0, 1)


def photographed(images: Tensor) -> Tensor:
    """Scaled images with the training's noise, fresh at each call."""
    low, high = (4 * level / 255 for level in TRAINING_NOISE)
    sigma = low + (high - low) * torch.rand(len(images), 1, 1, 1)
    return images + sigma * torch.randn_like(images)


def labels(classes: np.ndarray) -> Tensor:
    """(n,) classes as torch's embeddings take them."""
    return torch.from_numpy(np.asarray(classes, np.int64))


def with_dropout(classes: np.ndarray, rng: np.random.Generator) -> Tensor:
    """(n,) classes, some of them replaced by NO_CLASS."""
    return labels(np.where(rng.random(len(classes)) < CLASS_DROPOUT, NO_CLASS, classes))


def guided(predict: Callable[[Tensor], Tensor], classes: Tensor, guidance: float) -> Tensor:
    """Classifier-free guidance: what `predict` says of NO_CLASS, plus `guidance` times what the class adds to it."""
    free, prompted = predict(torch.cat([torch.full_like(classes, NO_CLASS), classes])).chunk(2)
    return free + guidance * (prompted - free)


def draw(sampler: Callable[[Tensor, Tensor], Tensor], classes: np.ndarray, numbers: int, seed: int) -> np.ndarray:
    """Samples (n, 32, 32) float32 in [0, 1] of the classes (n,), drawn in batches.

    sampler: (classes (b,), normal deviates (b, numbers)) to pixels (b, 32, 32). The deviates of a sample depend on
    (seed, its position) alone.
    """
    done = []
    with torch.inference_mode():
        for start in range(0, len(classes), BATCH):
            part = labels(classes[start : start + BATCH])
            rngs = (np.random.default_rng([seed, start + n]) for n in range(len(part)))
            deviates = np.stack([rng.standard_normal(numbers, np.float32) for rng in rngs])
            done.append(sampler(part, torch.from_numpy(deviates)).numpy())
    return np.concatenate(done)
