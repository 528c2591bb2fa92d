"""The setting reconstruct.speed, not exact: autoencoder and U-Net compiled by torch, a static graph an image size.

All of the U-Net is compiled: its ResNet blocks, where fusing pays most, are no repeated blocks in diffusers' sense.
"""

from typing import Any

import torch

from sare_core.models import compiled

SIZES = 256  # image sizes of a run; multiples of 8 up to 512 have 127, and torch's own limit is 8


def compile_parts(vae: Any, *unets: Any | None) -> None:
    """In place: each `unet(…)`, `vae.encode` and `vae.decode` are compiled when they are first called with a shape.

    A run with more than SIZES shapes ends with torch's error, and does not go on uncompiled.
    """
    torch._dynamo.config.recompile_limit = SIZES
    torch._dynamo.config.accumulated_recompile_limit = 4 * SIZES
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    vae.to(memory_format=torch.channels_last)
    vae.encode, vae.decode = (
        torch.compile(part, dynamic=False, backend=compiled.BACKEND) for part in (vae.encode, vae.decode)
    )
    for unet in filter(None, unets):
        unet.to(memory_format=torch.channels_last)
        unet.compile(dynamic=False, fullgraph=True, backend=compiled.BACKEND)
