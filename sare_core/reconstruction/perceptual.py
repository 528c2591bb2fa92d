"""LPIPS of an image and its reconstruction: the distance of equation 7 (paper 4.4)."""

import warnings
from collections.abc import Callable
from typing import Any

import lpips
import numpy as np
import torch

from sare_core.errors import ConfigError


def load_lpips(net: str, device: str) -> Callable[[np.ndarray, np.ndarray], float]:
    """LPIPS as a function of two (H, W, 3) uint8 images of one size: a distance >= 0. Raises ConfigError: see below."""
    model = lpips_network(net).to(device)

    @torch.no_grad()
    def distance(image: np.ndarray, reconstruction: np.ndarray) -> float:
        pair = torch.from_numpy(np.stack([image, reconstruction])).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
        return float(model(pair[:1], pair[1:]))

    return distance


def lpips_network(net: str, setting: str = "reconstruct.lpips") -> Any:
    """LPIPS of torch, frozen, on the CPU. On the meta device it is a skeleton.

    "alex" and "vgg" have pretrained backbones. "alex-random" needs no download: an AlexNet of random weights, always
    the same ones, its layers added up without weighting. It orders distances roughly as LPIPS does and is not LPIPS.

    Raises ConfigError: the backbone's weights, which torchvision downloads, are unavailable.
    """
    random, meta = net == "alex-random", torch.empty(0).is_meta
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="torchvision.models")  # lpips asks it for models in an old way
            torch.manual_seed(0)
            model = lpips.LPIPS(
                net=net.removesuffix("-random"),
                lpips=not random,
                pretrained=not meta,
                pnet_rand=random or meta,
                verbose=False,
            )
    except OSError as error:
        raise ConfigError(
            f"{setting}={net}: the backbone's weights cannot be downloaded ({error}). "
            f"Put them into torch's hub cache (TORCH_HOME/hub/checkpoints), or choose another {setting}."
        ) from error
    model = model.to("meta") if meta else model  # its constants are elsewhere
    return model.eval().requires_grad_(False)
