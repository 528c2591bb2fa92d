"""CLIP of the scale model: image and text towers trained by contrast (Radford et al. 2021) on scenes and captions.

Its text tower is the diffusion model's text encoder, as Stable Diffusion v1 uses CLIP's; its image tower is the
detector's image encoder.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from sare_core.miniature.fitting import Part, fit
from sare_core.miniature.scenes import NOISE, Scenes
from sare_core.miniature.words import CONTEXT, clip_tokenizer, web_captions

MENTIONED = 0.7  # share of the extras in the captions that CLIP reads; all worlds share it
# What the encoders are fed: gray levels in [0, 1], normalised by ImageNet's constants, as the detectors do.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def encoder_input(gray: Tensor) -> Tensor:
    """(n, 1, 32, 32) in [0, 1] to normalised (n, 3, 32, 32)."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (gray.expand(-1, 3, -1, -1) - mean) / std


def photographed(gray: Tensor) -> Tensor:
    """Scenes (n, 1, 32, 32) with the camera's noise, fresh at each call."""
    low, high = NOISE
    sigma = low + (high - low) * torch.rand(len(gray), 1, 1, 1)
    return gray + sigma / 255 * torch.randn_like(gray)


def mirrored(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Images (n, 1, 32, 32), half of them mirrored."""
    return torch.where(torch.from_numpy(rng.random(len(images)) < 0.5).view(-1, 1, 1, 1), images.flip(3), images)


def tokenise(captions: list[str]) -> Tensor:
    """(n, CONTEXT) token ids, padded as Stable Diffusion pads prompts."""
    tokens: Any = clip_tokenizer()(captions, padding="max_length", truncation=True, return_tensors="pt")
    return tokens.input_ids


def train_clip(folder: Path, scenes: Scenes, steps: int, seed: int) -> CLIPModel:
    """Train on photographs, half of them mirrored, with their captions of the web; or go on where `folder` stands."""
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
    images, captions = torch.from_numpy(scenes.pixels).unsqueeze(1), tokenise(web_captions(scenes, MENTIONED, seed))

    def losses(step: int, rng: np.random.Generator) -> Iterator[tuple[str, Tensor]]:
        chosen = rng.integers(0, len(images), 64)
        batch, tokens = mirrored(photographed(images[chosen]), rng), captions[chosen]
        seen = clip.get_image_features(pixel_values=encoder_input(batch)).pooler_output
        read = clip.get_text_features(input_ids=tokens).pooler_output
        seen, read = (torch.nn.functional.normalize(part, dim=-1) for part in (seen, read))
        logits = clip.logit_scale.exp().clamp(max=100) * seen @ read.T
        # Images share captions: every one of the same words is as right as the image's own.
        same = (tokens.unsqueeze(0) == tokens.unsqueeze(1)).all(-1).float()
        target = same / same.sum(1, keepdim=True)
        loss = -(target * logits.log_softmax(1)).sum(1).mean() - (target * logits.T.log_softmax(1)).sum(1).mean()
        yield "clip", loss / 2

    fit(folder, {"clip": Part(clip, 1e-3, ema=0.995)}, steps, losses, seed, warmup=100)
    return clip
