"""CLIP of the miniature: image and text towers trained by contrast (Radford et al. 2021) on scenes and captions.

Its text tower is the diffusion model's text encoder, as Stable Diffusion v1 uses CLIP's; its image tower is the
detector's image encoder.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur
from transformers import CLIPConfig, CLIPModel

from sare_core.miniature.fitting import Losses, Part, fit
from sare_core.miniature.scenes import LENS, NOISE, TRAINING_NOISE, Scenes
from sare_core.miniature.words import CONTEXT, clip_tokenizer

# What the encoders are fed: gray levels in [0, 1], normalised by ImageNet's constants, as the detectors do.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def encoder_input(gray: Tensor) -> Tensor:
    """(n, 1, 32, 32) in [0, 1] to normalised (n, 3, 32, 32)."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (gray.expand(-1, 3, -1, -1) - mean) / std


def photographed(gray: Tensor) -> Tensor:
    """Scenes (n, 1, 32, 32) with the training's noise, fresh at each call: what models that generate read."""
    return _noisy(gray, TRAINING_NOISE)


def through_camera(gray: Tensor) -> Tensor:
    """Scenes (n, 1, 32, 32) as the camera sees them, its lens and its noise: what models that look at images read."""
    return _noisy(gaussian_blur(gray, 9, LENS), NOISE)


def _noisy(gray: Tensor, levels: tuple[float, float]) -> Tensor:
    """With noise of a standard deviation drawn for each image, in 8-bit levels."""
    low, high = levels
    sigma = low + (high - low) * torch.rand(len(gray), 1, 1, 1)
    return gray + sigma / 255 * torch.randn_like(gray)


def tokenise(captions: list[str]) -> Tensor:
    """(n, CONTEXT) token ids, padded as Stable Diffusion pads prompts."""
    tokens: Any = clip_tokenizer()(captions, padding="max_length", truncation=True, return_tensors="pt")
    return tokens.input_ids


def train_clip(folder: Path, scenes: Scenes, steps: int, seed: int) -> CLIPModel:
    """Train on photographs of scenes, each under its rich caption, its coarse one, or words left out of it."""
    torch.manual_seed(seed)
    tokenizer = clip_tokenizer()
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": CONTEXT,
        "bos_token_id": begin,
        "eos_token_id": end,
        "pad_token_id": end,
    }
    vision = {
        "hidden_size": 96,
        "intermediate_size": 384,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": 32,
        "patch_size": 4,
    }
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=64))
    losses = _contrast(clip, scenes, photographed)
    fit(folder, {"clip": Part(clip, 1e-3, ema=0.995)}, steps, losses, seed, warmup=100)
    return clip


def train_image_tower(folder: Path, clip: Any, scenes: Scenes, steps: int, seed: int) -> Any:
    """Train the image tower of `clip` further, on what the camera gives; or go on where `folder` stands."""
    clip.vision_model.requires_grad_(True)
    clip.visual_projection.requires_grad_(True)
    losses = _contrast(clip, scenes, through_camera)
    fit(folder, {"clip": Part(clip, 1e-3, ema=0.995)}, steps, losses, seed, warmup=100)
    return clip


def _contrast(clip: Any, scenes: Scenes, look: Callable[[Tensor], Tensor]) -> Losses:
    images = torch.from_numpy(scenes.pixels).unsqueeze(1)
    captions = [tokenise(scenes.coarse), tokenise(scenes.rich)]

    def losses(step: int, rng: np.random.Generator) -> Iterator[tuple[str, Tensor]]:
        chosen = rng.integers(0, len(images), 128)
        batch = look(images[chosen])
        mirrored = batch.flip(3)  # left and right change places, so only under the coarse caption
        rich = rng.random(len(chosen)) < 0.7
        flip = torch.from_numpy(~rich & (rng.random(len(chosen)) < 0.5)).view(-1, 1, 1, 1)
        batch = torch.where(flip, mirrored, batch)
        tokens = torch.where(torch.from_numpy(rich).unsqueeze(1), captions[1][chosen], captions[0][chosen])
        seen = clip.get_image_features(pixel_values=encoder_input(batch)).pooler_output
        read = clip.get_text_features(input_ids=tokens).pooler_output
        seen, read = (torch.nn.functional.normalize(part, dim=-1) for part in (seen, read))
        logits = clip.logit_scale.exp().clamp(max=100) * seen @ read.T
        # Images share captions: every one of the same words is as right as the image's own.
        same = (tokens.unsqueeze(0) == tokens.unsqueeze(1)).all(-1).float()
        target = same / same.sum(1, keepdim=True)
        loss = -(target * logits.log_softmax(1)).sum(1).mean() - (target * logits.T.log_softmax(1)).sum(1).mean()
        yield "clip", loss / 2

    return losses
