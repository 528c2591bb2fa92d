"""What generators share: the scale of their pixels, what they read of a caption, and how samples are drawn."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sare_core.miniature.scenes import NOISE, Scenes
from sare_core.miniature.words import WORDS, bags, class_prompt, web_captions

NO_CAPTION = 0.1  # share of the pictures that are shown without their caption, for guidance (Ho & Salimans 2022)
BATCH = 100
SHARED = 2 / 3  # of a training is the same in all worlds
TEXT = len(WORDS)  # what a caption says, as a vector of zeros and ones


def scaled(scenes: Scenes) -> Tensor:
    """Scenes as (n, 1, 32, 32), centred, with a standard deviation near 0.7."""
    return torch.from_numpy(scenes.pixels).unsqueeze(1) * 4 - 2


def unscaled(images: Tensor) -> Tensor:
    """(n, 1, 32, 32), scaled, to pixels (n, 32, 32) in [0, 1]."""
    return (images.squeeze(1) / 4 + 0.5).clamp(0, 1)


def noisy(images: Tensor) -> Tensor:
    """Scaled images with the camera's noise, fresh at each call."""
    low, high = (4 * level / 255 for level in NOISE)
    sigma = low + (high - low) * torch.rand(len(images), 1, 1, 1)
    return images + sigma * torch.randn_like(images)


def with_dropout(texts: Tensor, rng: np.random.Generator) -> Tensor:
    """Captions (n, TEXT), some of them silenced."""
    return texts * torch.from_numpy(rng.random(len(texts)) >= NO_CAPTION).unsqueeze(1)


def guided(predict: Callable[[Tensor], Tensor], texts: Tensor, guidance: float) -> Tensor:
    """Classifier-free guidance: what `predict` says under no caption, plus `guidance` times what the caption adds."""
    if guidance == 1:
        return predict(texts)
    free, prompted = predict(torch.cat([torch.zeros_like(texts), texts])).chunk(2)
    return free + guidance * (prompted - free)


def in_world(
    folder: Path,
    scenes: Scenes,
    mentioned: float,
    steps: int,
    learn: Callable[[Path, Tensor, int, bool], None],
) -> None:
    """Train two thirds on captions of the article alone, shared by all worlds, and the rest on a world's own captions.

    learn: (folder, captions (n, TEXT), steps, whether the learning rate falls).
    """
    shared = round(SHARED * steps)
    learn(folder / "shared", _texts(web_captions(scenes, 0.0, seed=20)), shared, False)
    learn(folder / f"{mentioned}", _texts(web_captions(scenes, mentioned, seed=20)), max(2, steps - shared), True)


def _texts(captions: Sequence[str]) -> Tensor:
    return torch.from_numpy(bags(captions))


def draw(sampler: Callable[[Tensor, Tensor], Tensor], classes: np.ndarray, numbers: int, seed: int) -> np.ndarray:
    """Samples (n, 32, 32) float32 in [0, 1] for prompts of the classes (n,) alone, drawn in batches.

    sampler: (prompts (b, TEXT), normal deviates (b, numbers)) to pixels (b, 32, 32). The deviates of a sample depend
    on (seed, its position) alone.
    """
    done = []
    with torch.inference_mode():
        for start in range(0, len(classes), BATCH):
            part = _texts([class_prompt(int(number)) for number in classes[start : start + BATCH]])
            rngs = (np.random.default_rng([seed, start + n]) for n in range(len(part)))
            deviates = np.stack([rng.standard_normal(numbers, np.float32) for rng in rngs])
            done.append(sampler(part, torch.from_numpy(deviates)).numpy())
    return np.concatenate(done)
