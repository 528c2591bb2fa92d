"""Paired bootstrap over images (and training seeds), on whole arrays at once.

Images are drawn again within their subset and class. One draw serves every variant and seed, so that differences are
paired. Row 0 of everything that is resampled is the sample itself: the estimate; the others are its replicates.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sare_core.evaluation.metrics import CLASS_ONLY, NEAR_COPIES

RESAMPLES = 1000
WITHOUT_COPIES = "mean of unseen, no near-copies"
READERS = "of these, those that read text"


class Estimate(NamedTuple):
    """A number and its 95 % percentile interval."""

    value: float
    low: float
    high: float


def draw_images(labels: np.ndarray, random: np.random.Generator, resamples: int = RESAMPLES) -> np.ndarray:
    """How often each image is drawn, (1 + resamples, n) int32; as many real and as many fake as there are.

    labels: (n,), 0 real, 1 fake, of one subset.
    """
    counts = np.ones((1 + resamples, len(labels)), dtype=np.int32)
    for label in (0, 1):
        members = np.flatnonzero(labels == label)
        if len(members):
            counts[1:, members] = random.multinomial(len(members), np.full(len(members), 1 / len(members)), resamples)
    return counts


def draw_seeds(seeds: int, random: np.random.Generator, resamples: int = RESAMPLES) -> np.ndarray:
    """The weight of each training seed, (1 + resamples, seeds); rows sum to 1."""
    drawn = random.multinomial(seeds, np.full(seeds, 1 / seeds), resamples)
    return np.concatenate([np.full((1, seeds), 1.0), drawn]) / seeds


def auc(scores: np.ndarray, labels: np.ndarray, counts: np.ndarray, strata: np.ndarray | None = None) -> np.ndarray:
    """AUC of each row of counts, (R,): the chance that a fake outscores a real, ties counted half.

    scores, labels: (n,), of both classes; a fake should score higher. counts: (R, n) from `draw_images`. strata: (n,),
    so that only a real and a fake of one stratum are compared, and none of a negative one; NaN where a row has no such
    pair.
    """
    if strata is None:
        strata = np.zeros(len(labels))
    members = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata[strata >= 0])]
    wins, pairs = np.sum([_wins_and_pairs(scores[own], labels[own], counts[:, own]) for own in members], axis=0)
    return np.divide(wins, pairs, out=np.full(len(counts), np.nan), where=pairs > 0)


def _wins_and_pairs(scores: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Pairs of a real and a fake in which the fake scores higher, and all pairs, (2, R)."""
    real, fake = np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)
    real = real[np.argsort(scores[real], kind="stable")]
    below = np.zeros((len(counts), len(real) + 1), dtype=np.int64)
    np.cumsum(counts[:, real], axis=1, out=below[:, 1:])
    left, right = (np.searchsorted(scores[real], scores[fake], side) for side in ("left", "right"))
    drawn = counts[:, fake]
    twice = np.einsum("rf,rf->r", below[:, left] + below[:, right], drawn)
    return np.stack([twice / 2, below[:, -1] * drawn.sum(axis=1)])


def mean_gap(values: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean over real minus mean over fake of each row of counts, (R,). values, labels: (n,)."""
    real, fake = labels == 0, labels == 1
    return counts[:, real] @ values[real] / real.sum() - counts[:, fake] @ values[fake] / fake.sum()


def estimate(replicates: np.ndarray) -> Estimate:
    """(R,) with the sample's own value first, to that value and the interval of the others; NaN if one of them is."""
    low, high = np.percentile(replicates[1:], [2.5, 97.5])
    return Estimate(float(replicates[0]), float(low), float(high))


def add_means(by_subset: dict[str, np.ndarray], trained_on: Sequence[str] | None) -> dict[str, np.ndarray]:
    """The subsets' replicates, and their plain means: of those that were not trained on ("unseen"), of these without
    near-copies of what was trained on, of those that read text too, and of all. Means over unseen generators draw the
    generators again too."""
    unseen = [name for name in by_subset if name not in (trained_on or by_subset)]
    means = {"mean of unseen": unseen}
    if not NEAR_COPIES.isdisjoint(trained_on or ()):
        means[WITHOUT_COPIES] = [name for name in unseen if name not in NEAR_COPIES]
        if not CLASS_ONLY.isdisjoint(means[WITHOUT_COPIES]):
            means[READERS] = [name for name in means[WITHOUT_COPIES] if name not in CLASS_ONLY]
    drawn = {name: _mean_of(by_subset, names) for name, names in means.items() if names}
    return by_subset | drawn | {"mean": np.mean(list(by_subset.values()), axis=0)}


def _mean_of(by_subset: dict[str, np.ndarray], names: list[str]) -> np.ndarray:
    values = np.stack([by_subset[name] for name in names])
    random = np.random.default_rng(len(names))  # the same for all variants: their differences are paired
    return np.einsum("gr,rg->r", values, draw_seeds(len(names), random, values.shape[1] - 1))
