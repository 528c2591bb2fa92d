"""LPIPS of an image and its reconstruction: the distance of equation 7 (paper 4.4)."""

from collections.abc import Callable

import lpips
import numpy as np
import torch

from sare_core.errors import ConfigError


def load_lpips(net: str, device: str) -> Callable[[np.ndarray, np.ndarray], float]:
    """LPIPS as a function of two (H, W, 3) uint8 images of one size: a distance >= 0.

    "alex" and "vgg" have pretrained backbones. "alex-random" needs no download: an AlexNet of random weights, always
    the same ones, its layers added up without weighting. It orders distances roughly as LPIPS does and is not LPIPS.

    Raises ConfigError: the backbone's weights, which torchvision downloads, are unavailable.
    """
    try:
        if net == "alex-random":
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                model = lpips.LPIPS(net="alex", pnet_rand=True, lpips=False, verbose=False)
        else:
            model = lpips.LPIPS(net=net, verbose=False)
    except OSError as error:
        raise ConfigError(
            f"reconstruct.lpips={net}: the backbone's weights cannot be downloaded ({error}). "
            "Put them into torch's hub cache (TORCH_HOME/hub/checkpoints), or set reconstruct.lpips=null."
        ) from error
    model = model.to(device).eval().requires_grad_(False)

    @torch.no_grad()
    def distance(image: np.ndarray, reconstruction: np.ndarray) -> float:
        pair = torch.from_numpy(np.stack([image, reconstruction])).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
        return float(model(pair[:1], pair[1:]))

    return distance
