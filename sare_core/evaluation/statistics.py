"""What an image's pixels say without its content, and logistic regression on that or on an encoder's features."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

from sare_core.errors import StageError

FOLDS = 5
BINS = 16  # of gradients, and of spatial frequencies
LEVELS = 64  # bins of the level histogram
PER_CELL = 2000  # images of a subset, split and class at most, the first by image_id: a hash, so a random draw
Loader = Callable[[dict[str, Any]], Image.Image]  # a row of the index to its RGB image


def pixel_statistics(image: Image.Image) -> np.ndarray:
    """What an image's pixels say without its content, (BINS * 2 + LEVELS + 8,) float64; of any size.

    Shares of exact 0 and 255 and the extremes, mean and standard deviation, the histogram of levels, that of the
    gradient's size, and the log power over spatial frequency, up to that of a checkerboard; of the grey image.
    """
    grey = np.asarray(image.convert("L"), dtype=np.float64)
    levels = np.histogram(grey, bins=LEVELS, range=(0, 256))[0] / grey.size
    right, down = np.abs(np.diff(grey, axis=1)), np.abs(np.diff(grey, axis=0))
    steps = np.concatenate([right.ravel(), down.ravel()])
    edges = np.concatenate([[0], np.geomspace(1, 256, BINS)])
    gradient = np.histogram(steps, bins=edges)[0] / steps.size
    extremes = [(grey == 0).mean(), (grey == 255).mean(), grey.min(), grey.max(), grey.mean(), grey.std()]
    return np.concatenate([extremes, [right.mean(), down.mean()], levels, gradient, _spectrum(grey)])


def _spectrum(grey: np.ndarray) -> np.ndarray:
    """Log mean power in BINS rings of spatial frequency; a ring that a small image has no frequency in is 0."""
    power = np.abs(np.fft.fft2(grey - grey.mean())) ** 2 / grey.size
    frequency = np.hypot(np.fft.fftfreq(grey.shape[0])[:, None], np.fft.fftfreq(grey.shape[1])[None])
    ring = np.minimum((frequency / 0.5**0.5 * BINS).astype(int), BINS - 1).ravel()  # cycles a pixel, up to the corner
    total, count = (np.bincount(ring, weights, BINS) for weights in (power.ravel(), None))
    return np.log1p(total / np.maximum(count, 1))


def held_out_scores(features: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
    """Each image's logit by logistic regression on the other folds, (n,). Raises StageError: too few of a class."""
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    if min((labels == 0).sum(), (labels == 1).sum()) < FOLDS:
        raise StageError(f"fewer than {FOLDS} real or fake test images in a subset: nothing can be cross-validated.")
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    return cross_val_predict(regression(), features, labels, cv=folds, method="decision_function")


def regression() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))


def chosen_rows(index_frame: pl.DataFrame, splits: list[str]) -> pl.DataFrame:
    """The readable, labelled rows of some splits, at most PER_CELL a subset, split and label, by image_id."""
    usable = pl.col("error").is_null(), pl.col("label").is_not_null(), pl.col("split").is_in(splits)
    rows = index_frame.filter(*usable).sort("image_id")
    return rows.group_by("subset", "split", "label", maintain_order=True).head(PER_CELL).sort("image_id")


def pixel_scores(test: pl.DataFrame, load: Loader, seed: int, advance: Callable[[int], None]) -> pl.DataFrame:
    """Columns image_id, subset, label, logit: of the pixel statistics, cross-validated within each subset."""
    parts = []
    for _, rows in test.group_by("subset", maintain_order=True):
        features = _statistics(rows, load, advance)
        logits = held_out_scores(features, rows["label"].to_numpy(), seed)
        parts.append(rows.select("image_id", "subset", "label", logit=pl.Series(logits, dtype=pl.Float64)))
    return pl.concat(parts)


def carried_over(
    rows: pl.DataFrame,
    load: Loader,
    trained_on: Sequence[str] | None,
    advance: Callable[[int], None] = lambda count: None,
) -> pl.DataFrame:
    """Columns image_id, subset, label, logit of the test images: of the pixel statistics, fitted to the training images
    of `trained_on` (none named: of all subsets) and carried over to every subset.

    rows: of the index, train and test, see `chosen_rows`. Raises StageError: the training images are of one class.
    """
    own = pl.lit(True) if trained_on is None else pl.col("subset").is_in(trained_on)
    train, test = rows.filter(pl.col("split") == "train", own), rows.filter(pl.col("split") == "test")
    if train["label"].n_unique() < 2:
        raise StageError("the training split holds images of one class only: pixel statistics cannot be fitted to it.")
    known, tried = (_statistics(part, load, advance) for part in (train, test))
    logits = regression().fit(known, train["label"].to_numpy()).decision_function(tried)
    return test.select("image_id", "subset", "label", logit=pl.Series(logits, dtype=pl.Float64))


def _statistics(rows: pl.DataFrame, load: Loader, advance: Callable[[int], None]) -> np.ndarray:
    found = []
    for row in rows.iter_rows(named=True):
        found.append(pixel_statistics(load(row)))
        advance(1)
    return np.stack(found)
