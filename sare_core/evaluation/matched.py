"""Which images may be compared without their files giving the class away: those of one format and about one size.

Benchmarks often keep reals as JPEG of many sizes and fakes as PNG of one (see trivial.py). `matched_auc` takes only
pairs of a real and a fake of one stratum. Where no real and fake share one, only a view that brings all files to one
form helps: `sare evaluate --views jpeg:96,square`.
"""

import numpy as np
import polars as pl

STEP = 1.2  # sizes within one step of a scale with this factor are about the same; GenImage's are 128, 256, 512, 1024


def with_strata(predictions: pl.DataFrame, index: pl.DataFrame) -> pl.DataFrame:
    """The predictions with the column `stratum`: equal for files of one format and about one width and height.

    index: rows with image_id, subset, format, width, height, among them those of all predictions.
    """
    steps = [(pl.col(side).log() / np.log(STEP)).round().cast(pl.Int64) for side in ("width", "height")]
    rows = index.select("image_id", "subset", kind=pl.format("{} {}x{}", "format", *steps))
    found = predictions.join(rows, on=["image_id", "subset"], how="left", maintain_order="left")
    stratum = pl.col("kind").fill_null("").rank("dense").cast(pl.Int64) - 1
    return found.with_columns(stratum=stratum).drop("kind")


def matching_note(metrics: pl.DataFrame) -> str | None:
    """What to say of how many pairs are matched; None where all are, or nothing is compared at all.

    metrics: of `subset_metrics`, of predictions with strata.
    """
    shares = metrics.filter(pl.col("acc_over").is_null())["matched_pairs"].drop_nulls().to_list()
    if not shares or min(shares) == 1:
        return None
    if max(shares) == 0:
        return (
            "No real and no fake image share a file format and size, so AUC matched is empty: look also at the views "
            "that bring them to one form, as sare evaluate --views jpeg:96,square."
        )
    least, most = (f"{100 * share:.0f}" for share in (min(shares), max(shares)))
    return f"AUC matched takes pairs of one file format and about one size: {least} to {most} % of a generator's."
