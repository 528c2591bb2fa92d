"""The study's numbers: ACC and AUC of each variant, Δ of equation 7 and the AUC of the mean map value alone.

Every number is a row of the schema RESULT: what, measure, subset, value, low, high. Subsets come in the paper's order,
then their means over the unseen ones and over all.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl

from sare_core.errors import StageError
from sare_core.evaluation.metrics import THRESHOLD, paper_order
from sare_core.study.bootstrap import (
    RESAMPLES,
    WITHOUT_COPIES,
    add_means,
    auc,
    draw_images,
    draw_seeds,
    estimate,
    mean_gap,
)
from sare_core.study.variants import FULL

RESULT = pl.Schema(
    {
        "what": pl.String,
        "measure": pl.String,
        "subset": pl.String,
        "value": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
    }
)
MARGIN = 0.01  # of AUC: what is smaller is no gain
# What Δ is taken of: sums of the variants' errors of one image. "net" is less the autoencoder's own error.
QUANTITIES = {
    "captioned": {FULL: 1},
    "uncaptioned": {"uncaptioned": 1},
    "wrong caption": {"wrong": 1},
    "autoencoder alone": {"vae": 1},
    "captioned, net": {FULL: 1, "vae": -1},
    "uncaptioned, net": {"uncaptioned": 1, "vae": -1},
    "wrong caption, net": {"wrong": 1, "vae": -1},
    "captioned − uncaptioned": {FULL: 1, "uncaptioned": -1},  # the caption's share
    "captioned − wrong caption": {FULL: 1, "wrong": -1},
}


def compare_detectors(
    predictions: pl.DataFrame, trained_on: Sequence[str] | None, seed: int, resamples: int = RESAMPLES
) -> pl.DataFrame:
    """Per variant ACC at 0.5 and AUC, means over training seeds; and `sare − variant` of both. In [0, 1].

    predictions: PREDICTION_SCHEMA with variant and seed. Images and seeds are drawn again together for all variants.
    Only images that every variant and seed has predicted are counted.
    """
    names, seeds = predictions["variant"].unique(maintain_order=True).to_list(), predictions["seed"].n_unique()
    random = np.random.default_rng(seed)
    weights = draw_seeds(seeds, random, resamples)
    replicates: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    for subset, frame in _subsets(predictions.with_columns(run=pl.format("{} {}", "variant", "seed"))):
        labels, logits = wide_values(frame, "run", "logit")
        _, scores = wide_values(frame, "run", "score")
        counts = draw_images(labels, random, resamples)
        correct = ((scores > THRESHOLD) == (labels == 1)).astype(np.float64)
        accuracy = (correct @ counts.T / len(labels)).reshape(len(names), seeds, -1)
        areas = np.stack([auc(row, labels, counts) for row in logits]).reshape(len(names), seeds, -1)
        for measure, values in (("acc", accuracy), ("auc", areas)):
            for name, of_seeds in zip(names, values, strict=True):
                replicates.setdefault((name, measure), {})[subset] = np.einsum("sr,rs->r", of_seeds, weights)
    rows = []
    for (name, measure), by_subset in replicates.items():
        rows += _estimates(name, measure, add_means(by_subset, trained_on))
        if name != FULL:
            full = replicates[FULL, measure]
            less = {subset: full[subset] - values for subset, values in by_subset.items()}
            rows += _estimates(f"{FULL} − {name}", measure, add_means(less, trained_on))
    return pl.DataFrame(rows, schema=RESULT, orient="row")


def compare_errors(
    errors: pl.DataFrame, trained_on: Sequence[str] | None, seed: int, resamples: int = RESAMPLES
) -> pl.DataFrame:
    """Δ = mean over real − mean over fake of each of QUANTITIES, and how well the quantity alone tells fakes (AUC).

    errors: ERRORS with variant. Measures: `delta error` in 8-bit levels, `delta lpips`, and `auc error`, `auc lpips`;
    an AUC above 0.5 is in the paper's direction: fakes are nearer to their reconstruction. Of the variants that are
    there; LPIPS where all images have it.
    """
    random = np.random.default_rng(seed)
    measures = ["error", "lpips"] if errors["lpips"].null_count() == 0 else ["error"]
    names = errors["variant"].unique(maintain_order=True).to_list()
    quantities = {name: terms for name, terms in QUANTITIES.items() if terms.keys() <= set(names)}
    replicates: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    for subset, frame in _subsets(errors):
        for number, measure in enumerate(measures):
            labels, values = wide_values(frame, "variant", measure)
            if number == 0:
                counts = draw_images(labels, random, resamples)
            for name, terms in quantities.items():
                of_images = sum(sign * values[names.index(variant)] for variant, sign in terms.items())
                replicates.setdefault((name, f"delta {measure}"), {})[subset] = mean_gap(of_images, labels, counts)
                replicates.setdefault((name, f"auc {measure}"), {})[subset] = auc(-of_images, labels, counts)
    rows = []
    for (name, measure), by_subset in replicates.items():
        rows += _estimates(name, measure, add_means(by_subset, trained_on))
    return pl.DataFrame(rows, schema=RESULT, orient="row")


def gains(results: pl.DataFrame) -> list[str]:
    """What the AUC of `sare − variant` says of each variant, on the mean over unseen generators, in a sentence.

    MARGIN is what was set before as no gain: an interval inside it says that there is none that matters.
    """
    sentences = []
    chosen = [name for name in (WITHOUT_COPIES, "mean of unseen") if name in results["subset"]]
    rows = results.filter(pl.col("measure") == "auc", pl.col("what").str.starts_with(f"{FULL} − "))
    for row in rows.filter(pl.col("subset").is_in(chosen[:1])).iter_rows(named=True):
        low, high = row["low"], row["high"]
        reading = (
            "a gain" if low > 0 else "a loss" if high < 0 else "undecided: the interval holds zero, and more than that"
        )
        if low > -MARGIN and high < MARGIN:
            reading = f"no gain: within ± {100 * MARGIN:g} points"
        sentences.append(f"{row['what']}, {row['subset']}: {reading}.")
    return sentences


def _subsets(frame: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    """The rows of each subset, in the paper's order. Raises StageError: a subset without real or without fake."""
    groups = {str(name): group for (name,), group in frame.drop_nulls("label").group_by("subset")}
    for name, group in groups.items():
        if group["label"].n_unique() < 2:
            raise StageError(f"subset {name} of the test split has only one class: it cannot be compared.")
    return [(name, groups[name]) for name in paper_order(groups)]


def wide_values(frame: pl.DataFrame, by: str, value: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n,), and values (runs, n) with the runs in order of appearance; images that every run has."""
    names = frame[by].unique(maintain_order=True).to_list()
    wide = frame.pivot(by, index=["image_id", "label"], values=value).drop_nulls(names).sort("image_id")
    return wide["label"].to_numpy(), wide.select(names).to_numpy().T


def _estimates(what: str, measure: str, by_subset: dict[str, np.ndarray]) -> list[tuple[str | float, ...]]:
    return [(what, measure, subset, *estimate(replicates)) for subset, replicates in by_subset.items()]
