"""The study's numbers: ACC and AUC of each variant, Δ of equation 7 and the AUC of the mean map value alone.

Every number is a row of the schema RESULT: what, measure, subset, value, low, high. Subsets come in the paper's order,
then their means over the unseen ones and over all.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from sare_core.errors import StageError
from sare_core.evaluation.bootstrap import (
    RESAMPLES,
    Estimate,
    auc,
    draw_images,
    draw_seeds,
    estimate,
    mean_gap,
    reading,
)
from sare_core.evaluation.metrics import THRESHOLD, UNSEEN, WITHOUT_COPIES, paper_order
from sare_core.study.means import add_means
from sare_core.study.number import BASE, NUMBER, NUMBER_DRAWS
from sare_core.study.variants import DRAWS, DRAWS_UNCAPTIONED, FULL, ORACLE

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
    "oracle caption": {ORACLE: 1},
    "oracle caption − uncaptioned": {ORACLE: 1, "uncaptioned": -1},
    "captioned, mean of draws": {DRAWS: 1},
    "captioned − uncaptioned, mean of draws": {DRAWS: 1, DRAWS_UNCAPTIONED: -1},
}
STRATA = 10  # of a score that tells fakes without semantics: deciles of a subset's images
WITHIN = "within"  # suffix of a measure: AUC of pairs of one stratum alone


def compare_detectors(
    predictions: pl.DataFrame,
    trained_on: Sequence[str] | None,
    seed: int,
    resamples: int = RESAMPLES,
    strata_by: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Per variant ACC at 0.5 and AUC, means over training seeds; and `sare − variant` of both (of NUMBER: less BASE).

    In [0, 1]. predictions: PREDICTION_SCHEMA with variant and seed. Images and seeds are drawn again together for all
    variants. Only images that every variant and seed has predicted are counted. strata_by: image_id and a score, for
    the measure `auc within`: a real and a fake are compared only if their scores lie in the same tenth of their
    subset's.
    """
    names, seeds = predictions["variant"].unique(maintain_order=True).to_list(), predictions["seed"].n_unique()
    random = np.random.default_rng(seed)
    weights = draw_seeds(seeds, random, resamples)
    replicates: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    for subset, frame in _subsets(predictions.with_columns(run=pl.format("{} {}", "variant", "seed"))):
        images, labels, logits = wide_values(frame, "run", "logit")
        scores = wide_values(frame, "run", "score").values
        counts = draw_images(labels, random, resamples)
        correct = ((scores > THRESHOLD) == (labels == 1)).astype(np.float64)
        accuracy = correct @ counts.T / len(labels)
        measured = {"acc": accuracy, "auc": _areas(logits, labels, counts)}
        if strata_by is not None:
            measured[f"auc {WITHIN}"] = _areas(logits, labels, counts, _strata(images, strata_by))
        for measure, values in measured.items():
            for name, of_seeds in zip(names, values.reshape(len(names), seeds, -1), strict=True):
                replicates.setdefault((name, measure), {})[subset] = np.einsum("sr,rs->r", of_seeds, weights)
    rows = []
    for (name, measure), by_subset in replicates.items():
        rows += _estimates(name, measure, add_means(by_subset, trained_on))
        first, less = (name, BASE) if name in (NUMBER, NUMBER_DRAWS) else (FULL, name)
        if first != less:
            one, other = replicates[first, measure], replicates[less, measure]
            difference = {subset: one[subset] - other[subset] for subset in by_subset}
            rows += _estimates(f"{first} − {less}", measure, add_means(difference, trained_on))
    return pl.DataFrame(rows, schema=RESULT, orient="row")


def compare_errors(
    errors: pl.DataFrame,
    trained_on: Sequence[str] | None,
    seed: int,
    resamples: int = RESAMPLES,
    strata_by: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Δ = mean over real − mean over fake of each of QUANTITIES, and how well the quantity alone tells fakes (AUC).

    errors: ERRORS with variant. Measures: `delta error` in 8-bit levels, `delta lpips`, and `auc error`, `auc lpips`;
    an AUC above 0.5 is in the paper's direction: fakes are nearer to their reconstruction. Of the variants that are
    there; LPIPS where all images have it. strata_by: as in `compare_detectors`.
    """
    random = np.random.default_rng(seed)
    measures = ["error", "lpips"] if errors["lpips"].null_count() == 0 else ["error"]
    names = errors["variant"].unique(maintain_order=True).to_list()
    quantities = {name: terms for name, terms in QUANTITIES.items() if terms.keys() <= set(names)}
    replicates: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    for subset, frame in _subsets(errors):
        for number, measure in enumerate(measures):
            images, labels, values = wide_values(frame, "variant", measure)
            if number == 0:
                counts = draw_images(labels, random, resamples)
            strata = None if strata_by is None else _strata(images, strata_by)
            for name, terms in quantities.items():
                of_images = sum(sign * values[names.index(variant)] for variant, sign in terms.items())
                replicates.setdefault((name, f"delta {measure}"), {})[subset] = mean_gap(of_images, labels, counts)
                replicates.setdefault((name, f"auc {measure}"), {})[subset] = auc(-of_images, labels, counts)
                if strata is not None:
                    within = replicates.setdefault((name, f"auc {measure} {WITHIN}"), {})
                    within[subset] = auc(-of_images, labels, counts, strata)
    rows = []
    for (name, measure), by_subset in replicates.items():
        rows += _estimates(name, measure, add_means(by_subset, trained_on))
    return pl.DataFrame(rows, schema=RESULT, orient="row")


def gains(results: pl.DataFrame) -> list[str]:
    """What each difference of AUC says, on the mean over unseen generators, in a sentence.

    MARGIN is what was set before as no gain: an interval inside it says that there is none that matters.
    """
    sentences = []
    chosen = [name for name in (WITHOUT_COPIES, UNSEEN) if name in results["subset"]]
    rows = results.filter(pl.col("measure") == "auc", pl.col("what").str.contains(" − "))
    for row in rows.filter(pl.col("subset").is_in(chosen[:1])).iter_rows(named=True):
        difference = Estimate(row["value"], row["low"], row["high"])
        sentences.append(f"{row['what']}, {row['subset']}: {reading(difference, MARGIN)}.")
    return sentences


def _subsets(frame: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    """The rows of each subset, in the paper's order. Raises StageError: a subset without real or without fake."""
    groups = {str(name): group for (name,), group in frame.drop_nulls("label").group_by("subset")}
    for name, group in groups.items():
        if group["label"].n_unique() < 2:
            raise StageError(f"subset {name} of the test split has only one class: it cannot be compared.")
    return [(name, groups[name]) for name in paper_order(groups)]


class Wide(NamedTuple):
    """Images that every run has: their ids and labels, (n,), and values (runs, n), the runs in order of appearance."""

    images: pl.Series
    labels: np.ndarray
    values: np.ndarray


def wide_values(frame: pl.DataFrame, by: str, value: str) -> Wide:
    """The column `value` of the runs that the column `by` names, side by side, in order of image_id."""
    names = frame[by].unique(maintain_order=True).to_list()
    wide = frame.pivot(by, index=["image_id", "label"], values=value).drop_nulls(names).sort("image_id")
    return Wide(wide["image_id"], wide["label"].to_numpy(), wide.select(names).to_numpy().T)


def _areas(logits: np.ndarray, labels: np.ndarray, counts: np.ndarray, strata: np.ndarray | None = None) -> np.ndarray:
    return np.stack([auc(row, labels, counts, strata) for row in logits])


def _strata(images: pl.Series, by: pl.DataFrame) -> np.ndarray:
    """The tenth of these images' scores that each lies in, 0 to STRATA − 1; −1: it has no score."""
    scores = images.to_frame("image_id").join(by, on="image_id", how="left", maintain_order="left")["score"].to_numpy()
    ends = np.nanquantile(scores, np.linspace(0, 1, STRATA + 1)[1:-1])
    return np.where(np.isnan(scores), -1, np.searchsorted(ends, scores, side="right"))


def _estimates(what: str, measure: str, by_subset: dict[str, np.ndarray]) -> list[tuple[str | float, ...]]:
    return [(what, measure, subset, *estimate(replicates)) for subset, replicates in by_subset.items()]
