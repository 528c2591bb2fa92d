"""The embedded miniature: every model of the pipeline, small, and a small GenImage to go with it.

The models are the real classes in the real file layouts, a few thousand times smaller, so that each stage runs on two
CPU cores through the same `from_pretrained` as at full size. Their weights are random: captions are words without
meaning, drawn images are coloured noise. What comes out shows the pipeline, not the science.
"""

from sare_core.miniature.images import build_images
from sare_core.miniature.models import build_models

__all__ = ["build_images", "build_models"]
