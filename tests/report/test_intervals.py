"""Bootstrap intervals against scikit-learn, scipy and theory."""

import numpy as np
import polars as pl
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from sare_core.report.intervals import TIMES, auc_draws, interval, mean_draws, resamples


def images(real: int, fake: int, subset: str = "gen") -> pl.DataFrame:
    return pl.DataFrame({"subset": [subset] * (real + fake), "label": [0] * real + [1] * fake})


def test_every_resample_has_as_many_of_each_class_as_there_were() -> None:
    counts = resamples(images(7, 3))
    assert counts.shape == (TIMES, 10)
    assert (counts[:, :7].sum(axis=1) == 7).all()
    assert (counts[:, 7:].sum(axis=1) == 3).all()
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.15)


def test_shared_reals_are_drawn_alike_and_other_subsets_are_not() -> None:
    shared = images(20, 0, "real")
    one, two = pl.concat([images(0, 5, "one"), shared]), pl.concat([images(0, 9, "two"), shared])
    np.testing.assert_array_equal(resamples(one)[:, 5:], resamples(two)[:, 9:])
    assert (resamples(images(20, 0, "a")) != resamples(images(20, 0, "b"))).any()


def test_the_auc_of_a_resample_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    labels = np.array([0] * 30 + [1] * 20)
    logits = rng.normal(labels, 1).round(1)  # rounded, so that there are ties
    counts = resamples(images(30, 20))
    draws = auc_draws(logits, labels, counts)
    for place in range(0, TIMES, 100):
        expected = roc_auc_score(labels, logits, sample_weight=counts[place])
        np.testing.assert_allclose(draws[place], expected, atol=1e-6)
    assert interval(draws).low < roc_auc_score(labels, logits) < interval(draws).high


def test_the_interval_of_a_mean_is_the_normal_one() -> None:
    values = np.random.default_rng(1).normal(5, 2, 400)
    drawn = interval(mean_draws(values, resamples(images(400, 0))))
    half = norm.ppf(0.975) * values.std() / 20
    np.testing.assert_allclose(drawn, (values.mean() - half, values.mean() + half), atol=0.2 * half)
