import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from sare_core.evaluation.grid import grid, headline
from sare_core.evaluation.metrics import MEAN, UNSEEN, WITHOUT_COPIES
from tests.evaluation.test_intervals import predictions


def test_one_class_is_changed_and_the_other_as_it_was():
    base = pl.concat([predictions("adm", seed=1), predictions("sdv1.4", seed=2)]).drop("stratum")
    shifted = base.with_columns(logit=pl.col("logit") - 1.5, score=pl.lit(0.1, pl.Float32))
    missing = shifted.filter(pl.col("image_id") != "adm003")
    found = grid(base, {"raw": base, "blur:2": missing}, ["sdv1.4"], ["sdv1.4"])
    assert found.filter(pl.col("view") == "raw")["changed"].unique().to_list() == ["both"]

    rows = {row["changed"]: row for row in found.filter(view="blur:2", subset="adm").to_dicts()}
    own = base.filter(pl.col("subset") == "adm", pl.col("image_id") != "adm003")
    labels, logits = own["label"].to_numpy(), own["logit"].to_numpy()
    for changed, moved in (("both", 1.0), ("fakes", labels), ("reals", 1 - labels)):
        assert rows[changed]["auc"] == pytest.approx(roc_auc_score(labels, logits - 1.5 * moved), abs=1e-9)
        assert rows[changed]["auc_low"] < rows[changed]["auc"] < rows[changed]["auc_high"]
        assert (rows[changed]["step"], rows[changed]["number"], rows[changed]["n"]) == ("blur", 2.0, 89)
    assert rows["both"]["auc"] > rows["fakes"]["auc"] and rows["reals"]["auc"] > rows["both"]["auc"]
    assert rows["both"]["acc"] == pytest.approx((labels == 0).mean())
    assert UNSEEN in found["subset"].to_list()


def test_the_mean_without_copies_counts_most():
    assert headline(["a", MEAN, UNSEEN, WITHOUT_COPIES]) == WITHOUT_COPIES
    assert headline(["a", MEAN, UNSEEN]) == UNSEEN and headline(["a", MEAN]) == MEAN
