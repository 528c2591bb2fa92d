import numpy as np
import polars as pl
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sare_core.study.number import with_number


def base_and_change(n: int = 200) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The logit tells half, the change (smaller for fakes) the other half."""
    random, rows, changes = np.random.default_rng(0), [], []
    for subset in ("sdv1.4", "adm"):
        for i in range(n):
            label = i % 2
            changes.append((f"{subset}{i}", random.normal() - label))
            for seed in range(2):
                logit = random.normal() + label
                rows.append((f"{subset}{i}", subset, label, logit, 1 / (1 + np.exp(-logit)), "zero", seed))
    names = ["image_id", "subset", "label", "logit", "score", "variant", "seed"]
    return (
        pl.DataFrame(rows, schema=names, orient="row").cast(
            {"label": pl.Int8, "logit": pl.Float32, "score": pl.Float32, "seed": pl.Int32}
        ),
        pl.DataFrame(changes, schema=["image_id", "change"], orient="row"),
    )


def test_the_weights_are_those_of_a_regression_on_the_training_subsets_alone() -> None:
    base, change = base_and_change()
    found = with_number(base, change, ("sdv1.4",), seed=0)
    assert found.schema == base.schema and set(found["variant"]) == {"number"} and len(found) == len(base)
    frame = base.filter(pl.col("seed") == 1).join(change, on="image_id").sort("image_id")
    own, other = (frame.filter((pl.col("subset") == "sdv1.4") == known) for known in (True, False))
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    model.fit(own.select("logit", "change").to_numpy(), own["label"].to_numpy())
    expected = model.decision_function(other.select("logit", "change").to_numpy())
    scored = found.filter(pl.col("seed") == 1)
    got = other.join(scored, on="image_id", maintain_order="left")["logit_right"].to_numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-4)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    held_out = cross_val_predict(
        model, own.select("logit", "change").to_numpy(), own["label"].to_numpy(), cv=folds, method="decision_function"
    )
    got = own.join(scored, on="image_id", maintain_order="left")["logit_right"].to_numpy()
    np.testing.assert_allclose(got, held_out, rtol=1e-4)


def test_it_tells_more_than_either() -> None:
    base, change = base_and_change()
    found = with_number(base, change, ("sdv1.4",), seed=0).filter(pl.col("subset") == "adm", pl.col("seed") == 0)
    alone = base.filter(pl.col("subset") == "adm", pl.col("seed") == 0)
    before, after = (roc_auc_score(frame["label"], frame["logit"]) for frame in (alone, found))
    assert after > before + 0.03
    np.testing.assert_allclose(found["score"], 1 / (1 + np.exp(-found["logit"].cast(pl.Float64))), rtol=1e-4)


def test_images_without_a_change_are_left_out() -> None:
    base, change = base_and_change()
    found = with_number(base, change.head(350), ("sdv1.4",), seed=0)
    assert found["image_id"].n_unique() == 350
    assert with_number(base, change, None, 0)["logit"].is_finite().all()
    assert with_number(base, change, None, 0)["image_id"].n_unique() == 400
