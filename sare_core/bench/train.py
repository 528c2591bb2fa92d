"""Training of the detector (paper 3.3, 4.1) timed: steps on batches that lie ready, the loader alone, and both."""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sare_core.bench.loader import DrawnSamples, rate
from sare_core.bench.table import Row
from sare_core.bench.timing import peak_memory, seconds
from sare_core.config import Settings
from sare_core.plan import flops, models
from sare_core.training.steps import adamw, speed_up

SECONDS = 5.0  # at least, of the loader
DTYPES = {"no": "float32", "fp16": "float16", "bf16": "bfloat16"}  # of train.mixed_precision, by torch's names


def rows(settings: Settings, batches: list[int], device: str, tell: Callable[[str], None]) -> Iterator[Row]:
    """A row a number of images that go through the detector at once: forward, backward and AdamW. With the most of
    them two more: images that are read, decoded and augmented by `train.workers` processes, alone and before the steps.
    """
    cost = flops.detector_cost(settings.detector)
    model: Any = models.detector(settings.detector).to_empty(device=device).float()
    fill(model)
    model.train()
    speed_up(model, settings.train)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = adamw(settings.train, trained, torch.device(device))
    side, dtype = settings.detector.input_size, DTYPES[settings.train.mixed_precision]

    def step(batch: dict[str, torch.Tensor]) -> None:
        batch = {name: part.to(device, non_blocking=True) for name, part in batch.items()}
        with torch.autocast(device.partition(":")[0], getattr(torch, dtype), enabled=dtype != "float32"):
            logits = model(batch)
        model.loss(logits.float(), batch).backward()
        optimizer.step()
        optimizer.zero_grad()

    def row(what: str, images: int, rate: float, flops: int = cost.step) -> Row:
        return Row(what, dtype, f"{side}×{side}", images, rate, rate * flops, "", peak_memory(device))

    for images in batches:
        tell(f"train, {images} images a step")
        batch = {name: torch.randn(images, 3, side, side, device=device) for name in ("image", *model.maps)}
        batch["label"] = torch.arange(images, device=device) % 2

        yield row("train step", images, images / seconds(partial(step, batch), device))
    workers, images = settings.train.workers, batches[-1]
    with tempfile.TemporaryDirectory() as folder:
        samples = DrawnSamples(settings, Path(folder))
        tell(f"train, the loader with {workers} workers")
        yield row(f"loader, {workers} workers", images, rate(samples, images, workers, lambda batch: None, SECONDS), 0)
        tell(f"train, the loader and {images} images a step")
        yield row("loader and train step", images, rate(samples, images, workers, step, SECONDS))


@torch.no_grad()
def fill(model: nn.Module) -> None:
    """Values for a model that came from the meta device: small random weights, and normalisation as it begins."""
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            parameter.normal_(std=0.02)
        else:
            parameter.fill_(float(name.endswith("weight")))
    for name, buffer in model.named_buffers():
        if name.endswith("position_ids"):
            buffer.copy_(torch.arange(buffer.shape[-1], device=buffer.device).expand_as(buffer))
        else:
            buffer.fill_(float(name.endswith("running_var")))
