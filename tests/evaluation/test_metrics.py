import math

import numpy as np
import polars as pl
import pytest
from scipy.special import expit
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    log_loss,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from sare_core.errors import SareError
from sare_core.evaluation.metrics import (
    FALSE_ALARMS,
    FORENSYNTHS,
    FORENSYNTHS_EXTRA,
    GENIMAGE,
    MEAN,
    METRICS,
    METRICS_SCHEMA,
    PREDICTION_SCHEMA,
    UNSEEN,
    WITHOUT_COPIES,
    WORST,
    is_mean,
    paper_order,
    subset_metrics,
)


def predictions(**subsets: list[tuple[int | None, float]]) -> pl.DataFrame:
    """Rows from subset=[(label, logit), ...]; the score is the logit's sigmoid in float32."""
    rows = [
        (f"{subset}-{i}", subset, label, logit, 1 / (1 + np.exp(-np.float32(logit))))
        for subset, pairs in subsets.items()
        for i, (label, logit) in enumerate(pairs)
    ]
    return pl.DataFrame(rows, schema=PREDICTION_SCHEMA, orient="row")


def row(metrics: pl.DataFrame, subset: str) -> dict[str, object]:
    return metrics.row(by_predicate=pl.col("subset") == subset, named=True)


def random_pairs(n: int, seed: int, levels: int | None = None) -> list[tuple[int, float]]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, n)
    logits = random.normal(labels - 0.5, 1.0)
    if levels:  # few distinct values: many ties
        logits = np.round(logits * levels) / levels + 0.25
    return list(zip(labels.tolist(), logits.tolist(), strict=True))


def library_metrics(labels, logits, scores, threshold) -> dict[str, float]:
    """Each metric by scikit-learn or torchmetrics; those that neither has by a formula of their own."""
    import torch
    from torchmetrics.functional import classification as torchmetrics

    truth, guess = torch.tensor(labels), torch.tensor(logits.astype(np.float64))
    probability = guess.sigmoid()
    thresholds = [-np.inf, *np.unique(logits)]
    odds = np.exp(logits.astype(np.float64))
    return {
        "acc": accuracy_score(labels, scores > 0.5),
        "val_acc": accuracy_score(labels, logits > threshold),
        "balanced_acc": balanced_accuracy_score(labels, scores > 0.5),
        "real_acc": recall_score(labels, scores > 0.5, pos_label=0),
        "fake_acc": recall_score(labels, scores > 0.5, pos_label=1),
        "oracle_acc": max(accuracy_score(labels, logits > one) for one in thresholds),
        "auc": roc_auc_score(labels, logits),
        "matched_auc": np.nan,
        "ap": average_precision_score(labels, logits),
        "eer": torchmetrics.binary_eer(probability, truth).item(),
        "tpr_at_1_fpr": torchmetrics.binary_sensitivity_at_specificity(probability, truth, 0.99)[0].item(),
        "tpr_at_5_fpr": torchmetrics.binary_sensitivity_at_specificity(probability, truth, 0.95)[0].item(),
        "ece": torchmetrics.binary_calibration_error(probability, truth, n_bins=15).item(),
        "nll": log_loss(labels, probability.numpy()),
        # Brümmer and du Preez 2006, equation 9
        "cllr": (np.log2(1 + 1 / odds[labels == 1]).mean() + np.log2(1 + odds[labels == 0]).mean()) / 2,
    }


@pytest.mark.parametrize("levels", [None, 1])
def test_each_metric_is_the_librarys(levels):
    table = predictions(a=random_pairs(301, 1, levels))
    got = row(subset_metrics(table, threshold=0.3), "a")
    labels, logits, scores = (table[name].to_numpy() for name in ("label", "logit", "score"))
    expected = library_metrics(labels, logits, scores, 0.3)
    assert expected.keys() == METRICS.keys()
    # torchmetrics' curves are float32 whatever they are given; the next test holds these to 1e-9.
    single = {"eer", "tpr_at_1_fpr", "tpr_at_5_fpr", "ece"}
    for name in METRICS.keys() - {"matched_auc"}:
        assert got[name] == pytest.approx(expected[name], abs=1e-7 if name in single else 1e-9), name


@pytest.mark.parametrize("levels", [None, 1])
def test_rates_and_calibration_to_the_last_digits(levels):
    table = predictions(a=random_pairs(901, 2, levels))
    labels, logits = table["label"].to_numpy(), table["logit"].to_numpy().astype(np.float64)
    fpr, tpr, _ = roc_curve(labels, logits, drop_intermediate=False)
    got = row(subset_metrics(table), "a")
    for name, most in FALSE_ALARMS.items():
        assert got[name] == pytest.approx(tpr[fpr <= most][-1], abs=1e-9)
    errors = min(zip(1 - tpr, fpr, strict=True), key=lambda pair: abs(pair[0] - pair[1]))
    assert got["eer"] == pytest.approx(sum(errors) / 2, abs=1e-9)

    share, mean = calibration_curve(labels, expit(logits), n_bins=15)  # of the bins that are not empty
    filled = np.histogram(expit(logits), bins=15, range=(0, 1))[0]
    gaps = np.abs(share - mean) * filled[filled > 0] / len(labels)
    assert got["ece"] == pytest.approx(gaps.sum(), abs=1e-9)


def test_one_false_alarm_in_a_hundred_is_one_per_cent():
    got = row(subset_metrics(predictions(a=[*((0, float(n)) for n in range(100)), (1, 98.5), (1, 99.5)])), "a")
    assert (got["tpr_at_1_fpr"], got["tpr_at_5_fpr"]) == (1.0, 1.0)
    got = row(subset_metrics(predictions(a=[*((0, float(n)) for n in range(100)), (1, 97.5), (1, 99.5)])), "a")
    assert (got["tpr_at_1_fpr"], got["tpr_at_5_fpr"]) == (0.5, 1.0)


def test_a_logit_at_the_threshold_is_real():
    table = predictions(a=[(0, 0.5), (1, 0.75)])
    assert row(subset_metrics(table, threshold=0.5), "a")["val_acc"] == 1.0


def test_matched_pairs_are_those_of_one_stratum():
    table = predictions(a=random_pairs(200, 3)).with_columns(stratum=pl.Series(np.arange(200) % 3))
    got = row(subset_metrics(table), "a")
    wins = pairs = 0
    for (_,), own in table.group_by("stratum"):
        n = (own["label"] == 0).sum() * (own["label"] == 1).sum()
        wins, pairs = wins + n * roc_auc_score(own["label"], own["logit"]), pairs + n
    assert got["matched_auc"] == pytest.approx(wins / pairs, abs=1e-9)
    assert got["matched_pairs"] == pytest.approx(pairs / (got["n_real"] * got["n_fake"]), abs=1e-9)
    apart = row(subset_metrics(table.with_columns(stratum=pl.col("label").cast(pl.Int64))), "a")
    assert (apart["matched_auc"], apart["matched_pairs"]) == (None, 0)


def test_means_are_over_the_unseen_too_and_without_copies_that_the_user_names():
    names = ("sdv1.4", "sdv1.5", "adm", "glide")
    table = predictions(**{name: random_pairs(40, n) for n, name in enumerate(names)})
    cells = {name: row(subset_metrics(table), name)["eer"] for name in names}
    found = subset_metrics(table, trained=["sdv1.4"])
    assert found["subset"].to_list()[4:] == [MEAN, UNSEEN, WITHOUT_COPIES, WORST]
    assert row(found, UNSEEN)["eer"] == pytest.approx(np.mean([cells[name] for name in names[1:]]))
    assert row(found, WITHOUT_COPIES)["eer"] == pytest.approx(np.mean([cells["adm"], cells["glide"]]))
    named = subset_metrics(table, trained=["sdv1.4"], near_copies=["sdv1.4", "adm"])
    assert row(named, WITHOUT_COPIES)["eer"] == pytest.approx(np.mean([cells["sdv1.5"], cells["glide"]]))
    assert WITHOUT_COPIES not in subset_metrics(table, trained=["glide"])["subset"]
    assert UNSEEN not in subset_metrics(table, trained=names)["subset"]


def test_the_worst_of_each_metric_is_its_minimum_or_of_errors_its_maximum():
    table = predictions(**{name: random_pairs(40, n) for n, name in enumerate("abc")})
    found = subset_metrics(table, threshold=0.0)
    rows, worst = found.filter(~is_mean()), row(found, WORST)
    for name, metric in METRICS.items():
        if name != "matched_auc":
            assert worst[name] == (rows[name].max() if metric.lower_is_better else rows[name].min()), name
    errors = {name for name, metric in METRICS.items() if metric.lower_is_better}
    assert errors == {"eer", "ece", "nll", "cllr"}
    assert WORST not in subset_metrics(predictions(a=random_pairs(40, 0)))["subset"]


def test_by_hand():
    metrics = subset_metrics(predictions(a=[(0, -2.0), (0, 1.0), (1, -1.0), (1, 3.0), (1, 2.0)]))
    assert metrics.schema == METRICS_SCHEMA
    a = row(metrics, "a")
    assert {name: a[name] for name in ("subset", "n", "n_real", "n_fake", "n_unlabelled", "acc", "auc", "ap")} | {
        name: a[name] for name in ("real_acc", "fake_acc", "acc_over", "auc_over")
    } == {
        "subset": "a",
        "n": 5,
        "n_real": 2,
        "n_fake": 3,
        "n_unlabelled": 0,
        "acc": pytest.approx(3 / 5),
        "auc": pytest.approx(5 / 6),  # of the 2 x 3 pairs, only (1.0, -1.0) is ranked wrongly
        "ap": pytest.approx((1 / 1 + 2 / 2 + 3 / 4) / 3),
        "real_acc": pytest.approx(1 / 2),
        "fake_acc": pytest.approx(2 / 3),
        "acc_over": None,
        "auc_over": None,
    }


def test_a_tie_of_real_and_fake_counts_half():
    assert row(subset_metrics(predictions(a=[(0, 1.0), (1, 1.0)])), "a")["auc"] == 0.5


def test_a_score_of_exactly_one_half_is_real():
    got = row(subset_metrics(predictions(a=[(0, 0.0), (1, 0.0)])), "a")
    assert (got["real_acc"], got["fake_acc"]) == (1.0, 0.0)


def test_ranks_by_logit_where_scores_saturate():
    table = predictions(a=[(0, 30.0), (1, 40.0), (1, 50.0)])
    assert table["score"].n_unique() == 1
    assert row(subset_metrics(table), "a")["auc"] == 1.0


@pytest.mark.parametrize(("label", "own", "other"), [(0, "real_acc", "fake_acc"), (1, "fake_acc", "real_acc")])
def test_one_class(label, own, other):
    got = row(subset_metrics(predictions(a=[(label, -1.0), (label, 1.0), (label, 2.0)])), "a")
    assert [
        got[name] for name in ("auc", "ap", other, "balanced_acc", "eer", "tpr_at_1_fpr", "oracle_acc", "cllr")
    ] == [None] * 8
    assert got["ece"] > 0 and got["nll"] > 0
    assert got["acc"] == got[own] == pytest.approx(1 / 3 if label == 0 else 2 / 3)


def test_one_row():
    got = row(subset_metrics(predictions(a=[(1, 0.5)])), "a")
    assert (got["n"], got["acc"], got["auc"]) == (1, 1.0, None)


def test_unlabelled_images_are_counted_and_left_out():
    labelled = [(0, -1.0), (1, 1.0), (1, -0.5)]
    got = row(subset_metrics(predictions(a=[*labelled, (None, 9.0), (None, -9.0)])), "a")
    alone = row(subset_metrics(predictions(a=labelled)), "a")
    assert got == {**alone, "n_unlabelled": 2}


def test_nothing_labelled_is_null_everywhere():
    metrics = subset_metrics(predictions(a=[(None, 1.0)]))
    for name in ("a", "mean"):
        got = row(metrics, name)
        assert {got[key] for key in METRICS} == {None}
        assert (got["n"], got["n_unlabelled"]) == (0, 1)
    assert row(metrics, "mean")["acc_over"] == 0


def test_no_predictions_at_all():
    metrics = subset_metrics(predictions())
    assert metrics["subset"].to_list() == ["mean"]
    assert metrics["acc"].to_list() == [None]


def test_mean_is_plain_and_says_over_how_many():
    metrics = subset_metrics(
        predictions(
            a=[(0, -1.0), (1, 1.0)] * 50,  # acc 1, auc 1: large
            b=[(0, 1.0), (1, -1.0)],  # acc 0, auc 0: small, weighs the same
            c=[(1, 1.0)],  # acc 1, no auc
            d=[(None, 1.0)],
        )
    )
    mean = row(metrics, "mean")
    assert mean["acc"] == pytest.approx(2 / 3) and mean["acc_over"] == 3
    assert mean["auc"] == pytest.approx(1 / 2) and mean["auc_over"] == 2
    assert (mean["n"], mean["n_unlabelled"]) == (103, 1)


def test_a_subset_called_mean_is_still_a_subset():
    metrics = subset_metrics(predictions(mean=[(0, -1.0), (1, 1.0)]))
    assert metrics["subset"].to_list() == ["mean", "mean"]
    assert metrics.filter(~is_mean())["n"].to_list() == [2]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, None])
@pytest.mark.parametrize("column", ["logit", "score"])
def test_broken_numbers_name_the_image(bad, column):
    table = predictions(a=[(0, -1.0), (1, 1.0)])
    broken = pl.when(pl.col("image_id") == "a-1").then(pl.lit(bad, dtype=pl.Float32)).otherwise(pl.col(column))
    with pytest.raises(SareError, match=r"1 of 2 predictions .* a-1\b"):
        subset_metrics(table.with_columns(broken.alias(column)))


def test_shared_reals_are_every_generators_real_half():
    reals, x, y = [(0, -1.0), (0, 0.5)], [(1, 1.0), (1, 0.2)], [(1, -2.0)]
    metrics = subset_metrics(predictions(real=reals, x=x, y=y))
    apart = subset_metrics(predictions(x=x + reals, y=y + reals))
    assert metrics.equals(apart)
    assert metrics["subset"].to_list() == ["x", "y", "mean", "worst"]


def test_shared_reals_leave_subsets_with_own_reals_alone():
    own = [(0, 3.0), (1, 1.0)]
    metrics = subset_metrics(predictions(real=[(0, -1.0)], own=own, fakes=[(1, 1.0)], unknown=[(None, 1.0)]))
    assert metrics["subset"].to_list() == ["fakes", "own", "unknown", "mean", "worst"]
    assert metrics["n_real"].to_list()[:3] == [1, 1, 0]


@pytest.mark.parametrize(
    "subsets",
    [
        {"real": [(0, -1.0)], "own": [(0, -1.0), (1, 1.0)]},  # nobody needs them
        {"real": [(0, -1.0), (1, 1.0)], "fakes": [(1, 1.0)]},  # not reals only
        {"real": [(0, -1.0), (None, 1.0)], "fakes": [(1, 1.0)]},
        {"real": [(0, -1.0)]},
    ],
)
def test_a_subset_called_real_otherwise_has_its_own_row(subsets):
    assert "real" in subset_metrics(predictions(**subsets))["subset"].to_list()


def test_subsets_stand_in_the_papers_order():
    assert paper_order(set(GENIMAGE)) == list(GENIMAGE)
    assert paper_order(set(FORENSYNTHS + FORENSYNTHS_EXTRA)) == list(FORENSYNTHS + FORENSYNTHS_EXTRA)
    assert paper_order({"biggan", "progan", "deepfake"}) == ["progan", "biggan", "deepfake"]
    assert paper_order({"biggan", "adm", "zoo", "new"}) == ["adm", "biggan", "new", "zoo"]
    metrics = subset_metrics(predictions(**{name: [(0, -1.0)] for name in ("b", "glide", "a", "sdv1.4")}))
    assert metrics["subset"].to_list() == ["sdv1.4", "glide", "a", "b", "mean", "worst"]


def test_mean_over_the_papers_subsets_where_there_are_more():
    right, wrong = [(0, -1.0), (1, 1.0)], [(0, 1.0), (1, -1.0)]
    paper, extra = dict.fromkeys(FORENSYNTHS, right), dict.fromkeys(FORENSYNTHS_EXTRA, wrong)
    metrics = subset_metrics(predictions(**paper, **extra))
    assert row(metrics, "mean")["acc"] == pytest.approx(11 / 13)
    assert row(metrics, "mean (paper's 11)")["acc"] == 1.0
    assert row(metrics, "mean (paper's 11)")["acc_over"] == 11

    assert subset_metrics(predictions(**paper)).filter(is_mean())["subset"].to_list() == ["mean", "worst"]
    del paper["crn"]  # the paper's mean needs all of the paper's subsets
    assert subset_metrics(predictions(**paper, **extra)).filter(is_mean())["subset"].to_list() == ["mean", "worst"]
