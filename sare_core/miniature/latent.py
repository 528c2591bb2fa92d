"""Latent diffusion in Stable Diffusion v1's parts, trained on pictures and their captions of the web."""

import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor

from sare_core.miniature.contrast import photographed, tokenise
from sare_core.miniature.fitting import Part, fit
from sare_core.miniature.scenes import Scenes
from sare_core.miniature.words import clip_tokenizer

NO_CAPTION = 0.1  # share of the pictures that are shown without their caption, for guidance
BATCH = 32

SCHEDULER = {  # word for word the scheduler_config.json of Stable Diffusion v1-4
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.7.0.dev0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}


def new_unet(channels: tuple[int, int], latents: int, seed: int) -> Any:
    """An untrained UNet on latents of 8×8, with cross-attention to text states of width 64 at both levels."""
    torch.manual_seed(seed)
    unet: Any = UNet2DConditionModel(
        sample_size=8,
        in_channels=latents,
        out_channels=latents,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=channels,
        layers_per_block=1,
        cross_attention_dim=64,
        attention_head_dim=4,
        norm_num_groups=16,
    )
    return unet.to(memory_format=torch.channels_last)  # a tenth faster


def train_unet(
    folder: Path,
    unet: Any,
    vae: Any,
    text_encoder: Any,
    scenes: Scenes,
    captions: Sequence[str],
    steps: int,
    seed: int,
    rate: float = 1e-3,
    fall: bool = True,
) -> Any:
    """Train `unet` to predict the noise in latents of photographs, one caption each; or go on where `folder` stands."""
    encoded = cache(lambda: encode_scenes(vae, scenes.pixels, seed))  # a finished training does not need it
    texts = {text: number for number, text in enumerate(["", *sorted(set(captions))])}
    with torch.no_grad():
        states = text_encoder(tokenise(list(texts))).last_hidden_state
    caption_of = torch.tensor([texts[text] for text in captions])
    scheduler = DDIMScheduler.from_config(SCHEDULER)

    def losses(step: int, rng: np.random.Generator) -> Iterator[tuple[str, Tensor]]:
        chosen = torch.from_numpy(rng.integers(0, len(scenes), BATCH))
        said = caption_of[chosen].masked_fill(torch.from_numpy(rng.random(BATCH) < NO_CAPTION), 0)
        means, deviations = (part[chosen] for part in encoded())
        latents = means + deviations * torch.randn_like(means)
        noise, t = torch.randn_like(latents), torch.randint(0, 1000, (BATCH,))
        predicted = unet(scheduler.add_noise(latents, noise, t), t, states[said]).sample
        yield "unet", (predicted - noise).square().mean()

    fit(folder, {"unet": Part(unet, rate, ema=0.998)}, steps, losses, seed, warmup=100, fall=fall)
    return unet


@torch.no_grad()
def encode_scenes(vae: Any, pixels: np.ndarray, seed: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the latents of photographs of scenes, (n, c, 8, 8) each, scaled to unit size."""
    parts = []
    with torch.random.fork_rng(devices=[]):  # or the step that asks for them would go on with other numbers
        torch.manual_seed(seed)
        for batch in torch.from_numpy(pixels).unsqueeze(1).split(500):
            posterior = vae.encode(photographed(batch).expand(-1, 3, -1, -1) * 2 - 1).latent_dist
            parts.append(torch.stack([posterior.mean, posterior.std]) * vae.config.scaling_factor)
    means, deviations = torch.cat(parts, dim=1)
    return means, deviations


def assemble(vae: Any, text_encoder: Any, unet: Any) -> Any:
    """The parts as a StableDiffusionPipeline that samples with DDIM."""
    pipeline: Any = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=clip_tokenizer(),
        unet=unet,
        scheduler=DDIMScheduler.from_config(SCHEDULER),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_diffusion(pipeline: Any, folder: Path) -> None:
    """Write the folder that `from_pretrained` reads, weights in half precision."""
    pipeline.save_pretrained(folder)
    # As it was published: saving the object would lose clip_sample, which DDIM reads.
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER, indent=2) + "\n")


def sample_prompts(pipeline: Any, prompts: list[str], seed: int, guidance_scale: float, steps: int = 20) -> np.ndarray:
    """One image a prompt, (n, 32, 32) float32 in [0, 1]; its noise depends on the seed and its place alone."""
    images = []
    for start in range(0, len(prompts), 100):
        numbers = range(start, min(start + 100, len(prompts)))
        drawn = pipeline(
            [prompts[n] for n in numbers],
            height=32,
            width=32,
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            generator=[torch.Generator().manual_seed((seed << 24) + n) for n in numbers],
            output_type="np",
        ).images
        images.append(drawn.mean(axis=3))
    return np.concatenate(images).astype(np.float32)
