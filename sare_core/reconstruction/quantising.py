"""The setting reconstruct.speed=quantised: linear layers of the U-Net's transformers as products of 8-bit integers.

Weights have one scale a channel of the output; what comes in has one a row, a token of an image, found when it comes
("dynamic"), so that no image sees its batch. Yet rounding before a layer may tip a number into the next level, so that
batches of another size move x̂ by more than rounding does. Scales are applied in float32: in half precision a product
before its scales easily overflows.
Convolutions, attention itself and the embedding of the timestep stay as they are.
"""

from itertools import chain
from typing import Any

import torch
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn
from torch.nn.functional import pad

from sare_core.errors import ConfigError

LEVELS = 127
ROWS = 32  # cuBLAS multiplies no fewer than 17


def quantise(unet: Any) -> None:
    """In place: each linear layer of the U-Net's transformers whose widths are multiples of 8, as cuBLAS wants them.

    Raises ConfigError: there is none.
    """
    transformers = [layer for layer in unet.modules() if isinstance(layer, Transformer2DModel)]
    found = [
        (parent, name, layer)
        for parent in chain.from_iterable(transformer.modules() for transformer in transformers)
        for name, layer in parent.named_children()
        if isinstance(layer, nn.Linear | Quantised) and layer.in_features % 8 == layer.out_features % 8 == 0
    ]
    if not found:
        raise ConfigError(
            "reconstruct.speed=quantised: this model's U-Net has no transformers with linear layers whose widths are "
            "multiples of 8. Set reconstruct.speed=rounding."
        )
    for parent, name, layer in found:
        if isinstance(layer, nn.Linear):  # else it was quantised before
            setattr(parent, name, Quantised(layer))


class Quantised(nn.Module):
    """A linear layer in 8 bits. It takes and gives what the layer does, in the dtype of what comes in."""

    weight: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight, scale = _quantised(linear.weight.detach())
        self.register_buffer("weight", weight)
        # A model's `.to(dtype)` leaves integers alone, and would round these.
        self.register_buffer("scale", scale.T.contiguous())
        self.bias = linear.bias

    def forward(self, inputs: Tensor) -> Tensor:
        rows = inputs.flatten(0, -2)
        count = len(rows)
        levels, scale = _quantised(pad(rows, (0, 0, 0, max(ROWS - count, 0))))
        found = multiply(levels, self.weight.T)[:count] * scale[:count] * self.scale
        if self.bias is not None:
            found = found + self.bias
        return found.to(inputs.dtype).unflatten(0, inputs.shape[:-1])


def multiply(one: Tensor, other: Tensor) -> Tensor:
    """The matrix product of int8, in int32. By torch's own operation, which has no public name."""
    return torch._int_mm(one, other)


def _quantised(rows: Tensor) -> tuple[Tensor, Tensor]:
    """(N, width) int8 in ±LEVELS, and the scale of each row, (N, 1) float32."""
    rows = rows.float()
    scale = (rows.abs().amax(dim=1, keepdim=True) / LEVELS).clamp(min=torch.finfo(torch.float32).tiny)
    return (rows / scale).round().to(torch.int8), scale
