"""BigGAN's stand-in: a conditional GAN with class-conditional batch norm (Brock et al. 2019), a projection
discriminator (Miyato & Koyama 2018) and an average of the generator's weights. Its loss is the one of R3GAN (Huang et
al. 2024, arXiv:2501.05441): each generated image is set against a real one of its class, which keeps variety, and both
sides' gradients are penalised, which keeps training stable without other tricks.

It paints latents, which an autoencoder's decoder turns into pixels: in pixels a GAN of this size needs many hours of
two cores. As BigGAN was, it is told the class alone, in every world.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sare_core.miniature.fitting import Part, fit
from sare_core.miniature.generators.drawing import TEXT, draw
from sare_core.miniature.latent import encode_scenes
from sare_core.miniature.scenes import Scenes
from sare_core.miniature.words import bags, class_prompt

LATENT = 64
BATCH = 64
PENALTY = 1.0  # of gradients
PENALTY_EVERY = 4  # steps, and then as many times as strong (Karras et al. 2020)


class ConditionalNorm(nn.Module):
    """Batch norm whose scale and shift come from the condition (class and noise)."""

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.affine = nn.Linear(condition, 2 * channels)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.affine(condition).view(len(x), -1, 1, 1).chunk(2, 1)
        return self.norm(x) * (1 + scale) + shift


class UpBlock(nn.Module):
    """Residual block that doubles the side."""

    def __init__(self, inside: int, outside: int, condition: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([ConditionalNorm(inside, condition), ConditionalNorm(outside, condition)])
        self.first = nn.Conv2d(inside, outside, 3, padding=1)
        self.second = nn.Conv2d(outside, outside, 3, padding=1)
        self.skip = nn.Conv2d(inside, outside, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        y = F.interpolate(F.relu(self.norms[0](x, condition)), scale_factor=2.0)
        y = self.second(F.relu(self.norms[1](self.first(y), condition)))
        return y + F.interpolate(self.skip(x), scale_factor=2.0)


class Painter(nn.Module):
    """Noise (n, LATENT) and prompts (n, TEXT) to an autoencoder's latents (n, c, 8, 8)."""

    def __init__(self, latents: int) -> None:
        super().__init__()
        condition = 2 * LATENT
        self.texts = nn.Linear(TEXT, LATENT, bias=False)
        self.start = nn.Linear(condition, 128 * 4 * 4)
        self.block = UpBlock(128, 96, condition)
        self.norm = ConditionalNorm(96, condition)
        self.end = nn.Sequential(
            nn.ReLU(), nn.Conv2d(96, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, latents, 3, padding=1)
        )

    def forward(self, noise: Tensor, texts: Tensor) -> Tensor:
        condition = torch.cat([noise, self.texts(texts)], 1)
        x = self.block(self.start(condition).view(-1, 128, 4, 4), condition)
        return self.end(self.norm(x, condition))


class Critic(nn.Module):
    """Latents (n, c, 8, 8) and prompts (n, TEXT) to one logit each, (n,)."""

    def __init__(self, latents: int) -> None:
        super().__init__()
        self.start = nn.Conv2d(latents, 64, 3, padding=1)
        self.convs = nn.ModuleList(
            conv
            for inside, outside in pairwise((64, 96, 128))
            for conv in (nn.Conv2d(inside, outside, 3, padding=1), nn.Conv2d(outside, outside, 4, 2, 1))
        )
        self.hidden = nn.Linear(128 * 2 * 2, 128)
        self.end = nn.Linear(128, 1)
        self.texts = nn.Linear(TEXT, 128, bias=False)

    def forward(self, latents: Tensor, texts: Tensor) -> Tensor:
        x = F.leaky_relu(self.start(latents), 0.2)
        for conv in self.convs:
            x = F.leaky_relu(conv(x), 0.2)
        x = F.leaky_relu(self.hidden(x.flatten(1)), 0.2)
        return self.end(x).squeeze(1) + (x * self.texts(texts)).sum(1) / 128**0.5


@dataclass(frozen=True)
class LatentGan:
    """painter: paints latents. autoencoder: its decoder makes pixels of them."""

    painter: Painter
    autoencoder: Any


def train_gan(folder: Path, scenes: Scenes, autoencoder: Any, steps: int, seed: int) -> LatentGan:
    """Train the GAN on an autoencoder's latents of scenes, or go on where `folder` stands."""
    torch.manual_seed(seed)
    channels = autoencoder.config.latent_channels
    painter, critic = Painter(channels), Critic(channels)
    parts = {
        "painter": Part(painter, 5e-4, betas=(0.0, 0.99), weight_decay=0.0, ema=0.998),
        "critic": Part(critic, 5e-4, betas=(0.0, 0.99), weight_decay=0.0),
    }
    encoded = cache(lambda: encode_scenes(autoencoder, scenes.pixels, seed))
    prompts = torch.from_numpy(bags([class_prompt(int(number)) for number in scenes.classes]))

    def losses(step: int, rng: np.random.Generator) -> Iterator[tuple[str, Tensor]]:
        chosen = rng.integers(0, len(scenes), BATCH)
        texts = prompts[chosen]
        means, deviations = (part[chosen] for part in encoded())
        real = means + deviations * torch.randn_like(means)
        fake = painter(torch.randn(BATCH, LATENT), texts)
        with torch.no_grad():
            beside = critic(real, texts)
        yield "painter", F.softplus(beside - critic(fake, texts)).mean()

        penalised = step % PENALTY_EVERY == 0
        both = torch.cat([real, fake.detach()]).requires_grad_(penalised)
        logits = critic(both, texts.repeat(2, 1))
        loss = F.softplus(logits[BATCH:] - logits[:BATCH]).mean()
        if penalised:
            (slope,) = torch.autograd.grad(logits.sum(), both, create_graph=True)
            loss = loss + PENALTY_EVERY * PENALTY * slope.square().sum((1, 2, 3)).mean()
        yield "critic", loss

    fit(folder, parts, steps, losses, seed)
    return LatentGan(painter, autoencoder)


def sample_gan(model: LatentGan, classes: np.ndarray, seed: int, guidance: float = 1.0) -> np.ndarray:
    """One scene of each class given: (n,) to (n, 32, 32) float32 in [0, 1]. A GAN takes no guidance."""

    def sampler(texts: Tensor, deviates: Tensor) -> Tensor:
        latents = model.painter(deviates, texts) / model.autoencoder.config.scaling_factor
        return (model.autoencoder.decode(latents).sample.mean(1) / 2 + 0.5).clamp(0, 1)

    return draw(sampler, classes, LATENT, seed)
