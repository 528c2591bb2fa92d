"""ACC, AUC and AP of predictions, per subset and as the plain mean over subsets (paper 4.1).

Label 0 is real, 1 is fake, null is unknown. A prediction is a logit, above 0 for fake, and its sigmoid, the score.
"""

from collections.abc import Collection
from typing import Any

import polars as pl

from sare_core.errors import SareError

# Column order of the paper's Tables 1 and 2, and of Tables 3 and 4.
GENIMAGE = ("midjourney", "sdv1.4", "sdv1.5", "adm", "glide", "wukong", "vqdm", "biggan")
FORENSYNTHS = (
    *("progan", "stylegan", "biggan", "cyclegan", "stargan", "gaugan"),
    *("crn", "imle", "sitd", "san", "deepfake"),
)
FORENSYNTHS_EXTRA = ("stylegan2", "whichfaceisreal")  # in the released test set, not in the paper's tables

# Latent diffusions of Stable Diffusion's kind, in GenImage's names: of a detector that was trained on one of them the
# others are hardly unseen.
NEAR_COPIES = frozenset({"sdv1.4", "sdv1.5", "wukong"})
# ADM and BigGAN are told a class, in GenImage as in the scale model: no caption can be a prompt of theirs.
CLASS_ONLY = frozenset({"adm", "biggan"})

MEAN = "mean"
SHARED_REALS = "real"  # the folder layout's subset of reals that several generators share
THRESHOLD = 0.5  # paper 4.1; a score of exactly 0.5 is real, as in DRCT's code

PREDICTION_SCHEMA = pl.Schema(
    {"image_id": pl.String, "subset": pl.String, "label": pl.Int8, "logit": pl.Float32, "score": pl.Float32}
)
METRICS_SCHEMA = pl.Schema(
    {
        "subset": pl.String,
        "n": pl.Int64,
        "n_real": pl.Int64,
        "n_fake": pl.Int64,
        "n_unlabelled": pl.Int64,
        "acc": pl.Float64,
        "auc": pl.Float64,
        "ap": pl.Float64,
        "real_acc": pl.Float64,
        "fake_acc": pl.Float64,
        "acc_over": pl.Int64,
        "auc_over": pl.Int64,
    }
)


def unseen_of(subsets: Collection[str], trained: Collection[str]) -> list[str]:
    """Those that a detector was not trained on, without near-copies of what it was, if others are left."""
    unseen = [name for name in subsets if name not in trained]
    if NEAR_COPIES.isdisjoint(trained):
        return unseen
    return [name for name in unseen if name not in NEAR_COPIES] or unseen


def subset_metrics(predictions: pl.DataFrame) -> pl.DataFrame:
    """Metrics per subset, in the paper's order, then their plain means.

    predictions: columns of PREDICTION_SCHEMA, one row an image and subset. Returns METRICS_SCHEMA:

    - n, n_real, n_fake count labelled images; unlabelled ones (n_unlabelled) enter no metric.
    - acc at score > 0.5, real_acc and fake_acc of one class alone, auc and ap (fake is positive) in [0, 1];
      null where undefined: auc and ap of one class only, any of them without images.
      auc and ap rank by logit: sigmoids of confident logits round to equal float32 scores, logits do not.
    - a row "mean" averages each metric over the subsets where it is defined: acc over `acc_over` of them, auc and ap
      over `auc_over`; both are null in a subset's own row. Its counts are sums.
    - a row "mean (paper's 8)" or "mean (paper's 11)" follows where the predictions hold all of the paper's subsets of
      GenImage or ForenSynths and others besides.

    Reals that generators share, a subset "real" of label 0 only, are pooled with each subset that has fakes and no
    reals of its own, and then have no row themselves.

    Raises SareError naming the images whose logit or score is missing, NaN or infinite.
    """
    _require_finite(predictions)
    groups = pool_shared_reals(predictions)
    rows = pl.DataFrame([_measure(name, groups[name]) for name in paper_order(groups)], schema=METRICS_SCHEMA)
    means = [_mean(MEAN, rows)]
    for paper in (GENIMAGE, FORENSYNTHS):
        if set(paper) < set(groups):
            means.append(_mean(paper_mean(paper), rows.filter(pl.col("subset").is_in(paper))))
    return pl.concat([rows, pl.DataFrame(means, schema=METRICS_SCHEMA)])


def is_mean() -> pl.Expr:
    """Picks the rows of `subset_metrics` that are means: a user's subset may be called "mean" too."""
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


def _measure(subset: str, group: pl.DataFrame) -> dict[str, Any]:
    from sklearn.metrics import average_precision_score, roc_auc_score

    labelled = group.drop_nulls("label")
    correct = labelled.select("label", correct=(pl.col("score") > THRESHOLD) == (pl.col("label") == 1))
    labels, logits = labelled["label"].to_numpy(), labelled["logit"].to_numpy()
    n_fake = int(labels.sum())
    both_classes = 0 < n_fake < len(labels)
    return {
        "subset": subset,
        "n": len(labels),
        "n_real": len(labels) - n_fake,
        "n_fake": n_fake,
        "n_unlabelled": len(group) - len(labels),
        "acc": correct["correct"].mean(),
        "auc": float(roc_auc_score(labels, logits)) if both_classes else None,
        "ap": float(average_precision_score(labels, logits)) if both_classes else None,
        "real_acc": correct.filter(pl.col("label") == 0)["correct"].mean(),
        "fake_acc": correct.filter(pl.col("label") == 1)["correct"].mean(),
        "acc_over": None,
        "auc_over": None,
    }


def _mean(name: str, rows: pl.DataFrame) -> dict[str, Any]:
    counts = rows.select(pl.col("n", "n_real", "n_fake", "n_unlabelled").sum()).row(0, named=True)
    means = rows.select(pl.col("acc", "auc", "ap", "real_acc", "fake_acc").mean()).row(0, named=True)
    over = {"acc_over": rows["acc"].count(), "auc_over": rows["auc"].count()}
    return {"subset": name, **counts, **means, **over}
