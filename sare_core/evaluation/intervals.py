"""Every metric with its 95 % interval: over images, over training seeds where there are several, and in means over
generators.

A generator's interval says how far other images of it would move the number; that of a mean, how far other generators
would. It does not know other photographs, nor another training of the same seed.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from sare_core.evaluation.bootstrap import auc, blocks_by_name, draw_generators, draw_seeds, estimate, mean
from sare_core.evaluation.metrics import (
    CALIBRATION_BINS,
    FALSE_ALARMS,
    METRICS,
    NEAR_COPIES,
    THRESHOLD,
    calibration_gaps,
    costs_of,
    mean_groups,
    paper_order,
    pool_shared_reals,
    subset_metrics,
    with_worst,
)


class Run(NamedTuple):
    """Predictions of one trained detector, as `subset_metrics` takes them, and the threshold of its held-out images."""

    predictions: pl.DataFrame
    threshold: float | None = None


BySubset = dict[str, np.ndarray]  # replicates, (1 + RESAMPLES,), the sample itself first


def measure_runs(
    runs: Sequence[Run],
    trained: Collection[str] = (),
    near_copies: Collection[str] = NEAR_COPIES,
    names: Collection[str] = tuple(METRICS),
) -> pl.DataFrame:
    """`subset_metrics`, in means over the runs (training seeds of one detector), with <metric>_low and <metric>_high.

    names: the metrics that get intervals.

    "worst" is of the generators' means over the runs. It has no interval: the least of several resampled numbers lies
    below the least of the numbers.
    """
    tables = [subset_metrics(run.predictions, run.threshold, trained, near_copies) for run in runs]
    table, numbers = tables[0], [*METRICS, "matched_pairs"]
    if len(tables) > 1:
        means = {n: pl.mean_horizontal(*(other[n] for other in tables), ignore_nulls=False) for n in numbers}
        table = with_worst(table.with_columns(**means))
    ends: dict[str, list[float | None]] = {}
    for name, by_subset in replicates(runs, names).items():
        found = {subset: estimate(values) for subset, values in with_means(by_subset, trained, near_copies).items()}
        for end in ("low", "high"):
            values = [getattr(found[subset], end) if subset in found else None for subset in table["subset"]]
            ends[f"{name}_{end}"] = values
    return table.with_columns(pl.Series(name, values, pl.Float64).fill_nan(None) for name, values in ends.items())


def replicates(runs: Sequence[Run], names: Collection[str]) -> dict[str, BySubset]:
    """Each of these METRICS by subset: of each resample of the images, the mean over resampled runs."""
    weights = draw_seeds(len(runs), np.random.default_rng([len(runs), 1]))  # not as `draw_generators` draws as many
    of_runs = [_of_run(run, names) for run in runs]
    return {
        name: {
            subset: np.einsum("sr,rs->r", np.stack([one[name][subset] for one in of_runs]), weights)
            for subset in of_runs[0][name]
            if all(subset in one[name] for one in of_runs)
        }
        for name in names
    }


def with_means(by_subset: BySubset, trained: Collection[str], near_copies: Collection[str]) -> BySubset:
    """The subsets' replicates and those of their means (`mean_groups`), which draw the generators again too."""
    means = {}
    for mean_name, names in mean_groups(by_subset, trained, near_copies).items():
        if of := [by_subset[name] for name in names if np.isfinite(by_subset[name][0])]:
            means[mean_name] = draw_generators(of)
    return by_subset | means


def differences(
    ours: Sequence[Run],
    theirs: Sequence[Run],
    metrics: Sequence[str],
    trained: Collection[str],
    near_copies: Collection[str] = NEAR_COPIES,
) -> pl.DataFrame:
    """metric, subset, value, low, high, images: ours less theirs, paired, over the images that all runs have.

    trained: the generators that either was trained on.
    """
    keys = ["image_id", "subset"]
    common = ours[0].predictions.select(keys)
    for run in [*ours[1:], *theirs]:
        common = common.join(run.predictions.select(keys), on=keys, how="semi")
    one, other = (
        replicates([Run(run.predictions.join(common, on=keys, how="semi"), run.threshold) for run in runs], metrics)
        for runs in (ours, theirs)
    )
    rows = []
    for name in metrics:
        gaps = {subset: one[name][subset] - other[name][subset] for subset in one[name] if subset in other[name]}
        for subset, values in with_means(gaps, trained, near_copies).items() if gaps else ():
            rows.append((name, subset, *estimate(values), len(common)))
    return pl.DataFrame(rows, ["metric", "subset", "value", "low", "high", "images"], orient="row")


def _of_run(run: Run, names: Collection[str]) -> dict[str, BySubset]:
    labelled = run.predictions.drop_nulls("label").sort("subset", "label", "image_id")
    groups = pool_shared_reals(labelled)
    found: dict[str, BySubset] = {name: {} for name in names}
    for subset in paper_order(groups):
        group = groups[subset]
        parts = [resample(group, run.threshold, counts, names) for counts in blocks_by_name(group)]
        for name in parts[0]:
            found[name][subset] = np.concatenate([part[name] for part in parts])
    return found


def resample(
    group: pl.DataFrame, threshold: float | None, counts: np.ndarray, names: Collection[str] = tuple(METRICS)
) -> dict[str, np.ndarray]:
    """Those of these METRICS that are defined, of each row of counts, (R,).

    group: the labelled rows of one subset, at least one. counts: (R, n), of `blocks_by_name`. `subset_metrics` asks
    scikit-learn for the same numbers; this gives them for a thousand resamples at once.
    """
    labels, logits = group["label"].to_numpy(), group["logit"].to_numpy()
    real, fake = labels == 0, labels == 1
    right = ((group["score"].to_numpy() > THRESHOLD) == fake).astype(np.float64)
    costs = costs_of(labels, logits)
    gaps, bins = calibration_gaps(labels, logits)
    of_bins = gaps[:, None] * (bins[:, None] == np.arange(CALIBRATION_BINS))
    found = {
        "acc": mean(right, counts),
        "nll": mean(costs, counts),
        "ece": np.abs(mean(of_bins, counts.astype(np.float64))).sum(axis=1),
    }
    if threshold is not None:
        found["val_acc"] = mean(((logits > threshold) == fake).astype(np.float64), counts)
    for name, own in (("real_acc", real), ("fake_acc", fake)):
        if own.any():
            found[name] = mean(right[own], counts[:, own])
    if real.any() and fake.any():
        found["balanced_acc"] = (found["real_acc"] + found["fake_acc"]) / 2
        found["cllr"] = sum(mean(costs[own], counts[:, own]) for own in (real, fake)) / 2 / np.log(2)
        if "auc" in names:
            found["auc"] = auc(logits, labels, counts)
        if "matched_auc" in names and "stratum" in group.columns:
            found["matched_auc"] = auc(logits, labels, counts, group["stratum"].to_numpy())
        if not {"ap", "eer", "oracle_acc", *FALSE_ALARMS}.isdisjoint(names):  # the slow ones
            found |= _of_ranks(labels, logits, counts)
    return {name: values for name, values in found.items() if name in names}


def _of_ranks(labels: np.ndarray, logits: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
    order = np.argsort(-logits, kind="stable")
    falls = np.flatnonzero(np.append(np.diff(logits[order]) != 0, True))  # equal logits are called fake together
    rows = counts[:, order]
    hits, alarms = (
        np.pad(np.cumsum(rows * (labels[order] == label), axis=1)[:, falls], ((0, 0), (1, 0))) for label in (1, 0)
    )
    tpr, fpr = hits / hits[:, -1:], alarms / alarms[:, -1:]
    called = hits + alarms
    precision = np.divide(hits, called, out=np.zeros_like(tpr), where=called > 0)
    nearest = np.abs(1 - tpr - fpr).argmin(axis=1)[:, None]
    return {
        "ap": (np.diff(tpr, axis=1) * precision[:, 1:]).sum(axis=1),
        "eer": np.take_along_axis(1 - tpr + fpr, nearest, axis=1)[:, 0] / 2,
        "oracle_acc": (hits + alarms[:, -1:] - alarms).max(axis=1) / len(labels),
        **{name: np.where(fpr <= most, tpr, 0).max(axis=1) for name, most in FALSE_ALARMS.items()},
    }
