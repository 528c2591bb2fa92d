"""The setting reconstruct.cache_interval: the U-Net's deep features taken again (DeepCache, Ma et al., CVPR 2024).

What the layers but the outermost give changes little from one step to the next. So only every so many steps run all of
the U-Net; those between run its first convolution and its last layer, on what came to that layer at the last full step.
"""

from copy import copy
from typing import Any

import torch
from torch import nn


class Kept(nn.Module):
    """A layer whose result is kept."""

    features: torch.Tensor

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, *inputs: Any, **named: Any) -> Any:
        found = self.layer(*inputs, **named)
        self.features = found[0] if isinstance(found, tuple) else found
        return found


class Taken(nn.Module):
    """What was kept, whatever comes in."""

    def __init__(self, kept: Kept) -> None:
        super().__init__()
        self._kept = [kept]  # in a list: its weights are no part of this one

    def forward(self, *_: Any) -> torch.Tensor:
        return self._kept[0].features


def split(unet: Any) -> tuple[Any, Any]:
    """A `UNet2DConditionModel` twice, on its own weights: as a whole, and its outermost layers alone.

    Both are called as the U-Net is. The second takes the deep features of the first's last call, of the same rows. The
    U-Net itself is not changed.
    """
    last = unet.up_blocks[-1]
    layers = "attentions" if getattr(last, "has_cross_attention", False) else "resnets"
    *before, deep, outermost = getattr(last, layers)
    kept = Kept(deep)
    keeping = _with(last, **{layers: nn.ModuleList([*before, kept, outermost])})
    whole = _with(unet, up_blocks=nn.ModuleList([*unet.up_blocks[:-1], keeping]))
    alone = _with(last, **{name: getattr(last, name)[-1:] for name in {layers, "resnets"}})
    outer = _with(unet, down_blocks=nn.ModuleList(), mid_block=Taken(kept), up_blocks=nn.ModuleList([alone]))
    return whole, outer


def _with(module: Any, **parts: nn.Module) -> Any:
    """The module with some of its parts replaced; the others, and their weights, are the same objects."""
    other = copy(module)
    other._modules = module._modules | parts
    return other
