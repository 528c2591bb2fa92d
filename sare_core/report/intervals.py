"""95 % bootstrap intervals: images are drawn anew with replacement, real and fake of each subset apart.

Seeded by the names of subset and class, so the same images give the same interval, and images that several subsets
share are drawn alike for all of them. What varies is the choice of images; a training run's seed does not.
"""

import hashlib
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

if TYPE_CHECKING:
    import numpy as np

TIMES = 1000


class Interval(NamedTuple):
    low: float
    high: float


def interval(draws: "np.ndarray") -> Interval:
    """The middle 95 % of a bootstrap's values."""
    import numpy as np

    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(float(low), float(high))


def resamples(images: pl.DataFrame) -> "np.ndarray":
    """(TIMES, n) float32: how often each image was drawn, each subset's reals and fakes among themselves.

    images: columns subset and label, in [0, 1]. The order of the rows within a subset and label matters.
    """
    import numpy as np

    counts = np.zeros((TIMES, len(images)), np.float32)
    for (subset, label), group in images.with_row_index("row").group_by("subset", "label", maintain_order=True):
        n, rows = len(group), group["row"].to_numpy()
        digest = hashlib.sha256(f"{subset}:{label}".encode()).digest()
        drawn = np.random.default_rng(int.from_bytes(digest[:8])).integers(0, n, (TIMES, n))
        drawn += n * np.arange(TIMES)[:, None]
        counts[:, rows] = np.bincount(drawn.ravel(), minlength=TIMES * n).reshape(TIMES, n)
    return counts


def mean_draws(values: "np.ndarray", counts: "np.ndarray") -> "np.ndarray":
    """(TIMES,): the mean of `values` (n,) in each resample."""
    return counts @ values / counts.sum(axis=1)


def auc_draws(logits: "np.ndarray", labels: "np.ndarray", counts: "np.ndarray") -> "np.ndarray":
    """(TIMES,): the AUC in each resample, ties counting half: how often a fake stands above a real."""
    import numpy as np

    real, fake = labels == 0, labels == 1
    order = np.argsort(logits[real], kind="stable")
    below = np.concatenate(
        [np.zeros((len(counts), 1), np.float32), counts[:, real][:, order].cumsum(axis=1, dtype=np.float32)], axis=1
    )
    places = [np.searchsorted(logits[real][order], logits[fake], side) for side in ("left", "right")]
    beaten = (below[:, places[0]] + below[:, places[1]]) / 2
    return (counts[:, fake] * beaten).sum(axis=1) / (counts[:, fake].sum(axis=1) * below[:, -1])
