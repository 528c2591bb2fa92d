"""What latent consistency models need beside Stable Diffusion's parts (Luo et al. 2023, arXiv 2310.04378)."""

import torch
from diffusers.models.embeddings import get_timestep_embedding


def told_guidance(guidance_scale: float, width: int) -> torch.Tensor:
    """How a U-Net with `time_cond_proj_dim=width` is told w of equation 2: (1, width) float32, as diffusers embeds it.

    The embedding is of w − 1: latent consistency models count guidance from 0, where the plain conditional model is 1.
    """
    return get_timestep_embedding(torch.tensor([1000 * (guidance_scale - 1)]), width, downscale_freq_shift=1)
