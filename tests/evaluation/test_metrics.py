import math

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import accuracy_score, average_precision_score, recall_score, roc_auc_score

from sare_core.errors import SareError
from sare_core.evaluation.metrics import (
    FORENSYNTHS,
    FORENSYNTHS_EXTRA,
    GENIMAGE,
    METRICS_SCHEMA,
    PREDICTION_SCHEMA,
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


@pytest.mark.parametrize("levels", [None, 1])
def test_agrees_with_scikit_learn_and_torchmetrics(levels):
    import torch
    from torchmetrics.functional import classification as torchmetrics

    table = predictions(a=random_pairs(301, 1, levels))
    got = row(subset_metrics(table), "a")
    labels, logits, scores = table["label"].to_numpy(), table["logit"].to_numpy(), table["score"].to_numpy()

    assert got["acc"] == pytest.approx(accuracy_score(labels, scores > 0.5))
    assert got["auc"] == pytest.approx(roc_auc_score(labels, logits))
    assert got["ap"] == pytest.approx(average_precision_score(labels, logits))
    assert got["real_acc"] == pytest.approx(recall_score(labels, scores > 0.5, pos_label=0))
    assert got["fake_acc"] == pytest.approx(recall_score(labels, scores > 0.5, pos_label=1))

    truth, guess = torch.tensor(labels), torch.tensor(scores)
    assert got["acc"] == pytest.approx(torchmetrics.binary_accuracy(guess, truth).item(), abs=1e-6)
    assert got["auc"] == pytest.approx(torchmetrics.binary_auroc(guess, truth).item(), abs=1e-6)
    assert got["ap"] == pytest.approx(torchmetrics.binary_average_precision(guess, truth).item(), abs=1e-6)
    assert got["fake_acc"] == pytest.approx(torchmetrics.binary_recall(guess, truth).item(), abs=1e-6)
    assert got["real_acc"] == pytest.approx(torchmetrics.binary_specificity(guess, truth).item(), abs=1e-6)


def test_by_hand():
    metrics = subset_metrics(predictions(a=[(0, -2.0), (0, 1.0), (1, -1.0), (1, 3.0), (1, 2.0)]))
    assert metrics.schema == METRICS_SCHEMA
    assert row(metrics, "a") == {
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
    assert got["auc"] is None and got["ap"] is None and got[other] is None
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
        assert [got[key] for key in ("acc", "auc", "ap", "real_acc", "fake_acc")] == [None] * 5
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
    assert metrics["subset"].to_list() == ["x", "y", "mean"]


def test_shared_reals_leave_subsets_with_own_reals_alone():
    own = [(0, 3.0), (1, 1.0)]
    metrics = subset_metrics(predictions(real=[(0, -1.0)], own=own, fakes=[(1, 1.0)], unknown=[(None, 1.0)]))
    assert metrics["subset"].to_list() == ["fakes", "own", "unknown", "mean"]
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
    assert metrics["subset"].to_list() == ["sdv1.4", "glide", "a", "b", "mean"]


def test_mean_over_the_papers_subsets_where_there_are_more():
    right, wrong = [(0, -1.0), (1, 1.0)], [(0, 1.0), (1, -1.0)]
    paper, extra = dict.fromkeys(FORENSYNTHS, right), dict.fromkeys(FORENSYNTHS_EXTRA, wrong)
    metrics = subset_metrics(predictions(**paper, **extra))
    assert row(metrics, "mean")["acc"] == pytest.approx(11 / 13)
    assert row(metrics, "mean (paper's 11)")["acc"] == 1.0
    assert row(metrics, "mean (paper's 11)")["acc_over"] == 11

    assert subset_metrics(predictions(**paper)).filter(is_mean())["subset"].to_list() == ["mean"]
    del paper["crn"]  # the paper's mean needs all of the paper's subsets
    assert subset_metrics(predictions(**paper, **extra)).filter(is_mean())["subset"].to_list() == ["mean"]
