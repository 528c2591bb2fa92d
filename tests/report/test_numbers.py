"""Frames of the report on made-up measures."""

import numpy as np
import polars as pl
import pytest

from sare_core.report.measures import MEASURES
from sare_core.report.numbers import BINS, histograms, semantic_shift, shift_measure
from sare_core.report.verdict import shift_sentences


def measures(rows: list[tuple[str, str, int, float]], lpips: bool = False) -> pl.DataFrame:
    filled = [
        ("f", image, subset, label, value, value / 100 if lpips else None) for image, subset, label, value in rows
    ]
    return pl.DataFrame(filled, MEASURES, orient="row")


WITH = [("a", "g", 0, 10.0), ("b", "g", 0, 14.0), ("c", "g", 1, 3.0), ("d", "g", 1, 5.0)]
WITHOUT = [("a", "g", 0, 6.0), ("b", "g", 0, 6.0), ("c", "g", 1, 5.0), ("d", "g", 1, 5.0)]


def test_delta_is_real_less_fake_and_gain_what_captions_add() -> None:
    shift = semantic_shift({"with": measures(WITH), "without": measures(WITHOUT)})
    assert shift.measure == "sare"
    means = {(k, c): m for k, c, m in shift.means.select("captions", "class", "mean").rows()}
    assert means == {("with", "real"): 12, ("without", "real"): 6, ("with", "fake"): 4, ("without", "fake"): 5}
    gaps = dict(shift.gaps.select("captions", "delta").rows())
    assert gaps == {"with": 8, "without": 1, "gain": 7}
    low, high = shift.gaps.filter(captions="without").select("low", "high").row(0)
    assert (low, high) == (1, 1), "images that all moved alike leave no doubt"


def test_only_images_of_both_variants_are_compared() -> None:
    shift = semantic_shift({"with": measures(WITH), "without": measures(WITHOUT[1:])})
    assert shift.means.filter(captions="with").select("class", "n", "mean").rows() == [
        ("real", 1, 14.0),
        ("fake", 2, 4.0),
    ]


def test_lpips_is_taken_where_it_was_measured() -> None:
    shift = semantic_shift({"with": measures(WITH, lpips=True)})
    assert shift.measure == "lpips"
    assert shift.gaps.select("captions", "delta").rows() == [("with", pytest.approx(0.08))]


def test_shared_reals_stand_against_each_generator() -> None:
    rows = [("a", "real", 0, 8.0), ("b", "one", 1, 3.0), ("c", "two", 1, 5.0)]
    gaps = semantic_shift({"with": measures(rows)}).gaps
    assert gaps.select("subset", "delta").rows() == [("one", 5.0), ("two", 3.0)]


def test_sentences_count_what_is_clear_of_zero() -> None:
    rows = [(c, s, d, d - 0.5, d + 0.5) for c in ("with", "gain") for s, d in (("a", 1.0), ("b", 0.2), ("c", -1.0))]
    gaps = pl.DataFrame(rows, ["captions", "subset", "delta", "low", "high"], orient="row")
    first, second = shift_sentences(semantic_shift({"with": measures(WITH)})._replace(gaps=gaps))
    assert first == (
        "With captions, real images change more than fake ones on 1 of 3 subsets, the other way round on 1; "
        "on 1 the interval holds zero."
    )
    assert second.startswith("Captions widen the gap on 1 of 3 subsets")


def test_histograms_count_every_image_and_the_last_bin_takes_what_is_above() -> None:
    values = np.random.default_rng(0).uniform(0, 12, 50)
    bins = histograms(measures([(f"{n:02}", "g", n % 2, v) for n, v in enumerate(values)]), "sare", 0, 10)
    real = bins.filter(**{"class": "real"})
    inside, _ = np.histogram(values[::2], np.linspace(0, 10, BINS + 1))
    assert real["n"][:-1].to_list() == inside[:-1].tolist()
    assert real["n"].sum() == 25
    assert real["share"].sum() == pytest.approx(1)
    assert real["median"][0] == pytest.approx(np.median(values[::2]))


def test_the_shift_is_lpips_only_where_all_variants_have_it() -> None:
    with_it, without_it = measures(WITH, lpips=True), measures(WITHOUT)
    assert shift_measure([with_it]) == "lpips" and shift_measure([with_it, without_it]) == "sare"
    assert semantic_shift({"one": with_it, "other": without_it}).measure == "sare"
