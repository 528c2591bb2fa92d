"""Paired bootstrap over images, training seeds and generators, on whole arrays at once.

Images are drawn again within their subset and class. One draw serves every detector and seed, so that differences are
paired. Row 0 of everything that is resampled is the sample itself: the estimate; the others are its replicates.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

RESAMPLES = 1000
BLOCK = 2**18  # counts that are drawn and looked at together: tens of MB


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


def draw_by_name(images: pl.DataFrame) -> np.ndarray:
    """As `draw_images`, seeded by the names of subset and class: (1 + RESAMPLES, n) int32.

    So the same images give the same interval, detectors that see the same images are paired whoever asks, and images
    that several subsets share are drawn alike for all of them. images: columns subset and label; the order of the rows
    within a subset and label matters.
    """
    return np.concatenate(list(blocks_by_name(images)))


def over_draws(images: pl.DataFrame, measure: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """What `measure` makes of `draw_by_name(images)`, (1 + RESAMPLES,), in memory that does not grow with n.

    measure: takes some rows of counts, (R, n), and gives a number for each, (R,).
    """
    return np.concatenate([measure(counts) for counts in blocks_by_name(images)])


def blocks_by_name(images: pl.DataFrame) -> Iterator[np.ndarray]:
    """The rows of `draw_by_name` from the first to the last, as many at a time as make BLOCK counts."""
    groups = []
    for (subset, label), group in images.with_row_index("row").group_by("subset", "label", maintain_order=True):
        digest = hashlib.sha256(f"{subset}:{label}".encode()).digest()
        groups.append((group["row"].to_numpy(), np.random.default_rng(int.from_bytes(digest[:8]))))
    yield np.ones((1, len(images)), np.int32)
    left, most = RESAMPLES, max(1, BLOCK // max(1, len(images)))
    while left:
        rows = min(left, most)
        counts = np.empty((rows, len(images)), np.int32)
        for members, random in groups:
            n = len(members)
            drawn = random.integers(0, n, (rows, n)) + n * np.arange(rows)[:, None]
            counts[:, members] = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
        yield counts
        left -= rows


def draw_seeds(seeds: int, random: np.random.Generator, resamples: int = RESAMPLES) -> np.ndarray:
    """The weight of each training seed, (1 + resamples, seeds); rows sum to 1."""
    drawn = random.multinomial(seeds, np.full(seeds, 1 / seeds), resamples)
    return np.concatenate([np.full((1, seeds), 1.0), drawn]) / seeds


def draw_generators(by_generator: Sequence[np.ndarray]) -> np.ndarray:
    """The plain mean over generators, which are drawn again too, (R,). by_generator: the replicates (R,) of each.

    As many generators are always drawn alike, so the difference of two detectors is paired.
    """
    values = np.stack(by_generator)
    random = np.random.default_rng(len(values))
    return np.einsum("gr,rg->r", values, draw_seeds(len(values), random, values.shape[1] - 1))


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


def mean(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The mean of values (n,) or (n, k) of each row of counts, (R,) or (R, k)."""
    return ((counts @ values).T / counts.sum(axis=1)).T


def mean_gap(values: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean over real minus mean over fake of each row of counts, (R,). values, labels: (n,)."""
    real, fake = labels == 0, labels == 1
    return mean(values[real], counts[:, real]) - mean(values[fake], counts[:, fake])


def estimate(replicates: np.ndarray) -> Estimate:
    """(R,) with the sample's own value first, to that value and the interval of the others; NaN if one of them is."""
    low, high = np.percentile(replicates[1:], [2.5, 97.5])
    return Estimate(float(replicates[0]), float(low), float(high))


def reading(difference: Estimate, margin: float) -> str:
    """What the interval of a difference (the first less the second) says, with `margin` as what would not matter.

    An interval within ± margin is the two one-sided tests (TOST) of equivalence, both passed at the 2.5 % level.
    """
    if difference.low > -margin and difference.high < margin:
        return f"no gain: within ± {100 * margin:g} points"
    if difference.low > 0:
        return "a gain"
    if difference.high < 0:
        return "a loss"
    return "undecided: the interval holds zero, and more than that"
