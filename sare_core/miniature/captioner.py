"""BLIP of the scale model, which names the main article of a photograph."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sare_core.miniature.contrast import mirrored, photographed
from sare_core.miniature.fitting import Part, fit
from sare_core.miniature.scenes import Scenes
from sare_core.miniature.words import bert_tokenizer, class_prompt


def blip_processor() -> Any:
    """BLIP's own processor, for images of 32×32."""
    from transformers import BlipImageProcessor, BlipProcessor

    return BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), bert_tokenizer())


def train_captioner(folder: Path, scenes: Scenes, steps: int, seed: int) -> Any:
    """Train a BlipForConditionalGeneration to say "a photo of a sneaker"; or go on where `folder` stands."""
    from transformers import BlipConfig, BlipForConditionalGeneration

    torch.manual_seed(seed)
    processor = blip_processor()
    tokenizer = processor.tokenizer
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "encoder_hidden_size": 64,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 32,
        "pad_token_id": tokenizer.pad_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "initializer_range": 0.1,  # for so narrow a model; with the usual 0.02 it does not come to look at the image
        "label_smoothing": 0.0,
    }
    vision = {
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": 32,
        "patch_size": 4,
        "initializer_range": 0.1,
    }
    config = BlipConfig(text_config=text, vision_config=vision, projection_dim=64, image_text_hidden_size=64)
    blip = BlipForConditionalGeneration(config)
    images = torch.from_numpy(scenes.pixels).unsqueeze(1)
    captions = [class_prompt(int(number)) for number in scenes.classes]
    # [CLS] of the tokenizer stands where generation has [DEC]: BLIP starts from bos_token_id.
    tokens = tokenizer(captions, padding=True, return_tensors="pt")
    ids, mask = tokens.input_ids.clone(), tokens.attention_mask
    ids[:, 0] = tokenizer.bos_token_id
    labels = ids.masked_fill(mask == 0, -100)
    mean, std = (
        torch.tensor(v).view(1, 3, 1, 1)
        for v in (processor.image_processor.image_mean, processor.image_processor.image_std)
    )

    def losses(step: int, rng: np.random.Generator) -> Iterator[tuple[str, Tensor]]:
        chosen = torch.from_numpy(rng.integers(0, len(images), 64))
        batch = (mirrored(photographed(images[chosen]), rng).expand(-1, 3, -1, -1) - mean) / std
        output = blip(pixel_values=batch, input_ids=ids[chosen], attention_mask=mask[chosen], labels=labels[chosen])
        yield "blip", output.loss

    fit(folder, {"blip": Part(blip, 1e-3, ema=0.99)}, steps, losses, seed, warmup=100)
    return blip
