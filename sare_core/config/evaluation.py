"""Settings of evaluation: `evaluate.*`."""

from typing import ClassVar

from pydantic import Field

from sare_core.config.section import Dtype, Section

# Latent diffusions of Stable Diffusion's kind, in GenImage's names: of a detector that was trained on one of them the
# others are hardly unseen.
NEAR_COPIES = ("sdv1.4", "sdv1.5", "wukong")


class EvaluateSettings(Section):
    """Paper 4.1: ACC at 0.5 and AUC. The dtype is explicit since it moves logits by rounding."""

    runtime: ClassVar[frozenset[str]] = frozenset({"batch_size", "near_copies"})

    dtype: Dtype
    batch_size: int = Field(ge=1)
    near_copies: tuple[str, ...] = NEAR_COPIES  # generators that are near-copies of one another: one mean is without
