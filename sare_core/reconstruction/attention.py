"""The settings reconstruct.attention and reconstruct.pad_heads: how the U-Net's attention is computed.

torch chooses a kernel by rule, and kernels may be built for heads of 64, 128 and 256, where Stable Diffusion v1 has
heads of 40, 80 and 160. What pays on a device, `sare bench --only attention` measures; it is never chosen by timing
within a run, so that the same command gives the same bytes. Results differ by rounding.
"""

from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import pad, scaled_dot_product_attention

from sare_core.errors import ConfigError

KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
PADDED = 64  # heads are padded to a multiple of it


def attend_by(name: str, *unets: Any | None) -> None:
    """In place: all attention of these U-Nets by this kernel. Raises ConfigError: torch cannot run it there."""
    kernel = KERNELS[name]
    for unet in filter(None, unets):
        for width in {_width(layer) for layer in _attention(unet)}:
            _require(name, width, unet.device, unet.dtype)
        unet.forward = _under(kernel, unet.forward)


def pad_heads(unet: Any) -> None:
    """In place: heads as wide as the next multiple of PADDED, by zeros in the weights, which change no product.

    Raises ConfigError: attention has keys besides, which some models add for images or texts of their own.
    """
    layers = _attention(unet)
    if any(layer.add_k_proj is not None for layer in layers):
        raise ConfigError(
            "reconstruct.pad_heads=true: this model's U-Net has attention with added keys (add_k_proj), which are not "
            "padded. Set reconstruct.pad_heads=false."
        )
    for layer in layers:
        width, heads = _width(layer), layer.heads
        if more := -width % PADDED:
            # Attention divides by the root of the width that it sees.
            scale = ((width + more) / width) ** 0.5
            for name, factor in (("to_q", scale), ("to_k", 1.0), ("to_v", 1.0)):
                _widen(getattr(layer, name), heads, more, factor)
            out = layer.to_out[0]
            out.weight.data = _padded(out.weight.data.T, heads, more).T.contiguous()
            out.in_features = out.weight.shape[1]


def _attention(unet: Any) -> list[Any]:
    return [layer for layer in unet.modules() if isinstance(layer, Attention)]


def _width(layer: Any) -> int:
    return int(layer.to_q.out_features // layer.heads)


def _widen(linear: nn.Linear, heads: int, more: int, factor: float) -> None:
    linear.weight.data = _padded(linear.weight.data, heads, more) * factor
    if linear.bias is not None:
        linear.bias.data = _padded(linear.bias.data, heads, more) * factor
    linear.out_features = linear.weight.shape[0]


def _padded(weight: Tensor, heads: int, more: int) -> Tensor:
    """The rows of each head, (heads · width, …), with `more` of zeros after them."""
    each = weight.unflatten(0, (heads, -1))
    return pad(each, (0, 0) * (each.dim() - 2) + (0, more)).flatten(0, 1)


def _under(kernel: SDPBackend, forward: Any) -> Any:
    def by_kernel(*inputs: Any, **named: Any) -> Any:
        with sdpa_kernel(kernel):
            return forward(*inputs, **named)

    return by_kernel


def _require(name: str, width: int, device: torch.device, dtype: torch.dtype) -> None:
    query = torch.zeros(1, 1, 8, width, device=device, dtype=dtype)
    try:
        with sdpa_kernel(KERNELS[name]):
            scaled_dot_product_attention(query, query, query)
    except RuntimeError as error:
        raise ConfigError(
            f"reconstruct.attention={name}: torch has no such kernel for {device.type}, {str(dtype)[6:]} and heads of "
            f"{width}. `sare bench --only attention` shows those that there are; or set reconstruct.attention=default."
        ) from error
