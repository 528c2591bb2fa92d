"""Metrics of predictions: per subset, as plain means over subsets (paper 4.1), and for the worst subset.

Label 0 is real, 1 is fake, null is unknown. A prediction is a logit, above 0 for fake, and its sigmoid, the score.
"""

from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from sare_core.config.evaluation import NEAR_COPIES as _NEAR_COPIES
from sare_core.errors import SareError
from sare_core.evaluation.bootstrap import auc

# Column order of the paper's Tables 1 and 2, and of Tables 3 and 4.
GENIMAGE = ("midjourney", "sdv1.4", "sdv1.5", "adm", "glide", "wukong", "vqdm", "biggan")
FORENSYNTHS = (
    *("progan", "stylegan", "biggan", "cyclegan", "stargan", "gaugan"),
    *("crn", "imle", "sitd", "san", "deepfake"),
)
FORENSYNTHS_EXTRA = ("stylegan2", "whichfaceisreal")  # in the released test set, not in the paper's tables

NEAR_COPIES = frozenset(_NEAR_COPIES)  # unless evaluate.near_copies names others
# ADM and BigGAN are told a class, in GenImage as in the scale model: no caption can be a prompt of theirs.
CLASS_ONLY = frozenset({"adm", "biggan"})

MEAN = "mean"
UNSEEN = "mean of unseen"
WITHOUT_COPIES = "mean of unseen, no near-copies"
WORST = "worst"
SHARED_REALS = "real"  # the folder layout's subset of reals that several generators share
THRESHOLD = 0.5  # paper 4.1; a score of exactly 0.5 is real, as in DRCT's code
CALIBRATION_BINS = 15  # of equal width, as in B-Free's and most published ECEs

PREDICTION_SCHEMA = pl.Schema(
    {"image_id": pl.String, "subset": pl.String, "label": pl.Int8, "logit": pl.Float32, "score": pl.Float32}
)


class Metric(NamedTuple):
    """One metric. title: of a table's column. percent: whether tables show it in percent."""

    title: str
    meaning: str
    lower_is_better: bool = False
    percent: bool = True


# fake is positive. With one class only, those that need both are null.
METRICS = {
    "acc": Metric("ACC", "accuracy at a score of 0.5"),
    "val_acc": Metric("ACC val", "accuracy at the threshold that the held-out training images chose"),
    "balanced_acc": Metric("bal. ACC", "mean of the accuracies on real and on fake, at 0.5"),
    "real_acc": Metric("ACC real", "accuracy on real images, at 0.5"),
    "fake_acc": Metric("ACC fake", "accuracy on fake images, at 0.5"),
    "oracle_acc": Metric("oracle ACC", "accuracy at the best threshold for the test images themselves: an upper bound"),
    "auc": Metric("AUC", "how often a fake's logit is above a real's"),
    "matched_auc": Metric("AUC matched", "AUC over pairs of one file format and about one size alone"),
    "ap": Metric("AP", "average precision"),
    "eer": Metric("EER", "error where as many reals are called fake as fakes real", lower_is_better=True),
    "tpr_at_1_fpr": Metric("TPR 1 %", "share of fakes found while at most 1 % of reals are called fake"),
    "tpr_at_5_fpr": Metric("TPR 5 %", "share of fakes found while at most 5 % of reals are called fake"),
    "ece": Metric(
        "ECE", f"expected calibration error of sigmoid(logit), {CALIBRATION_BINS} bins", lower_is_better=True
    ),
    "nll": Metric("NLL", "negative log-likelihood of sigmoid(logit), in nats", lower_is_better=True, percent=False),
    "cllr": Metric(
        "Cllr",
        "cost of the logit read as a log-likelihood ratio, in bits: 1 is no better than no evidence",
        lower_is_better=True,
        percent=False,
    ),
}
FALSE_ALARMS = {"tpr_at_1_fpr": 0.01, "tpr_at_5_fpr": 0.05}

METRICS_SCHEMA = pl.Schema(
    [
        ("subset", pl.String),
        *((name, pl.Int64) for name in ("n", "n_real", "n_fake", "n_unlabelled")),
        *((name, pl.Float64) for name in (*METRICS, "matched_pairs")),
        *((name, pl.Int64) for name in ("acc_over", "auc_over")),
    ]
)


def unseen_of(
    subsets: Collection[str], trained: Collection[str], near_copies: Collection[str] = NEAR_COPIES
) -> list[str]:
    """Those that a detector was not trained on, without near-copies of what it was, if others are left."""
    unseen = [name for name in subsets if name not in trained]
    if set(near_copies).isdisjoint(trained):
        return unseen
    return [name for name in unseen if name not in near_copies] or unseen


def mean_groups(
    subsets: Collection[str], trained: Collection[str] = (), near_copies: Collection[str] = NEAR_COPIES
) -> dict[str, list[str]]:
    """The subsets that each mean is over: all; the paper's, where there are others too; the unseen, where some were
    trained on; and the unseen without near-copies of what was trained on, where there are such."""
    names = paper_order(subsets)
    groups = {MEAN: names}
    for paper in (GENIMAGE, FORENSYNTHS):
        if set(paper) < set(names):
            groups[paper_mean(paper)] = [name for name in names if name in paper]
    unseen = [name for name in names if name not in trained]
    distinct = unseen_of(names, trained, near_copies)
    if 0 < len(unseen) < len(names):
        groups[UNSEEN] = unseen
    if 0 < len(distinct) < len(unseen):
        groups[WITHOUT_COPIES] = distinct
    return groups


def subset_metrics(
    predictions: pl.DataFrame,
    threshold: float | None = None,
    trained: Collection[str] = (),
    near_copies: Collection[str] = NEAR_COPIES,
) -> pl.DataFrame:
    """METRICS per subset, in the paper's order, then their plain means (`mean_groups`), then the worst of each.

    predictions: columns of PREDICTION_SCHEMA, one row an image and subset; and `stratum`, where it is known which
    images may be compared (see matched.py). threshold: the logit that the held-out images chose, for val_acc. trained:
    the generators that the detector was trained on. Returns METRICS_SCHEMA:

    - n, n_real, n_fake count labelled images; unlabelled ones (n_unlabelled) enter no metric.
    - METRICS, null where undefined. Those that rank do so by logit: sigmoids of confident logits round to equal float32
      scores, logits do not.
    - matched_pairs: the share of all pairs of a real and a fake that matched_auc is of.
    - a mean averages each metric over the subsets where it is defined: acc over `acc_over` of them, auc over
      `auc_over`; both are null in a subset's own row. Its counts are sums.
    - "worst", where there are several subsets: each metric where it is worst, so not all of one subset.

    Reals that generators share, a subset "real" of label 0 only, are pooled with each subset that has fakes and no
    reals of its own, and then have no row themselves.

    Raises SareError naming the images whose logit or score is missing, NaN or infinite.
    """
    _require_finite(predictions)
    groups = pool_shared_reals(predictions)
    rows = pl.DataFrame(
        [_measure(name, groups[name], threshold) for name in paper_order(groups)], schema=METRICS_SCHEMA
    )
    means = [
        _mean(mean, rows.filter(pl.col("subset").is_in(names)))
        for mean, names in mean_groups(groups, trained, near_copies).items()
    ]
    return with_worst(pl.concat([rows, pl.DataFrame(means, schema=METRICS_SCHEMA)]))


def with_worst(metrics: pl.DataFrame) -> pl.DataFrame:
    """METRICS_SCHEMA with "worst" as the last row, in the place of another one, where there are several subsets."""
    rows = metrics.filter(~is_mean())
    if len(rows) < 2:
        return metrics
    others = metrics.filter(~is_mean() | (pl.col("subset") != WORST))
    return pl.concat([others, pl.DataFrame([_worst(rows)], schema=METRICS_SCHEMA)])


def is_mean() -> pl.Expr:
    """Picks the rows of `subset_metrics` that are of no single subset: a user's subset may be called "mean" too."""
    return pl.col("acc_over").is_not_null()


def paper_mean(paper: Collection[str]) -> str:
    """Name of the mean over the paper's subsets alone, GENIMAGE or FORENSYNTHS."""
    return f"{MEAN} (paper's {len(paper)})"


def paper_order(subsets: Collection[str]) -> list[str]:
    """Subsets in the column order of the paper's tables, others after them by name.

    "biggan" is in both datasets: the dataset that has more of the subsets gives the order.
    """
    known = max(GENIMAGE, FORENSYNTHS + FORENSYNTHS_EXTRA, key=lambda names: len(set(names) & set(subsets)))
    return sorted(subsets, key=lambda name: (known.index(name) if name in known else len(known), name))


def _require_finite(predictions: pl.DataFrame) -> None:
    finite = pl.all_horizontal(pl.col("logit", "score").is_finite().fill_null(False))
    broken = predictions.filter(~finite)["image_id"].to_list()
    if broken:
        shown = ", ".join(map(str, broken[:10])) + (", …" if len(broken) > 10 else "")
        raise SareError(
            f"{len(broken)} of {len(predictions)} predictions are missing, NaN or infinite: images {shown}. "
            "The detector's weights or its dtype are the likeliest cause; float32 has the widest range."
        )


def pool_shared_reals(predictions: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """The rows of each subset; see `subset_metrics` on the subset "real"."""
    groups = {str(name): group for (name,), group in predictions.group_by("subset", maintain_order=True)}
    shared = groups.get(SHARED_REALS)
    if shared is None or shared["label"].n_unique() != 1 or shared["label"][0] != 0:
        return groups
    without_reals = [name for name, group in groups.items() if 1 in group["label"] and 0 not in group["label"]]
    if not without_reals:
        return groups
    pooled = {name: pl.concat([group, shared]) if name in without_reals else group for name, group in groups.items()}
    del pooled[SHARED_REALS]
    return pooled


def has_both_classes(images: pl.DataFrame) -> bool:
    """Whether any subset has real and fake images, its reals perhaps shared. images: columns subset and label."""
    return any(group["label"].drop_nulls().n_unique() == 2 for group in pool_shared_reals(images).values())


def _measure(subset: str, group: pl.DataFrame, threshold: float | None) -> dict[str, Any]:
    labelled = group.drop_nulls("label")
    labels, logits = labelled["label"].to_numpy(), labelled["logit"].to_numpy()
    n_fake = int(labels.sum())
    counts = {"n": len(labels), "n_real": len(labels) - n_fake, "n_fake": n_fake}
    metrics = dict[str, float | None]()
    if len(labels):
        metrics |= _of_decisions(labels, logits, labelled["score"].to_numpy(), threshold)
    if 0 < n_fake < len(labels):
        metrics |= _of_ranks(labels, logits)
        if "stratum" in labelled.columns:
            metrics |= _of_matched_pairs(labels, logits, labelled["stratum"].to_numpy())
    return {"subset": subset, "n_unlabelled": len(group) - len(labels), **counts, **metrics}


def _of_decisions(
    labels: np.ndarray, logits: np.ndarray, scores: np.ndarray, threshold: float | None
) -> dict[str, float | None]:
    """What a threshold or a probability is needed for."""
    from sklearn.metrics import accuracy_score, balanced_accuracy_score

    called = (scores > THRESHOLD).astype(labels.dtype)
    of_class = {
        name: float(accuracy_score(labels[labels == label], called[labels == label])) if label in labels else None
        for name, label in (("real_acc", 0), ("fake_acc", 1))
    }
    costs, both = costs_of(labels, logits), None not in of_class.values()
    return of_class | {
        "acc": float(accuracy_score(labels, called)),
        "val_acc": None if threshold is None else float(accuracy_score(labels, logits > threshold)),
        "balanced_acc": float(balanced_accuracy_score(labels, called)) if both else None,
        "ece": calibration_error(labels, logits),
        "nll": float(costs.mean()),
        "cllr": float(costs[labels == 0].mean() + costs[labels == 1].mean()) / 2 / np.log(2) if both else None,
    }


def _of_ranks(labels: np.ndarray, logits: np.ndarray) -> dict[str, float | None]:
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

    fpr, tpr, _ = roc_curve(labels, logits, drop_intermediate=False)
    n_fake = labels.sum()
    nearest = np.argmin(np.abs(1 - tpr - fpr))  # of a step function: where both errors are nearest to each other
    return {
        "auc": float(roc_auc_score(labels, logits)),
        "ap": float(average_precision_score(labels, logits)),
        "eer": float(1 - tpr[nearest] + fpr[nearest]) / 2,
        "oracle_acc": float((tpr * n_fake + (1 - fpr) * (len(labels) - n_fake)).max() / len(labels)),
        **{name: float(tpr[fpr <= most].max()) for name, most in FALSE_ALARMS.items()},
    }


def _of_matched_pairs(labels: np.ndarray, logits: np.ndarray, strata: np.ndarray) -> dict[str, float | None]:
    reals, fakes = (np.bincount(strata[labels == label], minlength=strata.max() + 1) for label in (0, 1))
    pairs = int(reals @ fakes)
    alone = np.ones((1, len(labels)), dtype=np.int64)
    return {
        "matched_auc": float(auc(logits, labels, alone, strata)[0]) if pairs else None,
        "matched_pairs": pairs / (int(reals.sum()) * int(fakes.sum())),
    }


def costs_of(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """−log of the probability that sigmoid(logit) gives each image's own class, (n,) float64, in nats."""
    return np.logaddexp(0, np.where(labels == 1, -1.0, 1.0) * logits.astype(np.float64))


def calibration_error(labels: np.ndarray, logits: np.ndarray) -> float:
    """ECE: the gap between the mean of sigmoid(logit) and the share of fakes, weighted over CALIBRATION_BINS bins."""
    gaps, bins = calibration_gaps(labels, logits)
    return float(np.abs(np.bincount(bins, gaps, CALIBRATION_BINS)).sum() / len(labels))


def calibration_gaps(labels: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each image sigmoid(logit) less its label, and its bin, both (n,)."""
    from scipy.special import expit

    probability = expit(logits.astype(np.float64))
    bins = np.minimum((probability * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    return probability - labels, bins


def _mean(name: str, rows: pl.DataFrame) -> dict[str, Any]:
    counts = rows.select(pl.col("n", "n_real", "n_fake", "n_unlabelled").sum()).row(0, named=True)
    means = rows.select(pl.col(*METRICS, "matched_pairs").mean()).row(0, named=True)
    return {"subset": name, **counts, **means, **_over(rows)}


def _worst(rows: pl.DataFrame) -> dict[str, Any]:
    counts = rows.select(pl.col("n", "n_real", "n_fake", "n_unlabelled").sum()).row(0, named=True)
    worst = [pl.col(name).max() if metric.lower_is_better else pl.col(name).min() for name, metric in METRICS.items()]
    found = rows.select(*worst, pl.col("matched_pairs").min()).row(0, named=True)
    return {"subset": WORST, **counts, **found, **_over(rows)}


def _over(rows: pl.DataFrame) -> dict[str, int]:
    return {"acc_over": rows["acc"].count(), "auc_over": rows["auc"].count()}
