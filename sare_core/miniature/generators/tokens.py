"""VQDM's stand-in: images as 8×8 discrete tokens, and a transformer that draws them (Esser et al. 2021).

The tokens are finite scalar quantisation (Mentzer et al. 2024, arXiv:2309.15505): each position's vector is rounded to
a fixed grid of 8 × 6 × 5 = 240 points. There is no codebook that could collapse.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sare_core.miniature.fitting import Part, fit
from sare_core.miniature.generators.drawing import TEXT, draw, guided, in_world, noisy, scaled, unscaled, with_dropout
from sare_core.miniature.scenes import Scenes

LEVELS = (8, 6, 5)
CODES = 8 * 6 * 5
GRID = 8
LENGTH = GRID * GRID


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(8, channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GroupNorm(8, channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Tokenizer(nn.Module):
    """Scaled images (n, 1, 32, 32) to codes in [-1, 1] (n, 3, 8, 8), each on its level, and back."""

    def __init__(self, outer: int = 40, inner: int = 96) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(4, outer, 3, padding=1),
            Residual(outer),
            nn.Conv2d(outer, inner, 4, 2, 1),
            Residual(inner),
            nn.GroupNorm(8, inner),
            nn.SiLU(),
            nn.Conv2d(inner, len(LEVELS), 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(len(LEVELS), inner, 3, padding=1),
            Residual(inner),
            Residual(inner),
            nn.Conv2d(inner, 4 * outer, 1),
            nn.PixelShuffle(2),
            Residual(outer),
            nn.GroupNorm(8, outer),
            nn.SiLU(),
            nn.Conv2d(outer, 4, 3, padding=1),
            nn.PixelShuffle(2),
        )

    def encode(self, images: Tensor) -> Tensor:
        levels = torch.tensor(LEVELS).view(1, -1, 1, 1)
        position = torch.sigmoid(self.encoder(images)) * (levels - 1)
        position = position + (position.round() - position).detach()  # gradients pass the rounding unchanged
        return 2 * position / (levels - 1) - 1

    def tokens(self, images: Tensor) -> Tensor:
        """(n, 1, 32, 32) to (n, 64) tokens in 0..CODES − 1, row by row."""
        levels = torch.tensor(LEVELS).view(1, -1, 1, 1)
        place = ((self.encode(images) + 1) / 2 * (levels - 1)).round().long()
        return ((place[:, 0] * LEVELS[1] + place[:, 1]) * LEVELS[2] + place[:, 2]).flatten(1)

    def decode_tokens(self, tokens: Tensor) -> Tensor:
        """(n, 64) tokens to (n, 1, 32, 32)."""
        places = (tokens // (LEVELS[1] * LEVELS[2]), tokens // LEVELS[2] % LEVELS[1], tokens % LEVELS[2])
        codes = [2 * place / (count - 1) - 1 for place, count in zip(places, LEVELS, strict=True)]
        return self.decoder(torch.stack(codes, 1).view(-1, len(LEVELS), GRID, GRID))


class Writer(nn.Module):
    """A causal transformer: captions (n, TEXT), tokens so far (n, k) to logits of tokens 0..k, (n, k + 1, CODES)."""

    def __init__(self, width: int = 128, layers: int = 4) -> None:
        super().__init__()
        self.texts = nn.Linear(TEXT, width)
        self.left = nn.Embedding(CODES, width)
        self.above = nn.Embedding(CODES, width)  # told outright, or the transformer would first have to find it
        self.positions = nn.Parameter(0.02 * torch.randn(LENGTH, width))
        block = nn.TransformerEncoderLayer(
            width, 4, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, CODES)

    def forward(self, texts: Tensor, tokens: Tensor) -> Tensor:
        count = tokens.shape[1] + 1
        start = self.texts(texts).unsqueeze(1)
        x = torch.cat([start, self.left(tokens)], 1) + self.positions[:count]
        above = F.pad(self.above(tokens[:, : max(0, count - GRID)]), (0, 0, min(GRID, count), 0))
        mask = torch.ones(count, count, dtype=torch.bool).triu(1)
        return self.head(self.blocks(x + start + above, mask=mask, is_causal=True))


@dataclass(frozen=True)
class TokenModel:
    """tokenizer: images to tokens and back. writer: draws tokens."""

    tokenizer: Tokenizer
    writer: Writer


def train_tokens(folder: Path, scenes: Scenes, mentioned: float, steps: int, seed: int) -> TokenModel:
    """Train the tokenizer on scenes, then the writer on a world's captions too; or go on where `folder` stands."""
    torch.manual_seed(seed)
    tokenizer, writer = Tokenizer(), Writer()
    data = scaled(scenes)

    def tokenizer_losses(step: int, rng: np.random.Generator) -> Iterator[tuple[str, Tensor]]:
        real = data[rng.integers(0, len(data), 32)]
        decoded = tokenizer.decoder(tokenizer.encode(noisy(real)))
        loss = (decoded - real).abs().mean()
        yield "tokenizer", loss + sum((decoded.diff(dim=d) - real.diff(dim=d)).abs().mean() for d in (2, 3))

    part = Part(tokenizer, 2e-3, weight_decay=0.0, ema=0.997)
    fit(folder / "tokenizer", {"tokenizer": part}, max(2, steps // 2), tokenizer_losses, seed)
    with torch.inference_mode():
        tokens = torch.cat([tokenizer.tokens(part) for part in data.split(500)]).clone()

    def learn(folder: Path, captions: Tensor, steps: int, fall: bool) -> None:
        def losses(step: int, rng: np.random.Generator) -> Iterator[tuple[str, Tensor]]:
            chosen = rng.integers(0, len(data), 32)
            logits = writer(with_dropout(captions[chosen], rng), tokens[chosen, :-1])
            yield "writer", F.cross_entropy(logits.flatten(0, 1), tokens[chosen].flatten())

        fit(folder, {"writer": Part(writer, 1.5e-3, ema=0.998)}, steps, losses, seed + 1, 100, fall)

    in_world(folder, scenes, mentioned, steps, learn)
    return TokenModel(tokenizer, writer)


def sample_tokens(model: TokenModel, classes: np.ndarray, seed: int, guidance: float) -> np.ndarray:
    """One scene of each class given: (n,) to (n, 32, 32) float32 in [0, 1]."""

    def sampler(texts: Tensor, deviates: Tensor) -> Tensor:
        chance = torch.special.ndtr(deviates)  # uniform in [0, 1]
        tokens = torch.zeros(len(texts), 0, dtype=torch.long)
        for position in range(LENGTH):

            def predict(said: Tensor) -> Tensor:
                return model.writer(said, tokens.repeat(len(said) // len(texts), 1))[:, -1]  # noqa: B023

            logits = guided(predict, texts, guidance)
            below = logits.softmax(1).cumsum(1) < chance[:, position : position + 1]
            tokens = torch.cat([tokens, below.sum(1, keepdim=True).clamp(max=CODES - 1)], 1)
        return unscaled(model.tokenizer.decode_tokens(tokens))

    return draw(sampler, classes, LENGTH, seed)
