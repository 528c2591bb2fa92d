"""The numbers behind the report's sentences and figures, as frames: the very ones that its CSV files hold."""

from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

import numpy as np
import polars as pl

from sare_core.evaluation.bootstrap import Estimate, auc, draw_by_name, estimate, mean, over_draws
from sare_core.evaluation.metrics import paper_order, pool_shared_reals

CLASSES = {0: "real", 1: "fake"}
BINS = 25
GAIN = "gain"  # what a shift calls the difference of two variants


def mean_auc(predictions: pl.DataFrame, subsets: list[str]) -> Estimate | None:
    """The plain mean of AUC over those of `subsets` that have real and fake; None where none has."""
    return _mean(_areas(predictions, "logit", subsets))


def _areas(predictions: pl.DataFrame, column: str, subsets: list[str]) -> list[np.ndarray]:
    return [
        over_draws(group, partial(auc, group[column].to_numpy(), group["label"].to_numpy()))
        for group in _by_subset(predictions, subsets).values()
        if group["label"].n_unique() == 2
    ]


def auc_gain(predictions: pl.DataFrame, control: pl.DataFrame, subsets: list[str]) -> Estimate | None:
    """The mean AUC over `subsets` less that of `control`, paired: both see the same images in every resample.

    Images that one of the two lacks are passed over; None where no subset has real and fake.
    """
    keys = ["image_id", "subset"]
    both = predictions.join(control.select(*keys, other="logit"), on=keys, maintain_order="left")
    ours, theirs = (_areas(both, column, subsets) for column in ("logit", "other"))
    return _mean([one - other for one, other in zip(ours, theirs, strict=True)])


def mean_acc(predictions: pl.DataFrame, subsets: list[str], threshold: float) -> Estimate | None:
    """The plain mean of accuracy over `subsets`; None where no image is labelled."""
    measured = []
    for group in _by_subset(predictions, subsets).values():
        right = ((group["score"] > threshold) == (group["label"] == 1)).cast(pl.Float64).to_numpy()
        measured.append(over_draws(group, partial(mean, right)))
    return _mean(measured)


def _mean(measured: list[np.ndarray]) -> Estimate | None:
    """Of the replicates of some subsets; in [0, 1], the interval over images."""
    return estimate(np.mean(measured, axis=0)) if measured else None


class Shift(NamedTuple):
    """Figure 4. means: captions, subset, class, n, mean, low, high. gaps: captions, subset, delta, low, high.

    captions is the name of a variant, as "with" or "without"; where there are two, in `gaps` also GAIN: Δ of the
    first less that of the second, paired by image.
    """

    measure: str  # the column that was averaged: lpips or sare
    means: pl.DataFrame
    gaps: pl.DataFrame


def shift_measure(variants: Iterable[pl.DataFrame]) -> str:
    """Which column of MEASURES is the shift: lpips as in the paper, or sare where one of the variants lacks that."""
    return "sare" if any(table["lpips"].null_count() for table in variants) else "lpips"


def semantic_shift(variants: dict[str, pl.DataFrame]) -> Shift:
    """Mean shift of real and of fake per subset, and Δ = real − fake (equation 7), with 95 % intervals.

    variants: MEASURES of the same test images, as "with" captions and "without"; images that one of them lacks are
    passed over.
    """
    first, *others = variants
    measure = shift_measure(variants.values())
    column = {kind: f"of {kind}" for kind in variants}  # a variant may be called as a column is
    both = variants[first].select("image_id", "subset", "label", pl.col(measure).alias(column[first]))
    for kind in others:
        other = variants[kind].select("image_id", "subset", pl.col(measure).alias(column[kind]))
        both = both.join(other, on=["image_id", "subset"], maintain_order="left")
    means, gaps = [], []
    for subset, group in _by_subset(both).items():
        counts, drawn = draw_by_name(group), {}
        for label, name in CLASSES.items():
            mine = (group["label"] == label).to_numpy()
            for kind in variants if mine.any() else []:
                drawn[kind, label] = mean(group[column[kind]].to_numpy()[mine], counts[:, mine])
                means.append((kind, subset, name, int(mine.sum()), *estimate(drawn[kind, label])))
        if group["label"].n_unique() == 2:
            delta = {kind: drawn[kind, 0] - drawn[kind, 1] for kind in variants}
            if len(others) == 1:
                delta[GAIN] = delta[first] - delta[others[0]]
            gaps += [(kind, subset, *estimate(values)) for kind, values in delta.items()]
    return Shift(
        measure,
        pl.DataFrame(means, ["captions", "subset", "class", "n", "mean", "low", "high"], orient="row"),
        pl.DataFrame(gaps, ["captions", "subset", "delta", "low", "high"], orient="row"),
    )


def histograms(images: pl.DataFrame, column: str, low: float, high: float) -> pl.DataFrame:
    """How `column` is distributed: subset, class, low, high (of a bin), n, share (of the class), median (of it).

    BINS bins of equal width in [low, high]; a value above `high` counts in the last bin.
    """
    edges = np.linspace(low, high, BINS + 1)
    rows = []
    for subset, group in _by_subset(images).items():
        for label, name in CLASSES.items():
            values = group.filter(pl.col("label") == label)[column].to_numpy().astype(float)
            if len(values):
                counts, _ = np.histogram(values.clip(low, high), edges)
                median = float(np.median(values))
                bins = zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), strict=True)
                rows += [(subset, name, a, b, n, n / len(values), median) for a, b, n in bins]
    return pl.DataFrame(rows, ["subset", "class", "low", "high", "n", "share", "median"], orient="row")


def _by_subset(images: pl.DataFrame, subsets: list[str] | None = None) -> dict[str, pl.DataFrame]:
    """The labelled images of each subset in the paper's order, shared reals pooled, sorted so that draws repeat."""
    labelled = images.drop_nulls("label").sort("subset", "label", "image_id")
    groups = pool_shared_reals(labelled)
    return {name: groups[name] for name in paper_order(groups) if subsets is None or name in subsets}
