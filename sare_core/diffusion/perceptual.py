"""LPIPS of an image and its reconstruction: the distance of equation 7 (paper 4.4)."""

from collections.abc import Callable

import lpips
import numpy as np
import torch

from sare_core.errors import ConfigError


def load_lpips(net: str, device: str) -> Callable[[np.ndarray, np.ndarray], float]:
    """LPIPS with a pretrained backbone ("alex" or "vgg"): two (H, W, 3) uint8 images of one size to a distance >= 0.

    Raises ConfigError: the backbone's weights, which torchvision downloads, are not to be had.
    """
    try:
        model = lpips.LPIPS(net=net, verbose=False).to(device).eval().requires_grad_(False)
    except OSError as error:
        raise ConfigError(
            f"reconstruct.lpips={net}: the backbone's weights cannot be downloaded ({error}). "
            "Put them into torch's hub cache (TORCH_HOME/hub/checkpoints), or set reconstruct.lpips=null."
        ) from error

    @torch.no_grad()
    def distance(image: np.ndarray, reconstruction: np.ndarray) -> float:
        pair = torch.from_numpy(np.stack([image, reconstruction])).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
        return float(model(pair[:1], pair[1:]))

    return distance
