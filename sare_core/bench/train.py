"""Training steps of the detector (paper 3.3, 4.1) timed, on batches that lie ready: what no loader can exceed."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from sare_core.bench.table import Row
from sare_core.bench.timing import peak_memory, seconds
from sare_core.config import Settings
from sare_core.plan import flops, models

DTYPES = {"no": "float32", "fp16": "float16", "bf16": "bfloat16"}  # of train.mixed_precision, by torch's names


def rows(settings: Settings, batches: list[int], device: str, tell: Callable[[str], None]) -> Iterator[Row]:
    """A row a number of images that go through the detector at once; forward, backward and AdamW."""
    cost = flops.detector_cost(settings.detector)
    model: Any = models.detector(settings.detector).to_empty(device=device).float()
    fill(model)
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5)
    side, dtype = settings.detector.input_size, DTYPES[settings.train.mixed_precision]
    for images in batches:
        tell(f"train, {images} images a step")
        batch = {name: torch.randn(images, 3, side, side, device=device) for name in ("image", *model.maps)}
        batch["label"] = torch.arange(images, device=device) % 2

        def step(batch: dict[str, torch.Tensor] = batch) -> None:
            with torch.autocast(device.partition(":")[0], getattr(torch, dtype), enabled=dtype != "float32"):
                logits = model(batch)
            model.loss(logits.float(), batch).backward()
            optimizer.step()
            optimizer.zero_grad()

        took = seconds(step, device)
        yield Row(
            "train step",
            dtype,
            f"{side}×{side}",
            images,
            images / took,
            images * cost.step / took,
            "",
            peak_memory(device),
        )


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
