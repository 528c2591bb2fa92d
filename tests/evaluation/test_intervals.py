"""Intervals of every metric, against the metrics of resampled predictions themselves."""

import numpy as np
import polars as pl
import pytest

from sare_core.evaluation.bootstrap import RESAMPLES, draw_by_name, estimate
from sare_core.evaluation.intervals import Run, differences, measure_runs, replicates, resample, with_means
from sare_core.evaluation.metrics import MEAN, METRICS, PREDICTION_SCHEMA, UNSEEN, WORST, subset_metrics


def predictions(subset: str = "a", n: int = 90, gain: float = 1.0, seed: int = 0, levels: int = 0) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    logits = random.normal(gain * (labels - 0.5), 1.0)
    logits = np.round(logits * levels) / levels if levels else logits
    rows = zip(
        (f"{subset}{i:03}" for i in range(n)), [subset] * n, labels, logits, 1 / (1 + np.exp(-logits)), strict=True
    )
    table = pl.DataFrame(list(rows), schema=PREDICTION_SCHEMA, orient="row")
    return table.with_columns(stratum=pl.Series(np.arange(n) // 2 % 3)).sort("subset", "label", "image_id")


def row(table: pl.DataFrame, subset: str) -> dict:
    return table.row(by_predicate=pl.col("subset") == subset, named=True)


@pytest.mark.parametrize("levels", [0, 1])
def test_every_metric_of_a_resample_is_that_of_the_drawn_images(levels):
    table = predictions(levels=levels)
    counts = draw_by_name(table)
    found = resample(table, 0.2, counts)
    assert found.keys() == METRICS.keys()
    for place in (0, 1, 500, RESAMPLES):
        drawn = table[np.repeat(np.arange(len(table)), counts[place])]
        expected = row(subset_metrics(drawn, 0.2), "a")
        for name, values in found.items():
            assert values[place] == pytest.approx(expected[name], abs=1e-9), (place, name)


def test_one_class_has_no_more_metrics_than_are_defined():
    table = predictions().filter(pl.col("label") == 1)
    found = resample(table, 0.2, draw_by_name(table))
    defined = row(subset_metrics(table, 0.2), "a")
    assert found.keys() == {name for name in METRICS if defined[name] is not None}


def test_a_table_holds_each_number_between_its_ends_and_the_worst_has_none():
    table = pl.concat([predictions("a", seed=1), predictions("b", gain=2, seed=2)])
    found = measure_runs([Run(table, 0.2)])
    assert found.select(subset_metrics(table, 0.2).columns).equals(subset_metrics(table, 0.2))
    for subset in ("a", "b", MEAN):
        one = row(found, subset)
        for name in METRICS:
            assert one[f"{name}_low"] <= one[name] <= one[f"{name}_high"] or name in ("oracle_acc", "ece"), name
        assert one["auc_low"] < one["auc_high"]
    assert row(found, WORST)["auc_low"] is None


def test_a_mean_over_generators_varies_with_them_and_not_with_images_alone():
    table = pl.concat([predictions("a", 400, gain=0.2, seed=1), predictions("b", 400, gain=4, seed=2)])
    found = measure_runs([Run(table)])
    width = {name: row(found, name)["auc_high"] - row(found, name)["auc_low"] for name in ("a", "b", MEAN)}
    assert width[MEAN] > 3 * max(width["a"], width["b"])
    unseen = measure_runs([Run(table)], trained=["b"])
    assert row(unseen, UNSEEN)["auc"] == row(unseen, "a")["auc"]


def test_seeds_are_averaged_and_widen_the_interval():
    good, bad = predictions(n=400, gain=3, seed=1), predictions(n=400, gain=0.2, seed=2)
    alone, both = measure_runs([Run(good)]), measure_runs([Run(good), Run(bad)])
    of_bad = measure_runs([Run(bad)])
    assert row(both, "a")["auc"] == pytest.approx((row(alone, "a")["auc"] + row(of_bad, "a")["auc"]) / 2)
    assert row(both, "a")["auc_low"] < row(of_bad, "a")["auc"] < row(alone, "a")["auc"] < row(both, "a")["auc_high"]


def test_seeds_and_generators_are_drawn_apart_where_there_are_as_many(monkeypatch):
    monkeypatch.setattr(
        "sare_core.evaluation.intervals._of_run",
        lambda gain, _: {"acc": {name: np.full(1 + RESAMPLES, gain + own) for own, name in enumerate("abc")}},
    )
    widths = [with_means(replicates(gains, ["acc"])["acc"], [], [])[MEAN].std() for gains in ((0, 1, 2), (2, 1, 0))]
    assert widths[0] == pytest.approx(widths[1], rel=0.1), "the order of the seeds says nothing"


def test_the_worst_of_several_seeds_is_a_generators_mean_over_them():
    gains = [{"a": 3, "b": 0.2}, {"a": 0.2, "b": 2}]  # not the mean of what is worst of each seed
    tables = [
        pl.concat(predictions(name, gain=gain, seed=seed) for name, gain in one.items())
        for seed, one in enumerate(gains)
    ]
    found = measure_runs([Run(table) for table in tables])
    for name, metric in METRICS.items():
        ends = [row(found, subset)[name] for subset in ("a", "b")]
        worst = None if None in ends else max(ends) if metric.lower_is_better else min(ends)
        assert row(found, WORST)[name] == worst, name


def test_a_metric_that_one_seed_lacks_has_no_mean():
    found = measure_runs([Run(predictions(seed=1), 0.2), Run(predictions(seed=2))])
    assert row(found, "a")["val_acc"] is None and row(found, "a")["val_acc_low"] is None
    assert row(found, "a")["acc"] is not None


def test_differences_are_paired_and_over_common_images():
    ours = predictions(n=400, seed=1)
    theirs = ours.with_columns(logit=pl.col("logit") - 0.05 * pl.col("label"))
    whole = differences([Run(ours)], [Run(theirs)], ["auc"], [])
    assert whole["subset"].to_list() == ["a", MEAN]
    one = whole.row(0, named=True)
    expected = row(subset_metrics(ours), "a")["auc"] - row(subset_metrics(theirs), "a")["auc"]
    assert one["value"] == pytest.approx(expected, abs=1e-9)
    alone = estimate(replicates([Run(ours)], ["auc"])["auc"]["a"])
    assert 0 < one["low"] < one["high"] and one["high"] - one["low"] < 0.2 * (alone.high - alone.low)
    kept = theirs.filter(pl.col("image_id") > "a100")
    part = differences([Run(ours)], [Run(kept)], ["auc"], [])
    assert part["images"].to_list() == [len(kept)] * 2
    again = differences([Run(ours.filter(pl.col("image_id") > "a100"))], [Run(kept)], ["auc"], [])
    assert part.equals(again)
