"""Trained on clean images, tested on changed ones: ACC and AUC of one detector in many views.

A change of both classes asks whether the detector is robust. A change of one class alone asks whether it reads the
change itself: what then moves the scores is no trace of generation (BIAS-ID, arXiv 2605.31153).
"""

from collections.abc import Collection, Mapping

import polars as pl

from sare_core.evaluation.intervals import Run, measure_runs
from sare_core.evaluation.metrics import MEAN, UNSEEN, WITHOUT_COPIES
from sare_core.images.grids import step_and_number

BOTH, FAKES, REALS = "both", "fakes", "reals"  # the classes whose images are changed
NAMES = ("acc", "auc")


def grid(
    base: pl.DataFrame, views: Mapping[str, pl.DataFrame], trained: Collection[str], near_copies: Collection[str]
) -> pl.DataFrame:
    """view, step, number, changed, subset, n, acc, acc_low, acc_high, auc, auc_low, auc_high.

    base: predictions of the images as the detector knows them. views: those of the same images in other views. Each is
    measured on the images that both have.
    """
    parts = []
    for view, changed in views.items():
        keys = ["image_id", "subset"]
        plain, other = base.join(changed, on=keys, how="semi"), changed.join(base, on=keys, how="semi")
        real, fake = pl.col("label") == 0, pl.col("label") == 1
        classes = {
            BOTH: other,
            FAKES: pl.concat([plain.filter(real), other.filter(fake)]),
            REALS: pl.concat([other.filter(real), plain.filter(fake)]),
        }
        step, number = step_and_number(view) or (None, None)
        for which, predictions in classes.items():
            measured = measure_runs([Run(predictions)], trained, near_copies, NAMES)
            ends = [f"{name}{end}" for name in NAMES for end in ("", "_low", "_high")]
            about = {"view": view, "step": step, "number": number, "changed": which}
            columns = [
                pl.lit(value, pl.Float64 if key == "number" else pl.String).alias(key) for key, value in about.items()
            ]
            parts.append(measured.select(*columns, "subset", "n", *ends))
            if changed is base:
                break  # nothing is changed
    return pl.concat(parts)


def headline(subsets: Collection[str]) -> str:
    """The mean that counts most: without what was trained on and its near-copies, where there is such."""
    return next(name for name in (WITHOUT_COPIES, UNSEEN, MEAN) if name in subsets)
