"""Stand-ins that the tests run on: every model of the pipeline, small, and a small GenImage to go with it.

The models are the real classes in the real file layouts, a few thousand times smaller, so that each stage runs on one
CPU core through the same `from_pretrained` as at full size. Their weights are random: captions are words without
meaning, drawn images are coloured noise. standin.yaml holds settings of their size.
"""

from tests.standins.images import build_images
from tests.standins.models import build_models

__all__ = ["build_images", "build_models"]
