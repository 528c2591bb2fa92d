"""Diffusion on a cosine schedule with v-prediction (Salimans & Ho 2022, arXiv:2202.00512), sampled by DDIM.

At time t in [0, 1] an image is cos(πt/2) x + sin(πt/2) ε; networks predict v = cos(πt/2) ε − sin(πt/2) x.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from diffusers import UNet2DModel
from torch import Tensor, nn
from torch.nn import functional as F

from sare_core.miniature.generators.drawing import TEXT, guided

Network = Callable[[Tensor, Tensor, Tensor], Tensor]


class TextUNet(nn.Module):
    """A U-Net for images (n, c, size, size), told time (n,) in [0, 1] and caption (n, TEXT).

    attention: in its lowest block, or nowhere.
    """

    def __init__(
        self, size: int, channels: tuple[int, ...], in_channels: int, out_channels: int, attention: bool
    ) -> None:
        super().__init__()
        self.text = nn.Linear(TEXT, 4 * channels[0], bias=False)
        self.unet = _unet(size, channels, in_channels, out_channels, attention).to(memory_format=torch.channels_last)

    def forward(self, images: Tensor, times: Tensor, texts: Tensor) -> Tensor:
        return self.unet(images, 1000 * times, self.text(texts)).sample


def _unet(size: int, channels: tuple[int, ...], in_channels: int, out_channels: int, attention: bool) -> Any:
    plain = len(channels) - 1
    return UNet2DModel(
        sample_size=size,
        in_channels=in_channels,
        out_channels=out_channels,
        down_block_types=("DownBlock2D",) * plain + ("AttnDownBlock2D" if attention else "DownBlock2D",),
        up_block_types=("AttnUpBlock2D" if attention else "UpBlock2D",) + ("UpBlock2D",) * plain,
        block_out_channels=channels,
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=16,
        class_embed_type="identity",
        add_attention=attention,
    )


def denoising_loss(predict: Callable[[Tensor, Tensor], Tensor], clean: Tensor) -> Tensor:
    """Mean squared error of v; times are spread evenly over the batch. predict: (noised, times (n,)) to v."""
    times = (torch.arange(len(clean)) + torch.rand(len(clean))) / len(clean)
    alpha, sigma = _schedule(times.view(-1, 1, 1, 1))
    noise = torch.randn_like(clean)
    return F.mse_loss(predict(alpha * clean + sigma * noise, times), alpha * noise - sigma * clean)


def ddim(network: Network, noise: Tensor, texts: Tensor, guidance: float, steps: int) -> Tensor:
    """From pure noise to an image in `steps` deterministic steps (Song et al. 2021, arXiv:2010.02502), guided.

    network: (noised, times (n,), captions (n, TEXT)) to v.
    """
    image = noise
    times = torch.linspace(1, 0, steps + 1)
    for now, then in pairwise(times):
        alpha, sigma = _schedule(now)

        def predict(said: Tensor) -> Tensor:
            return network(image.repeat(len(said) // len(image), 1, 1, 1), now.expand(len(said)), said)  # noqa: B023

        v = guided(predict, texts, guidance)
        clean, eps = alpha * image - sigma * v, sigma * image + alpha * v
        alpha, sigma = _schedule(then)
        image = alpha * clean + sigma * eps
    return image


def _schedule(times: Tensor) -> tuple[Tensor, Tensor]:
    angle = times * math.pi / 2
    return angle.cos(), angle.sin()
