import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from sare_core.evaluation.metrics import PREDICTION_SCHEMA, subset_metrics
from sare_core.evaluation.trivial import trivial_predictions, trivial_warnings

COLUMNS = {
    "image_id": pl.String,
    "subset": pl.String,
    "label": pl.Int8,
    "format": pl.String,
    "width": pl.Int32,
    "height": pl.Int32,
    "bytes": pl.Int64,
    "error": pl.String,
}


def index(n: int, seed: int, fake_format: str = "PNG", fake_side: int | None = 512, ratio: float = 1.0) -> pl.DataFrame:
    """n reals, JPEGs of many sizes, and n fakes; `fake_side` None draws the fakes' sizes as the reals' are drawn.
    ratio: bytes per pixel of fakes over those of reals."""
    random = np.random.default_rng(seed)
    rows = []
    for i in range(2 * n):
        label = i % 2
        width, height = random.integers(200, 800, 2).tolist()
        if label and fake_side:
            width = height = fake_side
        size = int(width * height * random.uniform(0.2, 0.4) * (ratio if label else 1))
        rows.append((f"{seed}-{i}", "sdv1.4", label, fake_format if label else "JPEG", width, height, size, None))
    return pl.DataFrame(rows, schema=COLUMNS, orient="row")


def auc(predictions: pl.DataFrame) -> float:
    return roc_auc_score(predictions["label"].to_numpy(), predictions["logit"].to_numpy())


@pytest.mark.parametrize("n", [12, 48, 500])
@pytest.mark.parametrize(
    "leak",
    [
        {"fake_side": None},  # format only
        {"fake_format": "JPEG"},  # size and aspect only
        {"fake_format": "JPEG", "fake_side": None, "ratio": 20.0},  # bytes only
    ],
    ids=["format", "size", "bytes"],
)
def test_finds_each_leak_from_few_and_from_many_images(leak, n):
    found = trivial_predictions(index(n, 1, **leak), index(100, 2, **leak)).predictions
    assert found.schema == PREDICTION_SCHEMA
    assert auc(found) > 0.9
    assert ((found["score"] > 0.5) == (found["label"] == 1)).mean() > 0.85


def test_aspect_alone_is_seen():
    def wide(table: pl.DataFrame) -> pl.DataFrame:  # 16:9 fakes, reals of any shape, all of 100 kB
        height = pl.when(pl.col("label") == 1).then(pl.col("width") * 9 // 16).otherwise("height")
        return table.with_columns(height=height, bytes=pl.lit(100_000, pl.Int64))

    leak = {"fake_format": "JPEG", "fake_side": None}
    assert auc(trivial_predictions(wide(index(48, 1, **leak)), wide(index(200, 2, **leak))).predictions) > 0.99


@pytest.mark.parametrize("n", [12, 48, 500])
def test_stays_near_chance_without_a_leak(n):
    leak = {"fake_format": "JPEG", "fake_side": None}
    assert abs(auc(trivial_predictions(index(n, 1, **leak), index(400, 2, **leak)).predictions) - 0.5) < 0.1


def test_sees_nothing_but_format_size_and_bytes():
    train, test = index(48, 1), index(20, 2)
    blind = test.with_columns(label=pl.lit(None, pl.Int8), image_id=pl.lit("x"), subset=pl.lit("y"))
    want, got = trivial_predictions(train, test).predictions, trivial_predictions(train, blind).predictions
    assert got["logit"].equals(want["logit"])


def test_keeps_order_and_unlabelled_images_and_leaves_errors_out():
    test = index(10, 2).with_columns(
        label=pl.when(pl.int_range(pl.len()) == 3).then(None).otherwise("label"),
        error=pl.when(pl.int_range(pl.len()) == 5).then(pl.lit("is empty")),
    )
    found = trivial_predictions(index(48, 1), test).predictions
    assert found["image_id"].to_list() == test.filter(pl.col("error").is_null())["image_id"].to_list()
    assert found["label"][3] is None
    assert found["logit"].is_finite().all()
    np.testing.assert_allclose(found["score"], 1 / (1 + np.exp(-found["logit"].to_numpy())), rtol=1e-5)


def test_error_rows_and_unlabelled_rows_are_not_learnt_from():
    train, test = index(48, 1), index(20, 2)
    noise = index(48, 3)
    bad = noise.with_columns(label=1 - pl.col("label"), error=pl.lit("is empty"))
    unlabelled = noise.with_columns(label=pl.lit(None, pl.Int8))
    got = trivial_predictions(pl.concat([train, bad, unlabelled]), test).predictions
    assert got.equals(trivial_predictions(train, test).predictions)


def test_same_rows_same_numbers_and_formats_unseen_in_training():
    train, test = index(48, 1), index(20, 2, fake_format="WEBP")
    first, second = (trivial_predictions(train, test).predictions for _ in range(2))
    assert first.equals(second)
    assert first["logit"].is_finite().all()


@pytest.mark.parametrize("n", [1, 2])
def test_tiny_training_sets_do_not_fail(n):
    assert len(trivial_predictions(index(n, 1), index(3, 2)).predictions) == 6


def test_an_empty_test_split_gives_no_rows():
    found = trivial_predictions(index(5, 1), index(5, 2).clear()).predictions
    assert len(found) == 0 and found.schema == PREDICTION_SCHEMA


@pytest.mark.parametrize(
    ("train", "reason"),
    [
        (index(5, 1).filter(pl.col("label") == 0), "one class only"),
        (index(5, 1).with_columns(label=pl.lit(None, pl.Int8)), "no labelled images"),
        (index(5, 1).clear(), "no labelled images"),
    ],
)
def test_says_why_it_cannot_be_had(train, reason):
    found = trivial_predictions(train, index(5, 2))
    assert found.predictions is None
    assert reason in found.reason


def test_warns_where_the_files_give_the_class_away():
    metrics = subset_metrics(trivial_predictions(index(48, 1), index(100, 2)).predictions)
    assert trivial_warnings(metrics) == [
        "the trivial detector (format, size, bytes) reaches 100.0 % ACC and 100.0 % AUC on sdv1.4: "
        "the files give the class away, a detector's number here is not about generation"
    ]


@pytest.mark.parametrize(
    ("acc", "auc", "n_real", "says"),
    [
        (0.6, 0.6, 50, []),  # it must beat 60 %
        (0.5, 0.61, 50, ["61.0 % AUC on"]),
        (0.61, 0.5, 50, ["61.0 % ACC on"]),
        (0.8, 0.5, 20, []),  # 80 of 100 are fake: saying "fake" always gives as much
        (1.0, None, 0, []),  # one class only
    ],
)
def test_warns_above_60_percent_only(acc, auc, n_real, says):
    metrics = subset_metrics(index(1, 1).select("image_id", "subset", "label", logit=0.0, score=0.5))
    row = metrics.with_columns(acc=acc, auc=pl.lit(auc, pl.Float64), n=100, n_real=n_real, n_fake=100 - n_real)
    warnings = trivial_warnings(row)
    assert len(warnings) == len(says)
    assert all(text in warning for text, warning in zip(says, warnings, strict=True))
