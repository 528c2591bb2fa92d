"""BLIP (paper 4.1) timed: a batch, and one by one."""

from collections.abc import Callable, Iterator
from functools import partial

import torch

from sare_core.bench.table import Row
from sare_core.bench.timing import peak_memory, seconds
from sare_core.config.captioning import CaptionSettings
from sare_core.plan import flops, models


@torch.inference_mode()
def rows(settings: CaptionSettings, batches: list[int], device: str, tell: Callable[[str], None]) -> Iterator[Row]:
    """A row a batch size, each caption of all `max_new_tokens` words: random weights know no end of a sentence."""
    each, dtype = flops.caption_flops(settings), getattr(torch, settings.dtype)
    model = models.blip(settings, device).to(dtype).eval()
    side, words = model.config.vision_config.image_size, settings.max_new_tokens
    for batch in batches:
        tell(f"caption, batch {batch}")
        generate = partial(
            model.generate,
            pixel_values=torch.randn(batch, 3, side, side, device=device).to(dtype),
            max_new_tokens=words,
            min_new_tokens=words,
            num_beams=settings.num_beams,
            do_sample=False,
        )
        took = seconds(generate, device)
        yield Row(
            "caption",
            settings.dtype,
            f"{side}×{side}",
            batch,
            batch / took,
            batch * each / took,
            "",
            peak_memory(device),
        )
