"""Midjourney's stand-in, unlike the others: a rectified flow (Liu et al. 2023) by a transformer (Peebles & Xie 2023)
on patches of 4×4 pixels, which predicts the clean image (Li & He 2025, arXiv:2511.13720).

At time t in [0, 1] an image is t x + (1 − t) ε: noise at 0, a scene at 1.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sare_core.miniature.fitting import Part, fit
from sare_core.miniature.generators.drawing import TEXT, draw, guided, in_world, scaled, unscaled, with_dropout
from sare_core.miniature.scenes import Scenes

PATCH = 4
SAMPLING_STEPS = 25
BATCH = 32
LAST = 0.05  # 1 − t is held above this where a loss divides by it


class Block(nn.Module):
    """Attention and a perceptron, each scaled, shifted and gated by the condition; it starts as the identity."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.inward = nn.Linear(width, 3 * width)
        self.outward = nn.Linear(width, width)
        self.perceptron = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift_a, scale_a, gate_a, shift_p, scale_p, gate_p = self.modulation(condition).unsqueeze(1).chunk(6, -1)
        y = self.inward(_norm(x) * (1 + scale_a) + shift_a).unflatten(-1, (3, self.heads, -1))
        query, key, value = y.permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        x = x + gate_a * self.outward(y)
        return x + gate_p * self.perceptron(_norm(x) * (1 + scale_p) + shift_p)


class Transformer(nn.Module):
    """Noised images (n, 1, 32, 32), times (n,) and captions (n, TEXT) to clean images (n, 1, 32, 32)."""

    def __init__(self, width: int = 128, layers: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.inward = nn.Linear(PATCH * PATCH, width)
        self.positions = nn.Parameter(_places(width))
        self.times = nn.Sequential(nn.Linear(64, width), nn.SiLU(), nn.Linear(width, width))
        self.texts = nn.Linear(TEXT, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.outward = nn.Linear(width, PATCH * PATCH)

    def forward(self, images: Tensor, times: Tensor, texts: Tensor) -> Tensor:
        condition = F.silu(self.times(_waves(times)) + self.texts(texts))
        x = self.inward(F.pixel_unshuffle(images, PATCH).flatten(2).transpose(1, 2)) + self.positions
        for block in self.blocks:
            x = block(x, condition)
        patches = self.outward(_norm(x)).transpose(1, 2).unflatten(2, (32 // PATCH, 32 // PATCH))
        return F.pixel_shuffle(patches, PATCH)


def train_flow(folder: Path, scenes: Scenes, mentioned: float, steps: int, seed: int) -> Transformer:
    """Train on scenes and a world's captions, or go on where `folder` stands."""
    torch.manual_seed(seed)
    transformer = Transformer()
    data = scaled(scenes)

    def learn(folder: Path, captions: Tensor, steps: int, fall: bool) -> None:
        def losses(step: int, rng: np.random.Generator) -> Iterator[tuple[str, Tensor]]:
            chosen = rng.integers(0, len(data), BATCH)
            clean, texts = data[chosen], with_dropout(captions[chosen], rng)
            times = torch.sigmoid(torch.randn(len(clean)) - 0.4)
            t = times.view(-1, 1, 1, 1)
            noised = t * clean + (1 - t) * torch.randn_like(clean)
            # The error of the velocity (x − x_t) / (1 − t) that the prediction stands for.
            error = (transformer(noised, times, texts) - clean) / (1 - t).clamp(min=LAST)
            yield "transformer", error.square().mean()

        fit(folder, {"transformer": Part(transformer, 1e-3, ema=0.998)}, steps, losses, seed, 100, fall)

    in_world(folder, scenes, mentioned, steps, learn)
    return transformer


def sample_flow(transformer: Transformer, classes: np.ndarray, seed: int, guidance: float) -> np.ndarray:
    """One scene of each class given: (n,) to (n, 32, 32) float32 in [0, 1]."""

    def sampler(texts: Tensor, deviates: Tensor) -> Tensor:
        image = deviates.view(-1, 1, 32, 32)
        for step in range(SAMPLING_STEPS):

            def predict(said: Tensor) -> Tensor:
                times = len(said) // len(image)  # noqa: B023
                now = torch.full((len(said),), step / SAMPLING_STEPS)  # noqa: B023
                return transformer(image.repeat(times, 1, 1, 1), now, said)  # noqa: B023

            image = image + (guided(predict, texts, guidance) - image) / (SAMPLING_STEPS - step)
        return unscaled(image)

    return draw(sampler, classes, 32 * 32, seed)


def _norm(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:])


def _places(width: int) -> Tensor:
    """(patches, width) sines and cosines of row and column: neighbours are alike from the first step on."""
    side = torch.arange(32 // PATCH)
    angles = torch.stack(torch.meshgrid(side, side, indexing="ij"), -1).view(-1, 2, 1) / 3.0 ** torch.arange(4)
    waves = torch.cat([angles.sin(), angles.cos()], -1).flatten(1)
    return waves.repeat(1, width // waves.shape[1])


def _waves(times: Tensor) -> Tensor:
    frequencies = torch.exp(torch.linspace(math.log(1.0), math.log(1000.0), 32))
    angles = times.unsqueeze(1) * frequencies
    return torch.cat([angles.cos(), angles.sin()], 1)
