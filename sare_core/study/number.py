"""One number beside the image: the detector of the image alone, and what the caption did to the error.

The map's pixels may say less of unseen generators than their sum does. So the logit of the variant `zero` and the
captioned less the uncaptioned error of an image are weighed by a logistic regression of two weights.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl

from sare_core.evaluation.metrics import PREDICTION_SCHEMA
from sare_core.evaluation.statistics import held_out_scores, regression

NUMBER, NUMBER_DRAWS, BASE = "number", "number, mean of draws", "zero"


def with_number(
    base: pl.DataFrame, change: pl.DataFrame, trained_on: Sequence[str] | None, seed: int, name: str = NUMBER
) -> pl.DataFrame:
    """Predictions as of one more variant, `name`; images without a change are left out.

    base: PREDICTION_SCHEMA of the variant BASE with variant and seed. change: image_id and `change`. The weights are
    fitted to the test images of `trained_on` (None: all), for each training seed; those images themselves are scored
    by weights from the other folds of them. Raises StageError: there are too few for that.
    """
    parts = []
    images = base.join(change, on="image_id").drop_nulls("label").sort("image_id", "subset")  # for the folds
    for _, frame in images.group_by("seed", maintain_order=True):
        features, labels = frame.select("logit", "change").to_numpy(), frame["label"].to_numpy()
        known = frame["subset"].is_in(trained_on).to_numpy() if trained_on else np.ones(len(frame), dtype=bool)
        logits = regression().fit(features[known], labels[known]).decision_function(features)
        logits[known] = held_out_scores(features[known], labels[known], seed)
        parts.append(frame.with_columns(logit=pl.Series(logits), variant=pl.lit(name)))
    scored = pl.concat(parts).with_columns(score=1 / (1 + (-pl.col("logit")).exp()))
    return scored.drop("change").cast(
        {name: kind for name, kind in PREDICTION_SCHEMA.items() if name in scored.columns}
    )
