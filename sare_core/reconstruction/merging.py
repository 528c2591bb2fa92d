"""The setting reconstruct.token_merging: fewer tokens in self-attention (ToMe for Stable Diffusion, Bolya and Hoffman
2023, arXiv 2303.17604).

Neighbouring tokens of an image are often alike. One of each window of 2×2 tokens is a destination; of the others those
most like a destination, anywhere in the image, are averaged with it. Attention runs on what is left, and its result is
copied back to each token that went into it. The paper draws the destinations anew each time; here each is the first of
its window, so that nothing is left to chance.
"""

from copy import deepcopy
from itertools import chain
from math import ceil
from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn

from sare_core.errors import ConfigError


def merging(unet: Any, share: float) -> Any:
    """A `UNet2DConditionModel` on its own weights, whose self-attention at the highest resolution that has one merges
    this share of the tokens, in [0, 0.75]. The U-Net itself is not changed; at 0 it is what comes back.

    Raises ConfigError: it has no self-attention.
    """
    if share == 0:
        return unet
    weights = chain(unet.parameters(), unet.buffers())
    unet = deepcopy(unet, {id(weight): weight for weight in weights})
    for down, up in zip(unet.down_blocks, reversed(unet.up_blocks), strict=True):
        layers = [*getattr(down, "attentions", ()), *getattr(up, "attentions", ())]
        if found := [layer for layer in layers if isinstance(layer, Transformer2DModel)]:
            for layer in found:
                _merge_in(layer, share)
            return unet
    raise ConfigError(f"reconstruct.token_merging={share}: this model's U-Net has no self-attention. Set it to 0.")


def _merge_in(layer: Any, share: float) -> None:
    processor = Merging(share)

    def note(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        height, width = inputs[0].shape[2:]
        processor.size = (height, width)  # attention sees tokens in a row

    layer.register_forward_pre_hook(note)
    for block in layer.transformer_blocks:
        if not block.only_cross_attention:
            block.attn1.set_processor(processor)


class Merging(AttnProcessor2_0):
    """diffusers' own attention, on merged tokens. size: height and width of what comes in, in tokens."""

    size: tuple[int, int]

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def __call__(self, attn: Any, hidden_states: Tensor, *args: Any, **named: Any) -> Tensor:
        places, count = merged_places(hidden_states, *self.size, self.share)
        attended = super().__call__(attn, merge(hidden_states, places, count), *args, **named)
        return unmerge(attended, places)


def merged_places(tokens: Tensor, height: int, width: int, share: float) -> tuple[Tensor, int]:
    """Where each token goes when `share` of them is merged: (N, height · width) places, and how many places there are.

    tokens: (N, height · width, channels), row by row. Of an odd side the last windows are cut. Every row of the batch
    is merged by itself. Likeness is the cosine; of those as alike the first are merged.
    """
    total = height * width
    kept = ceil(height / 2) * ceil(width / 2)  # destinations, whatever the share
    merged = min(int(share * total), total - kept)
    number = torch.arange(total, device=tokens.device)
    source = (number // width % 2 > 0) | (number % width % 2 > 0)
    order = source.long().argsort(stable=True)  # the destinations, then the others
    unit = nn.functional.normalize(tokens, dim=-1)[:, order]
    likeness, nearest = (unit[:, kept:] @ unit[:, :kept].transpose(1, 2)).max(dim=-1)
    rank = likeness.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)  # 0: the most alike
    places = torch.where(rank < merged, nearest, kept + rank - merged)
    places = torch.cat([number[:kept].expand(len(tokens), -1), places], dim=1)
    return places[:, order.argsort()], total - merged


def merge(tokens: Tensor, places: Tensor, count: int) -> Tensor:
    """The mean of the tokens at each place, (N, count, channels)."""
    where = places.unsqueeze(-1).expand_as(tokens)
    # In float32, so that the order in which a GPU adds does not show.
    means = tokens.new_zeros(len(tokens), count, tokens.shape[-1], dtype=torch.float32)
    return means.scatter_reduce(1, where, tokens.float(), "mean", include_self=False).to(tokens.dtype)


def unmerge(tokens: Tensor, places: Tensor) -> Tensor:
    """What is at each token's place, (N, tokens, channels)."""
    return tokens.gather(1, places.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
