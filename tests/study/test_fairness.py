import numpy as np
import polars as pl
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from sare_core.errors import StageError
from sare_core.evaluation.statistics import held_out_scores, pixel_statistics
from sare_core.study.fairness import area_by_subset, transfer


def picture(random, edit=lambda pixels: pixels, side=32):
    coarse = Image.fromarray(random.integers(30, 220, (5, 5), dtype=np.uint8)).resize((side, side), 3)
    pixels = np.asarray(coarse).astype(float) + random.normal(scale=3, size=(side, side))
    return Image.fromarray(edit(pixels).clip(0, 255).round().astype(np.uint8)).convert("RGB")


def checker(pixels):
    return pixels + 3 * (np.indices(pixels.shape).sum(axis=0) % 2)


FINGERPRINTS = {
    "zeros": lambda pixels: np.where(pixels < 60, 0, pixels),
    "levels": lambda pixels: np.round(pixels / 12) * 12,
    "gradient": lambda pixels: (pixels + np.roll(pixels, 1, 0)) / 2,
    "spectrum": checker,
}


@pytest.mark.parametrize("edit", FINGERPRINTS.values(), ids=FINGERPRINTS)
def test_what_gives_a_fake_away_in_its_pixels_is_found(edit):
    random = np.random.default_rng(0)
    images = [picture(random, edit if n % 2 else lambda pixels: pixels) for n in range(300)]
    labels = np.arange(300) % 2
    assert roc_auc_score(labels, held_out_scores(np.stack([*map(pixel_statistics, images)]), labels, 0)) > 0.95


def test_images_of_one_kind_are_not_told_apart():
    random = np.random.default_rng(0)
    features, labels = np.stack([pixel_statistics(picture(random)) for _ in range(400)]), np.arange(400) % 2
    assert roc_auc_score(labels, held_out_scores(features, labels, 0)) == pytest.approx(0.5, abs=0.1)


def test_statistics_are_of_any_size_and_finite():
    random = np.random.default_rng(0)
    sizes = [picture(random, side=side) for side in (2, 9, 32, 200)] + [Image.new("RGB", (8, 8))]
    features = [pixel_statistics(image) for image in sizes]
    assert {vector.shape for vector in features} == {features[0].shape}
    assert all(np.isfinite(vector).all() for vector in features)


def test_too_few_images_are_refused():
    with pytest.raises(StageError, match="fewer than 5"):
        held_out_scores(np.zeros((8, 3)), np.arange(8) % 2, 0)


def embedded():
    """Two generators with the same trace, one with another, and one without train images."""
    random = np.random.default_rng(0)
    traces = {"sdv1.4": 0, "sdv1.5": 0, "adm": 1, "biggan": 0}
    rows, embeddings = [], []
    for subset, axis in traces.items():
        for n in range(300):
            split = "test" if n < 100 or subset == "biggan" else "train"
            rows.append((subset, split, n % 2))
            embeddings.append(random.normal(size=4) + 2 * (n % 2) * np.eye(4)[axis])
    frame = pl.DataFrame(rows, schema={"subset": pl.String, "split": pl.String, "label": pl.Int8}, orient="row")
    return frame, np.array(embeddings)


def test_transfer_is_high_between_generators_with_one_trace_and_none_between_others():
    results = transfer(*embedded(), seed=0, resamples=20)
    cells = {(row["trained_on"], row["subset"]): row["value"] for row in results.iter_rows(named=True)}
    assert {source for source, _ in cells} == {"sdv1.4", "sdv1.5", "adm"}
    assert min(cells["sdv1.4", "sdv1.5"], cells["sdv1.5", "biggan"], cells["adm", "adm"]) > 0.85
    assert cells["sdv1.4", "adm"] == pytest.approx(0.5, abs=0.15)
    unseen = np.mean([cells["sdv1.4", other] for other in ("sdv1.5", "adm", "biggan")])
    assert cells["sdv1.4", "mean of unseen"] == pytest.approx(unseen)


def test_areas_are_those_of_sklearn_and_subsets_of_one_class_are_left_out():
    random = np.random.default_rng(0)
    scores = pl.DataFrame({"subset": ["a"] * 50 + ["b"] * 10, "label": [0, 1] * 25 + [1] * 10})
    scores = scores.with_columns(logit=pl.Series(random.normal(size=60)))
    results = area_by_subset(scores, 0, 20)
    own = scores.filter(pl.col("subset") == "a")
    assert results["subset"].to_list() == ["a", "mean"]
    assert results["value"][0] == pytest.approx(roc_auc_score(own["label"], own["logit"]))
