from functools import partial

import numpy as np
import polars as pl
import pytest
from scipy.stats import bootstrap, norm
from sklearn.metrics import roc_auc_score

from sare_core.evaluation.bootstrap import (
    RESAMPLES,
    Estimate,
    auc,
    draw_by_name,
    draw_images,
    draw_seeds,
    estimate,
    mean,
    mean_gap,
    over_draws,
    reading,
)
from sare_core.evaluation.metrics import WITHOUT_COPIES
from sare_core.study.means import add_means


def sample(n=300, levels=None, seed=0):
    random = np.random.default_rng(seed)
    labels = (random.random(n) < 0.4).astype(int)
    scores = random.normal(size=n) + labels
    return (scores if levels is None else np.round(scores * levels)), labels, random


@pytest.mark.parametrize("levels", [None, 1, 3])
def test_auc_of_every_draw_is_that_of_sklearn(levels):
    scores, labels, random = sample(levels=levels)
    counts = draw_images(labels, random, 20)
    expected = [roc_auc_score(labels, scores, sample_weight=row) for row in counts]
    np.testing.assert_allclose(auc(scores, labels, counts), expected, rtol=1e-12)


def test_means_of_every_draw_are_those_of_the_drawn_images():
    values, labels, random = sample()
    counts = draw_images(labels, random, 20)
    for row, gap in zip(counts, mean_gap(values, labels, counts), strict=True):
        drawn, of = np.repeat(values, row), np.repeat(labels, row)
        assert gap == pytest.approx(drawn[of == 0].mean() - drawn[of == 1].mean())


def test_a_draw_keeps_the_numbers_of_real_and_fake_and_the_first_is_the_sample():
    _, labels, random = sample()
    counts = draw_images(labels, random, 50)
    assert (counts[0] == 1).all()
    for label in (0, 1):
        assert (counts[:, labels == label].sum(axis=1) == (labels == label).sum()).all()
    assert counts[1:].var() == pytest.approx(1, abs=0.05), "drawn with replacement: nearly Poisson of mean 1"


def test_seeds_are_weighted_by_how_often_they_are_drawn():
    weights = draw_seeds(5, np.random.default_rng(0), 4000)
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    np.testing.assert_allclose(weights[0], 0.2)
    assert weights[1:].std() == pytest.approx((0.2 * 0.8 / 5) ** 0.5, rel=0.05)


def test_the_interval_is_that_of_scipy():
    values, labels, random = sample()
    found = estimate(mean_gap(values, labels, draw_images(labels, random, 4000)))
    expected = bootstrap(
        (values[labels == 0], values[labels == 1]),
        lambda a, b, axis: a.mean(axis=axis) - b.mean(axis=axis),
        method="percentile",
        vectorized=True,
        n_resamples=4000,
        random_state=0,
    ).confidence_interval
    width = expected.high - expected.low
    assert found.value == pytest.approx(values[labels == 0].mean() - values[labels == 1].mean())
    assert found.low == pytest.approx(expected.low, abs=0.05 * width)
    assert found.high == pytest.approx(expected.high, abs=0.05 * width)


def test_means_are_over_the_subsets_that_were_not_trained_on_and_over_all():
    by_subset = {name: np.array([value]) for name, value in {"a": 1.0, "b": 2.0, "c": 6.0}.items()}
    assert add_means(by_subset, ("a",)) == by_subset | {"mean of unseen": 4.0, "mean": 3.0}
    assert add_means(by_subset, None) == by_subset | {"mean": 3.0}
    named = {"sdv1.4": np.array([1.0]), "sdv1.5": np.array([2.0]), "adm": np.array([6.0]), "glide": np.array([8.0])}
    found = add_means(named, ("sdv1.4",))
    assert found["mean of unseen"] == pytest.approx(16 / 3) and found[WITHOUT_COPIES] == 7.0
    assert WITHOUT_COPIES not in add_means(named, ("adm",)), "of a GAN's detector none is a near-copy"


def test_means_over_unseen_draw_the_generators_again_alike_for_all() -> None:
    by_subset = {"a": np.full(1001, 0.0), "b": np.full(1001, 1.0), "c": np.full(1001, 2.0)}
    mean = add_means(by_subset, ("a",))["mean of unseen"]
    assert mean[0] == 1.5 and set(mean[1:]) == {1.0, 1.5, 2.0}
    shifted = add_means({name: values + 0.25 for name, values in by_subset.items()}, ("a",))["mean of unseen"]
    np.testing.assert_allclose(shifted - mean, 0.25)  # their difference knows no generators


def test_within_strata_only_pairs_of_one_stratum_count():
    scores, labels, random = sample()
    strata, counts = random.integers(-1, 3, len(labels)), draw_images(labels, random, 20)
    for row, found in zip(counts, auc(scores, labels, counts, strata), strict=True):
        wins = pairs = 0
        for stratum in range(3):
            own = (strata == stratum) & (row > 0)
            of = np.multiply.reduce([(row * own)[labels == label].sum() for label in (0, 1)])
            wins += of * roc_auc_score(labels[own], scores[own], sample_weight=row[own])
            pairs += of
        assert found == pytest.approx(wins / pairs)


def test_strata_without_a_pair_give_no_number():
    scores, labels, random = sample()
    assert np.isnan(auc(scores, labels, draw_images(labels, random, 2), labels)).all()


def images(real: int, fake: int, subset: str = "gen") -> pl.DataFrame:
    return pl.DataFrame({"subset": [subset] * (real + fake), "label": [0] * real + [1] * fake})


@pytest.mark.parametrize("block", [1, 30, 2**30])
def test_draws_are_the_same_however_many_are_made_at_a_time(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    two = pl.concat([images(7, 3, "a"), images(2, 5, "b")])
    logits, labels = np.random.default_rng(0).normal(size=len(two)), two["label"].to_numpy()
    expected = draw_by_name(two)
    monkeypatch.setattr("sare_core.evaluation.bootstrap.BLOCK", block)
    np.testing.assert_array_equal(draw_by_name(two), expected)
    np.testing.assert_array_equal(over_draws(two, partial(auc, logits, labels)), auc(logits, labels, expected))


def test_every_draw_by_name_has_as_many_of_each_class_as_there_were() -> None:
    counts = draw_by_name(images(7, 3))
    assert counts.shape == (1 + RESAMPLES, 10) and (counts[0] == 1).all()
    assert (counts[:, :7].sum(axis=1) == 7).all()
    assert (counts[:, 7:].sum(axis=1) == 3).all()
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.15)


def test_shared_reals_are_drawn_alike_and_other_subsets_are_not() -> None:
    shared = images(20, 0, "real")
    one, two = pl.concat([images(0, 5, "one"), shared]), pl.concat([images(0, 9, "two"), shared])
    np.testing.assert_array_equal(draw_by_name(one)[:, 5:], draw_by_name(two)[:, 9:])
    assert (draw_by_name(images(20, 0, "a")) != draw_by_name(images(20, 0, "b"))).any()


def test_the_interval_of_a_mean_is_the_normal_one() -> None:
    values = np.random.default_rng(1).normal(5, 2, 400)
    drawn = estimate(mean(values, draw_by_name(images(400, 0))))
    half = norm.ppf(0.975) * values.std() / 20
    assert drawn.value == pytest.approx(values.mean())
    np.testing.assert_allclose(drawn[1:], (values.mean() - half, values.mean() + half), atol=0.2 * half)


def test_the_margin_decides_between_no_gain_and_undecided() -> None:
    assert reading(Estimate(0.01, -0.01, 0.03), 0.02).startswith("undecided")
    assert reading(Estimate(0.01, -0.01, 0.03), 0.05) == "no gain: within ± 5 points"
    assert reading(Estimate(0.03, 0.01, 0.06), 0.05) == "a gain"
    assert reading(Estimate(-0.03, -0.06, -0.01), 0.05) == "a loss"
