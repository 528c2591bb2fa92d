"""The U-Net's attention alone, by each of torch's kernels, with its heads as wide as they are and padded with zeros.

So it says what the settings reconstruct.attention and reconstruct.pad_heads are worth on a device.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import pad, scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from sare_core.bench.table import Row
from sare_core.bench.timing import peak_memory, seconds
from sare_core.config.reconstruction import ReconstructSettings
from sare_core.plan import models
from sare_core.reconstruction import method_of
from sare_core.reconstruction.attention import KERNELS, PADDED
from sare_core.reconstruction.caching import split
from sare_core.reconstruction.merging import merging

Shape = tuple[int, int, int, int]  # heads, queries, keys, width of a head


def rows(
    settings: ReconstructSettings, size: tuple[int, int], batch: int, device: str, tell: Callable[[str], None]
) -> Iterator[Row]:
    """A row a kernel that the device has, for heads as they are and padded: all attention of a reconstruction.

    size: width, height. The method runs a U-Net.
    """
    evaluated = batch * method_of(settings).rows(settings, models.diffusion(settings).unet)
    calls = _calls(settings, size)
    products = sum(heads * queries * keys * width * times for (heads, queries, keys, width), times in calls.items())
    flops, dtype = evaluated * 4 * products, getattr(torch, settings.dtype)
    for padded in (False, True):
        for name, kernel in {"default": None, **KERNELS}.items():
            what = f"attention={name}{' pad_heads=true' * padded}"
            tell(f"{what}, batch {batch}")
            try:
                took = sum(
                    times * _seconds(shape, evaluated, dtype, kernel, padded, device) for shape, times in calls.items()
                )
            except RuntimeError as error:
                memory = isinstance(error, torch.OutOfMemoryError)
                tell(f"{what}: {'does not fit into memory' if memory else 'torch has none for this device and dtype'}")
                continue
            yield Row(
                what,
                settings.dtype,
                f"{size[0]}×{size[1]}",
                batch,
                batch / took,
                flops / took,
                "",
                peak_memory(device),
            )


def _calls(settings: ReconstructSettings, size: tuple[int, int]) -> Counter[Shape]:
    """How often a reconstruction attends with which shape: in the whole U-Net, and in its outermost layers alone."""
    model, found = models.diffusion(settings), Counter[Shape]()

    class Watch(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function is scaled_dot_product_attention:
                query, key = args[:2] if len(args) > 1 else (kwargs["query"], kwargs["key"])
                found[query.shape[1], query.shape[2], key.shape[2], query.shape[3]] += times  # of the loop below
            return function(*args, **(kwargs or {}))

    config = model.unet.config
    latents = torch.empty(1, config.in_channels, size[1] // model.multiple, size[0] // model.multiple, device="meta")
    texts = torch.empty(1, model.tokens, model.text_encoder.config.hidden_size, device="meta")
    unets = split(merging(model.unet.eval(), settings.token_merging))
    for unet, times in zip(unets, method_of(settings).passes(settings), strict=True):
        if times:
            with torch.no_grad(), torch.device("meta"), Watch():
                unet(latents, 1, encoder_hidden_states=texts)
    return found


def _seconds(
    shape: Shape, rows: int, dtype: torch.dtype, kernel: SDPBackend | None, padded: bool, device: str
) -> float:
    """Of one call. Zeros in the width of a head change no product, and the scale stays that of the true width."""
    heads, queries, keys, width = shape
    query, key, value = (
        torch.randn(rows, heads, tokens, width, device=device).to(dtype) for tokens in (queries, keys, keys)
    )
    if padded:
        query, key, value = (pad(each, (0, -width % PADDED)) for each in (query, key, value))

    def attend() -> torch.Tensor:
        return scaled_dot_product_attention(query, key, value, scale=width**-0.5)

    with torch.no_grad():
        if kernel is None:
            return seconds(attend, device)
        with sdpa_kernel(kernel):
            return seconds(attend, device)
