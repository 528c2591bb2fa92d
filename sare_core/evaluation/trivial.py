"""The trivial detector: it sees a file's format, size, aspect and bytes, and no pixel.

Many benchmarks keep their reals as JPEG of every size and their fakes as PNG of one size. Where this detector does
well, a high number of any other detector there says nothing about generation (Grommelt et al., arXiv 2403.17608).
"""

from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from sare_core.evaluation.metrics import PREDICTION_SCHEMA, is_mean

if TYPE_CHECKING:
    import numpy as np

SUSPICIOUS = 0.6  # ACC or AUC; chance is 0.5


class Trivial(NamedTuple):
    """Predictions in PREDICTION_SCHEMA; or None, and the reason why there can be none."""

    predictions: pl.DataFrame | None
    reason: str | None


def trivial_predictions(train_index: pl.DataFrame, test_index: pl.DataFrame) -> Trivial:
    """Fit on the index rows of the training images, predict for those of the test images, in their order.

    Both have the columns image_id, subset, label, format, width, height, bytes and error; rows with an error, and
    unlabelled training rows, are passed over. The same rows give the same numbers.
    """
    train = train_index.filter(pl.col("error").is_null(), pl.col("label").is_not_null())
    test = test_index.filter(pl.col("error").is_null())
    if train["label"].n_unique() < 2:
        found = "images of one class only" if len(train) else "no labelled images"
        return Trivial(None, f"no trivial detector: the training split holds {found}, it takes real and fake ones")

    from sklearn.ensemble import HistGradientBoostingClassifier

    formats = sorted(train["format"].unique())
    model = HistGradientBoostingClassifier(
        categorical_features=[0],
        min_samples_leaf=max(1, min(20, len(train) // 20)),  # the default, 20, is too coarse for a small set
        early_stopping=False,
        random_state=0,
    )
    model.fit(_features(train, formats), train["label"].to_numpy())
    logits = model.decision_function(_features(test, formats)) if len(test) else []
    predictions = test.select("image_id", "subset", "label", logit=pl.Series(logits, dtype=pl.Float64))
    predictions = predictions.with_columns(score=1 / (1 + (-pl.col("logit")).exp()))
    return Trivial(predictions.cast(PREDICTION_SCHEMA), None)


def trivial_warnings(metrics: pl.DataFrame) -> list[str]:
    """One line for each subset where the trivial detector's metrics (`subset_metrics`) beat 60 % ACC or AUC.

    Subsets of one class are passed over; so is an ACC that always naming the larger class would reach.
    """
    warnings = []
    for row in metrics.filter(~is_mean(), pl.col("auc").is_not_null()).iter_rows(named=True):
        reached = []
        if row["acc"] > max(SUSPICIOUS, max(row["n_real"], row["n_fake"]) / row["n"]):
            reached.append(f"{row['acc']:.1%} ACC")
        if row["auc"] > SUSPICIOUS:
            reached.append(f"{row['auc']:.1%} AUC")
        if reached:
            warnings.append(
                f"the trivial detector (format, size, bytes) reaches {' and '.join(reached).replace('%', ' %')} "
                f"on {row['subset']}: the files give the class away, a detector's number here is not about generation"
            )
    return warnings


def _features(index: pl.DataFrame, formats: list[str]) -> "np.ndarray":
    """[n, 5] float64: format as its place among the training formats (NaN: not among them), width, height, ..."""
    width, height = pl.col("width").cast(pl.Float64), pl.col("height").cast(pl.Float64)
    place = pl.col("format").replace_strict(formats, range(len(formats)), default=None, return_dtype=pl.Float64)
    return index.select(place, width, height, aspect=width / height, bytes=pl.col("bytes").log()).to_numpy()
