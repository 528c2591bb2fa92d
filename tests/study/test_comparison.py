import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from sare_core.errors import StageError
from sare_core.evaluation.metrics import WITHOUT_COPIES, subset_metrics
from sare_core.study.comparison import RESULT, compare_detectors, compare_errors, gains

VARIANTS, SUBSETS = ("sare", "uncaptioned", "wrong", "vae"), ("sdv1.4", "adm", "biggan")


def predictions(seeds=3, n=60, gain=1.0):
    """`sare` is `uncaptioned` with `gain` more for fakes; images differ far more than that."""
    random = np.random.default_rng(0)
    rows = []
    for subset in SUBSETS:
        for i in range(n):
            easy = random.normal(scale=2)
            for variant in ("sare", "uncaptioned"):
                for seed in range(seeds):
                    logit = easy + i % 2 * (1 + gain * (variant == "sare")) + random.normal(scale=0.1)
                    rows.append((variant, seed, f"{subset}{i}", subset, i % 2, logit, 1 / (1 + np.exp(-logit))))
    names = ["variant", "seed", "image_id", "subset", "label", "logit", "score"]
    return pl.DataFrame(rows, schema=names, orient="row")


def value(results, what, measure, subset):
    (row,) = results.filter(pl.col("what") == what, pl.col("measure") == measure, pl.col("subset") == subset).iter_rows(
        named=True
    )
    return row["value"], row["low"], row["high"]


def test_values_are_the_means_over_seeds_of_the_metrics_of_evaluate():
    rows = predictions()
    results = compare_detectors(rows, ("sdv1.4",), 0, resamples=10)
    for variant in ("sare", "uncaptioned"):
        tables = [subset_metrics(rows.filter(pl.col("variant") == variant, pl.col("seed") == s)) for s in range(3)]
        for measure in ("acc", "auc"):
            for subset in (*SUBSETS, "mean"):
                of_seeds = [t.filter(pl.col("subset") == subset)[measure].item() for t in tables]
                assert value(results, variant, measure, subset)[0] == pytest.approx(np.mean(of_seeds))
            unseen = np.mean([value(results, variant, measure, s)[0] for s in ("adm", "biggan")])
            assert value(results, variant, measure, "mean of unseen")[0] == pytest.approx(unseen)


def test_a_difference_is_paired_and_so_far_narrower_than_what_it_is_between():
    results = compare_detectors(predictions(), None, 0, resamples=500)
    full, low, high = value(results, "sare", "auc", "adm")
    less, low_less, high_less = value(results, "sare − uncaptioned", "auc", "adm")
    assert less == pytest.approx(full - value(results, "uncaptioned", "auc", "adm")[0])
    assert 0 < low_less < less < high_less
    assert high_less - low_less < 0.7 * (high - low)


def test_equal_variants_do_not_differ_and_seeds_that_do_widen_the_interval():
    rows = predictions(gain=0).with_columns(logit=pl.col("logit").first().over("image_id"))
    results = compare_detectors(rows, None, 0, resamples=50)
    assert value(results, "sare − uncaptioned", "auc", "mean") == (0, 0, 0)

    constant = rows.with_columns(logit=pl.col("label").cast(pl.Float64))  # no spread over images
    assert value(compare_detectors(constant, None, 0, 200), "sare", "auc", "adm") == (1, 1, 1)
    turned = constant.with_columns(logit=pl.when(pl.col("seed") == 0).then(-pl.col("logit")).otherwise("logit"))
    middle, low, high = value(compare_detectors(turned, None, 0, 200), "sare", "auc", "adm")
    assert (middle, low, high) == (pytest.approx(2 / 3), 0, 1)


def test_an_image_that_one_run_lacks_counts_for_none():
    rows = predictions()
    lacking = rows.filter(~((pl.col("image_id") == "adm3") & (pl.col("variant") == "sare") & (pl.col("seed") == 1)))
    without = rows.filter(pl.col("image_id") != "adm3")
    assert compare_detectors(lacking, None, 0, 10).equals(compare_detectors(without, None, 0, 10))


def errors(lpips=True):
    random = np.random.default_rng(1)
    rows = []
    for subset in SUBSETS:
        for i in range(80):
            own = random.normal(20, 5)
            gaps = {"sare": 4, "uncaptioned": 1, "wrong": 0.5, "vae": 0.5}
            for variant in VARIANTS:
                error = own + (1 - i % 2) * gaps[variant] + random.normal(scale=0.1)
                rows.append((variant, f"{subset}{i}", subset, i % 2, error, error / 100 if lpips else None))
    names = {"variant": pl.String, "image_id": pl.String, "subset": pl.String, "label": pl.Int8, "error": pl.Float64}
    return pl.DataFrame(rows, schema=names | {"lpips": pl.Float64}, orient="row")


def test_delta_is_real_less_fake_and_its_shares_are_paired():
    rows = errors()
    results = compare_errors(rows, ("sdv1.4",), 0, resamples=300)
    for subset in SUBSETS:
        for what, variant in (("captioned", "sare"), ("uncaptioned", "uncaptioned"), ("autoencoder alone", "vae")):
            group = rows.filter(pl.col("variant") == variant, pl.col("subset") == subset)
            means = dict(group.group_by("label").agg(pl.col("error").mean()).iter_rows())
            assert value(results, what, "delta error", subset)[0] == pytest.approx(means[0] - means[1])
            assert value(results, what, "delta lpips", subset)[0] == pytest.approx((means[0] - means[1]) / 100)
            alone = roc_auc_score(group["label"], -group["error"])
            assert value(results, what, "auc error", subset)[0] == pytest.approx(alone)
    for what, expected in {"captioned − uncaptioned": 3, "captioned, net": 3.5, "uncaptioned, net": 0.5}.items():
        gap, low, high = value(results, what, "delta error", "mean of unseen")
        assert gap == pytest.approx(expected, abs=0.1)
        assert low < gap < high < low + 0.2, "the images' own spread, 5 levels, drops out"


def test_without_lpips_there_are_no_rows_of_it():
    assert set(compare_errors(errors(lpips=False), None, 0, 5)["measure"]) == {"delta error", "auc error"}


def test_a_subset_of_one_class_is_refused():
    with pytest.raises(StageError, match="adm of the test split has only one class"):
        compare_errors(errors().filter((pl.col("subset") != "adm") | (pl.col("label") == 1)), None, 0, 5)


@pytest.mark.parametrize(
    ("low", "high", "reading"),
    [
        (0.002, 0.03, "a gain"),
        (-0.03, -0.002, "a loss"),
        (-0.004, 0.006, "no gain: within ± 1 points"),
        (0.001, 0.006, "no gain: within ± 1 points"),
        (-0.004, 0.02, "undecided"),
    ],
)
def test_what_is_within_the_margin_is_no_gain(low: float, high: float, reading: str) -> None:
    row = ("sare − zero", "auc", WITHOUT_COPIES, (low + high) / 2, low, high)
    results = pl.DataFrame([row, ("sare", "auc", WITHOUT_COPIES, 0.8, 0.7, 0.9)], schema=RESULT, orient="row")
    (sentence,) = gains(results)
    assert sentence.startswith(f"sare − zero, {WITHOUT_COPIES}: {reading}")


def test_what_only_the_strata_tell_is_not_told_within_them():
    rows = predictions(gain=1.0)
    score = rows.group_by("image_id", "subset").agg(pl.col("label").first(), score=pl.col("logit").first())
    told = rows.filter(pl.col("variant") == "sare").join(score.select("image_id", by="score"), on="image_id")
    told = told.with_columns(variant=pl.lit("score"), logit=pl.col("by")).select(rows.columns)
    both = pl.concat([rows, told])
    strata = score.select("image_id", "score")
    results = compare_detectors(both, None, 0, resamples=20, strata_by=strata)
    assert value(results, "score", "auc", "adm")[0] > 0.6
    own = score.filter(pl.col("subset") == "adm")
    labels, scores = own["label"].to_numpy(), own["score"].to_numpy()
    ranks = scores.argsort().argsort() * 10 // len(scores)
    wins, pairs = 0.0, 0
    for tenth in range(10):
        own = ranks == tenth
        if len(set(labels[own])) == 2:
            of = (labels[own] == 0).sum() * (labels[own] == 1).sum()
            wins, pairs = wins + of * roc_auc_score(labels[own], scores[own]), pairs + of
    assert value(results, "score", "auc within", "adm")[0] == pytest.approx(wins / pairs)


def test_images_without_a_score_lie_in_no_stratum():
    rows = predictions()
    strata = rows.unique("image_id").select("image_id", score="logit").filter(pl.col("image_id").str.starts_with("adm"))
    some = strata.sort("image_id").head(30)
    kept = rows.join(some, on="image_id", how="semi")
    whole = compare_detectors(rows.filter(pl.col("subset") == "adm"), None, 0, 10, strata_by=some)
    part = compare_detectors(kept, None, 0, 10, strata_by=some)
    assert value(whole, "sare", "auc within", "adm")[0] == value(part, "sare", "auc within", "adm")[0]


def test_errors_within_strata_and_of_further_variants():
    random = np.random.default_rng(0)
    rows = [
        (variant, f"{i}", "adm", i % 2, base - 2 * (i % 2) * moved, None)
        for i in range(100)
        for base in [random.normal(30, 1)]
        for variant, moved in {"sare": 1, "uncaptioned": 0, "oracle": 2, "draws": 1, "draws, uncaptioned": 0}.items()
    ]
    names = {"variant": pl.String, "image_id": pl.String, "subset": pl.String, "label": pl.Int64, "error": pl.Float64}
    errors = pl.DataFrame(rows, schema=names | {"lpips": pl.Float64}, orient="row")
    strata = pl.DataFrame({"image_id": [f"{i}" for i in range(100)], "score": random.normal(size=100)})
    results = compare_errors(errors, None, 0, resamples=10, strata_by=strata)
    for what, delta in {
        "captioned − uncaptioned": 2,
        "oracle caption − uncaptioned": 4,
        "captioned − uncaptioned, mean of draws": 2,
    }.items():
        assert value(results, what, "delta error", "adm")[0] == pytest.approx(delta)
        assert value(results, what, "auc error within", "adm")[0] == 1
    assert 0.3 < value(results, "uncaptioned", "auc error within", "adm")[0] < 0.7
