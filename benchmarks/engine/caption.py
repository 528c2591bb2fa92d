"""BLIP in batches beside BLIP one by one."""

import time
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image

from benchmarks.bars import Row
from benchmarks.engine.drawn import draw, settings, small_models
from sare_core.captioning.blip import load

IMAGES, BATCH, TIMES = 96, 32, 3


def rows(folder: Path) -> Iterator[Row]:
    torch.set_num_threads(1)
    caption = settings(*small_models(folder / "models"), "caption.max_new_tokens=20").caption
    captioner = load(caption, caption.model, "cpu")
    images = [Image.open(path).convert("RGB") for path in sorted(draw(folder / "images", IMAGES, 64).rglob("*.jpg"))]
    by_size = {size: [_seconds(captioner, images, size) for _ in range(TIMES)] for size in (1, BATCH)}
    ratio = min(by_size[1]) / min(by_size[BATCH])
    on = f"{IMAGES} images, small BLIP, up to 20 words, batches of {BATCH}"
    yield Row("captions one by one ÷ in batches", on, f"{ratio:.1f}", "≥ 10", ratio >= 10)


def _seconds(captioner: object, images: list[Image.Image], size: int) -> float:
    started = time.monotonic()
    for start in range(0, len(images), size):
        captioner.caption(images[start : start + size], [])  # type: ignore[attr-defined]
    return time.monotonic() - started
