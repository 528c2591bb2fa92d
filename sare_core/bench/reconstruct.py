"""Reconstruction (paper 3.2) timed: each speed and batch size of ours, and the peers' way beside them."""

import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image

from sare_core.bench.table import Row
from sare_core.bench.timing import peak_memory, seconds
from sare_core.config.reconstruction import ReconstructSettings
from sare_core.plan import flops, models
from sare_core.reconstruction import method_of
from sare_core.reconstruction.mapper import Mapper, generator_for
from sare_core.reconstruction.stable_diffusion import Parts, StableDiffusion

CAPTION = "a photo of a ball"
PEERS = "diffusers, one by one"


def parts_of(settings: ReconstructSettings, device: str) -> Parts:
    """The model that the settings name, with random weights; its own tokenizer, or one of a few words."""
    from diffusers import DDIMScheduler
    from diffusers.utils import logging
    from transformers import CLIPTokenizer

    from sare_core.miniature.words import clip_tokenizer

    logging.set_verbosity_error()  # it remarks on every change of dtype
    model, dtype = models.build_diffusion(settings, device), getattr(torch, settings.dtype)
    own = models.config_folder(settings.model, settings.revision) / "tokenizer"
    tokenizer = CLIPTokenizer.from_pretrained(own) if own.is_dir() else clip_tokenizer()
    tokenizer.model_max_length = model.tokens
    unet, vae, text_encoder = (
        part.to(dtype).eval().requires_grad_(False) for part in (model.unet, model.vae, model.text_encoder)
    )
    # Stable Diffusion v1's; the speed of another would be the same.
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)
    return Parts(vae, unet, text_encoder, tokenizer, scheduler)


def rows(
    settings: ReconstructSettings,
    size: tuple[int, int],
    batches: list[int],
    speeds: list[str],
    device: str,
    quick: bool,
    tell: Callable[[str], None],
) -> Iterator[Row]:
    """A row a speed and batch size; then one of the peers' way, in `quick` left out.

    size: width, height. quick: one step of the U-Net stands for all of them, and nothing is run as a whole.
    """
    each = flops.reconstruct_flops(settings, models.diffusion(settings), [size], captioned=True)[size]
    for speed in speeds:
        parts = parts_of(settings, device)  # anew: compiled parts stay compiled
        for batch in batches:
            tell(f"reconstruct, {speed}, batch {batch}")
            changed = settings.model_copy(update={"speed": speed, "batch_size": batch})
            try:
                yield _ours(changed, parts, size, each, device, quick)
            except torch.OutOfMemoryError:
                tell(f"reconstruct, {speed}, batch {batch}: does not fit into memory")
                break
    if not quick:
        tell(f"reconstruct, {PEERS}")
        yield _peers(settings, parts_of(settings, device), size, each, device)


def _ours(
    settings: ReconstructSettings, parts: Parts, size: tuple[int, int], each: int, device: str, quick: bool
) -> Row:
    """Raises torch.OutOfMemoryError: the batch does not fit as a whole."""
    batch = settings.batch_size
    load: Any = method_of(settings).load
    model: StableDiffusion = load(settings, parts, device)
    mapper = Mapper(settings, 0, model)
    pixels = [_image(size, number) for number in range(batch)]
    names, captions = [str(number) for number in range(batch)], [CAPTION] * batch
    peak_memory(device)
    with torch.no_grad():
        shares = _by_part(model, size, batch, device)
    took = settings.noise_draws * settings.rounds * sum(shares.values())
    if not quick:
        took = seconds(lambda: mapper.maps(pixels, captions, names), device, times=2)
    if any(part.largest for part in (model.encoding, model.changing, model.decoding)):
        raise torch.OutOfMemoryError(f"batch {batch}: done in parts")
    whole = sum(shares.values())
    return Row(
        f"reconstruct, {settings.speed}",
        settings.dtype,
        f"{size[0]}×{size[1]}",
        batch,
        batch / took,
        batch * each / took,
        " + ".join(f"{100 * share / whole:.0f}" for share in shares.values()),
        peak_memory(device),
    )


def _by_part(model: StableDiffusion, size: tuple[int, int], batch: int, device: str) -> dict[str, float]:
    """Seconds of encoder, U-Net (one step, times the steps) and decoder for a batch."""
    width, height = (side // model.multiple for side in size)
    generators = [generator_for(0, str(number)) for number in range(batch)]
    images = torch.rand(batch, 3, size[1], size[0], device=device).to(model.dtype) * 2 - 1
    shape = (batch, model.vae.config.latent_channels, height, width)
    latents = torch.randn(shape, device=device).to(model.dtype)
    found = {"encoder": seconds(lambda: model.encoding(model._encode, images, generators), device)}
    method = method_of(model.settings)
    passes = method.passes(model.settings)
    if passes.whole:
        rows = torch.cat([latents] * method.rows(model.settings, model.unet))
        texts, t = model.encode_texts([CAPTION] * len(rows)), model.on_device(model.steps_from_noise())[0]
        found["U-Net"] = sum(
            times * seconds(lambda: unet(rows, t, encoder_hidden_states=texts, return_dict=False), device)  # noqa: B023
            for unet, times in zip((model.unet, model.outer), passes, strict=True)
            if times
        )
    return found | {"decoder": seconds(lambda: model.decoding(model._decode, latents), device)}


def peers_way(pipeline: Any, settings: ReconstructSettings, image: Image.Image, caption: str) -> None:
    """One call of diffusers' img2img pipeline, and a PNG of what it gives by Pillow."""
    found = pipeline(
        prompt=caption,
        image=image,
        strength=settings.strength,
        num_inference_steps=settings.steps,
        guidance_scale=settings.guidance_scale,
        generator=torch.Generator().manual_seed(0),
    ).images[0]
    found.save(io.BytesIO(), format="PNG")


def _peers(settings: ReconstructSettings, parts: Parts, size: tuple[int, int], each: int, device: str) -> Row:
    """As the peers' scripts do: diffusers' pipeline once an image, text and all, and a PNG by Pillow in between."""
    from diffusers import StableDiffusionImg2ImgPipeline

    vae, unet, text_encoder, tokenizer, scheduler = parts
    arguments: dict[str, Any] = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    pipeline: Any = StableDiffusionImg2ImgPipeline(vae, text_encoder, tokenizer, unet, scheduler, **arguments)
    pipeline.set_progress_bar_config(disable=True)
    image = Image.fromarray(_image(size, 0))

    took = seconds(lambda: peers_way(pipeline, settings, image, CAPTION), device, times=2)
    return Row(PEERS, settings.dtype, f"{size[0]}×{size[1]}", 1, 1 / took, each / took, "", peak_memory(device))


def _image(size: tuple[int, int], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
