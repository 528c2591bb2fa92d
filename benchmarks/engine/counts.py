"""What no clock is needed for: FLOPs that run, waits for the device, compiled graphs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.bars import Row
from benchmarks.engine.drawn import settings, small_models
from sare_core.models import compiled
from sare_core.plan import flops, models
from sare_core.reconstruction.img2img import Img2Img
from sare_core.reconstruction.mapper import generator_for

SIZES = ((64, 64), (64, 48), (48, 64), (64, 40))  # height, width
CAPTIONS = ["a dog", "a red star", "a cat"]


def rows(folder: Path) -> Iterator[Row]:
    sets = [*small_models(folder / "models"), "reconstruct.batch_size=3"]
    config = settings(*sets, "reconstruct.steps=50").reconstruct
    model = Img2Img(config, str(config.model), "cpu")
    model.encode_texts([""])  # the null text, once a process

    # torch does not count the fused attention of a CPU.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        _reconstruct(model, *SIZES[0])
    each = flops.reconstruct_flops(config, models.diffusion(config), [SIZES[0]], captioned=True)[SIZES[0]]
    ratio = counter.get_total_flops() / (len(CAPTIONS) * each)
    on = "batch of 3, 25 guided steps, 64×64"
    yield Row("FLOPs that run ÷ FLOPs that are needed", on, f"{ratio:.3f}", "1.00", abs(ratio - 1) < 0.005)

    waits = [_waits(settings(*sets, f"reconstruct.steps={steps}").reconstruct) for steps in (10, 50)]
    more = waits[1] - waits[0]
    yield Row("values read back in 25 steps, beyond those in 5", on, str(more), "0", more == 0)

    graphs = _graphs(settings(*sets, "reconstruct.steps=8", "reconstruct.speed=rounding").reconstruct)
    ratio = graphs / len(SIZES)
    on = f"{len(SIZES)} sizes, batches of 3, 2 and 1, 4 steps"
    yield Row("compiled U-Nets ÷ image sizes", on, f"{ratio:.2f}", "1", ratio == 1)


def _reconstruct(model: Img2Img, height: int, width: int, count: int = 3) -> None:
    captions = CAPTIONS[:count]
    images = torch.zeros(count, 3, height, width)
    model.reconstruct(images, captions, [generator_for(0, caption) for caption in captions])


class Reads(TorchDispatchMode):
    """Counts values that are read from a tensor: on a GPU each waits for all work before it."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += "_local_scalar_dense" in str(func)
        return func(*args, **(kwargs or {}))


def _waits(config: Any) -> int:
    model = Img2Img(config, str(config.model), "cpu")
    with Reads() as reads:
        _reconstruct(model, *SIZES[0])
    return reads.count


def _graphs(config: Any) -> int:
    """Of the U-Net: they take two rows an image."""
    seen = list[int]()

    def backend(graph: Any, inputs: list[Any]) -> Any:
        seen.append(next(len(value) for value in inputs if isinstance(value, torch.Tensor) and value.dim() == 4))
        return graph.forward

    compiled.BACKEND = backend  # type: ignore[assignment]
    model = Img2Img(config, str(config.model), "cpu")
    for height, width in SIZES:
        for count in (3, 2, 1):
            _reconstruct(model, height, width, count)
    return seen.count(2 * len(CAPTIONS))
