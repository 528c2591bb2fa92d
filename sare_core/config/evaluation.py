"""Settings of evaluation: `evaluate.*`."""

from typing import ClassVar

from pydantic import Field

from sare_core.config.section import Dtype, Section


class EvaluateSettings(Section):
    """Paper 4.1: ACC at 0.5 and AUC. The dtype is explicit since it moves logits by rounding."""

    runtime: ClassVar[frozenset[str]] = frozenset({"batch_size"})

    dtype: Dtype
    batch_size: int = Field(ge=1)
