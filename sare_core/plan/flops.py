"""FLOPs an image of each stage, counted by torch on skeletons of the very models (see models.py); 1 MAC = 2 FLOPs.

What torch counts are matrix products, convolutions and attention; the rest is below 1 % of these models.
"""

from collections.abc import Callable, Iterable
from math import ceil
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import empty
from torch.utils.flop_counter import FlopCounterMode

from sare_core.config.captioning import CaptionSettings
from sare_core.config.detectors import DetectorSettings
from sare_core.config.reconstruction import ReconstructSettings
from sare_core.errors import ConfigError
from sare_core.plan import models
from sare_core.reconstruction import method_of
from sare_core.reconstruction.caching import split
from sare_core.reconstruction.merging import merging

Size = tuple[int, int]  # width, height in pixels


def count(run: Callable[[], Any]) -> int:
    """The FLOPs of what `run` does; new tensors in it are on the meta device."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def caption_flops(settings: CaptionSettings) -> int:
    """FLOPs a caption of BLIP: the image once, then `max_new_tokens` words with cached keys, for each beam.

    Captions that end earlier take less: at 20 words the image is 5 of 6 parts. Prompt tokens are taken as its words.
    Raises ConfigError: the captioner is none that can be counted, or its configuration is unavailable.
    """
    if settings.captioner in ("none", "table"):
        return 0
    if settings.captioner != "blip":
        raise ConfigError(f"captioner {settings.captioner}: its FLOPs depend on each image's tiles and words")
    from transformers import DynamicCache, EncoderDecoderCache

    blip = models.blip(settings).eval()
    vision, prompt = blip.config.vision_config, len((settings.prompt or "").split()) + 1

    def words(states: torch.Tensor) -> int:
        """Counted for three words: each further one sees one more before it, and so costs as much more as the third."""
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())

        def word(tokens: int) -> int:
            # By position, since transformers has renamed the cache's keyword.
            given = (empty(1, tokens, dtype=torch.long, device="meta"), None, None, None, states, None, None, cache)
            return count(lambda: blip.text_decoder(*given, use_cache=True))

        first, second, third = word(prompt), word(1), word(1)
        more = settings.max_new_tokens - 1
        return first + more * second + more * (more - 1) // 2 * (third - second)

    with torch.no_grad():
        image = count(lambda: blip.vision_model(empty(1, 3, vision.image_size, vision.image_size)))
        states = empty(1, blip.vision_model.embeddings.num_positions, vision.hidden_size, device="meta")
        return image + settings.num_beams * words(states)


def reconstruct_flops(
    settings: ReconstructSettings, model: models.Diffusion, sizes: Iterable[Size], captioned: bool
) -> dict[Size, int]:
    """FLOPs an image of each size, as its method works. captioned: whether there is a caption to be guided by.

    Each image's caption is counted; those that repeat are encoded once, and so is the null text. What a method of
    somebody's own does beyond its passes through U-Net and autoencoder is not known.
    """
    method = method_of(settings)
    captioned = captioned and method.needs_captions
    whole, outer = split(merging(model.unet.eval(), settings.token_merging))
    passes = dict(zip((whole, outer), method.passes(settings), strict=True))
    rows = method.rows(settings, model.unet) if captioned else 1
    told = model.unet.config.time_cond_proj_dim
    vae, width = model.vae.eval(), model.text_encoder.config.hidden_size
    channels = vae.config.latent_channels

    def at(size: Size) -> int:
        w, h = size[0] // model.multiple, size[1] // model.multiple
        total = count(lambda: vae.encode(empty(1, 3, size[1], size[0])))
        total += count(lambda: vae.decode(empty(1, channels, h, w)))
        latents = (1, model.unet.config.in_channels, h, w)  # of in-painting models more than the autoencoder's
        inputs = {"encoder_hidden_states": empty(1, model.tokens, width, device="meta")}
        if told is not None:
            inputs["timestep_cond"] = empty(1, told, device="meta")
        for unet, times in passes.items():
            if times:
                total += times * rows * count(lambda: unet(empty(latents), 1, **inputs))  # noqa: B023
        return total

    with torch.no_grad():
        text = 0
        if any(passes.values()) and captioned:
            text = count(lambda: model.text_encoder.eval()(empty(1, model.tokens, dtype=torch.long)))
        sizes = sorted(set(sizes))
        levels = len(model.unet.config.block_out_channels)
        found = _at_all(sizes, at, lambda size: _features(size, model.multiple, levels))
        lpips = {size: _lpips_flops(settings.lpips, size) for size in sizes}
    draws, rounds = settings.noise_draws, settings.rounds
    return {size: draws * (rounds * flops + lpips[size]) + text for size, flops in found.items()}


class DetectorCost(NamedTuple):
    """forward, step: FLOPs an image, without and with the backward pass; best, last: bytes of the checkpoints."""

    forward: int
    step: int
    best: int
    last: int


def detector_cost(settings: DetectorSettings) -> DetectorCost:
    """What an image costs in evaluation and in training, and what the checkpoints take.

    Raises ConfigError: no such detector, or a configuration is unavailable.
    """
    detector, images = models.detector(settings), 2  # BatchNorm wants two
    pictures = [*(detector.needs & {"image", "reconstruction"}), *(detector.maps if "sare" in detector.needs else ())]
    parts = dict.fromkeys(pictures, Image.new("RGB", (settings.input_size,) * 2)) | {"caption": ""}
    sample = detector.prepare(parts, settings)
    batch = {name: torch.stack([part] * images).to("meta") for name, part in sample.items()}

    def forward() -> torch.Tensor:
        logits: torch.Tensor = detector(batch)
        return logits

    try:
        detector.eval()
        with torch.no_grad():
            once = count(forward)
        detector.train()
        step = count(lambda: forward().sum().backward())
    except (RuntimeError, NotImplementedError) as error:  # somebody's own that looks at values, of which there are none
        raise ConfigError(f"detector {settings.detector}: does not run without values ({error})") from error
    weights = sum(value.numel() * value.element_size() for value in detector.trained_state().values())
    moments = 2 * sum(value.numel() * 4 for value in detector.parameters() if value.requires_grad)
    return DetectorCost(once // images, step // images, weights, weights + moments)


def _lpips_flops(net: str | None, size: Size) -> int:
    if net is None:
        return 0
    from sare_core.reconstruction.perceptual import lpips_network

    with torch.device("meta"):
        model = lpips_network(net)
    return count(lambda: model(empty(1, 3, size[1], size[0]), empty(1, 3, size[1], size[0])))


def _features(size: Size, multiple: int, levels: int) -> list[float]:
    """What a size's FLOPs are a sum of: the cells of each level of the UNet (convolutions, cross-attention), their
    squares (self-attention), and 1. The autoencoder's pixels and their squares are multiples of the first level's."""
    w, h = size[0] // multiple, size[1] // multiple
    cells = [float(ceil(w / 2**level) * ceil(h / 2**level)) for level in range(levels)]
    return [1.0, *cells, *(n * n for n in cells)]


def _at_all(sizes: list[Size], at: Callable[[Size], int], features: Callable[[Size], list[float]]) -> dict[Size, int]:
    """`at` for all sizes: counted at as many as the features have dimensions, combined for the others.

    One more is counted and compared; a model whose FLOPs are no sum of the features is counted at every size.
    """
    from scipy.linalg import lstsq, qr

    if len(sizes) < 3:
        return {size: at(size) for size in sizes}
    table = np.array([features(size) for size in sizes])
    table /= table.max(axis=0)
    _, upper, order = qr(table.T, mode="economic", pivoting=True)
    rank = int((abs(np.diag(upper)) > 1e-9 * abs(upper[0, 0])).sum())
    if rank + 1 >= len(sizes):
        return {size: at(size) for size in sizes}
    chosen = order[:rank]
    counted = {sizes[n]: at(sizes[n]) for n in chosen}
    shares, *_ = lstsq(table[chosen].T, table.T)  # each size's features as a sum of the chosen ones'
    combined = np.array(list(counted.values()), dtype=float) @ shares
    extra = int(order[rank])
    if abs(combined[extra] - at(sizes[extra])) > 1e-6 * combined[extra]:
        return {size: at(size) for size in sizes}
    return {size: round(value) for size, value in zip(sizes, combined, strict=True)} | counted
