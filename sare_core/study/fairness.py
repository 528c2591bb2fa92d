"""Is the game fair? How far one gets on each generator without any semantics, and from one generator to the others.

Everything is measured on the dataset's files alone: no caption and no reconstruction is needed.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

from sare_core.config.detectors import DetectorSettings
from sare_core.errors import StageError
from sare_core.evaluation.metrics import paper_order
from sare_core.study.bootstrap import RESAMPLES, add_means, auc, draw_images, estimate

PER_CELL = 2000  # images of a subset, split and class at most, the first by image_id: a hash, so a random draw
FOLDS = 5
Loader = Callable[[dict[str, Any]], Image.Image]  # a row of the index to its RGB image

BINS = 16  # of gradients, and of spatial frequencies
LEVELS = 64  # bins of the level histogram


def chosen_rows(index_frame: pl.DataFrame, splits: list[str]) -> pl.DataFrame:
    """The readable, labelled rows of some splits, at most PER_CELL a subset, split and label, by image_id."""
    usable = pl.col("error").is_null(), pl.col("label").is_not_null(), pl.col("split").is_in(splits)
    rows = index_frame.filter(*usable).sort("image_id")
    return rows.group_by("subset", "split", "label", maintain_order=True).head(PER_CELL).sort("image_id")


def pixel_statistics(image: Image.Image) -> np.ndarray:
    """What an image's pixels say without its content, (BINS * 2 + LEVELS + 8,) float64; of any size.

    Shares of exact 0 and 255 and the extremes, mean and standard deviation, the histogram of levels, that of the
    gradient's size, and the log power over spatial frequency, up to that of a checkerboard; of the grey image.
    """
    grey = np.asarray(image.convert("L"), dtype=np.float64)
    levels = np.histogram(grey, bins=LEVELS, range=(0, 256))[0] / grey.size
    right, down = np.abs(np.diff(grey, axis=1)), np.abs(np.diff(grey, axis=0))
    steps = np.concatenate([right.ravel(), down.ravel()])
    edges = np.concatenate([[0], np.geomspace(1, 256, BINS)])
    gradient = np.histogram(steps, bins=edges)[0] / steps.size
    extremes = [(grey == 0).mean(), (grey == 255).mean(), grey.min(), grey.max(), grey.mean(), grey.std()]
    return np.concatenate([extremes, [right.mean(), down.mean()], levels, gradient, _spectrum(grey)])


def _spectrum(grey: np.ndarray) -> np.ndarray:
    """Log mean power in BINS rings of spatial frequency; a ring that a small image has no frequency in is 0."""
    power = np.abs(np.fft.fft2(grey - grey.mean())) ** 2 / grey.size
    frequency = np.hypot(np.fft.fftfreq(grey.shape[0])[:, None], np.fft.fftfreq(grey.shape[1])[None])
    ring = np.minimum((frequency / 0.5**0.5 * BINS).astype(int), BINS - 1).ravel()  # cycles a pixel, up to the corner
    total, count = (np.bincount(ring, weights, BINS) for weights in (power.ravel(), None))
    return np.log1p(total / np.maximum(count, 1))


def held_out_scores(features: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
    """Each image's logit by logistic regression on the other folds, (n,). Raises StageError: too few of a class."""
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    if min((labels == 0).sum(), (labels == 1).sum()) < FOLDS:
        raise StageError(f"fewer than {FOLDS} real or fake test images in a subset: nothing can be cross-validated.")
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    return cross_val_predict(_regression(), features, labels, cv=folds, method="decision_function")


def pixel_scores(test: pl.DataFrame, load: Loader, seed: int, advance: Callable[[int], None]) -> pl.DataFrame:
    """Columns image_id, subset, label, logit: of the pixel statistics, cross-validated within each subset."""
    parts = []
    for _, rows in test.group_by("subset", maintain_order=True):
        features = np.stack([pixel_statistics(load(row)) for row in rows.iter_rows(named=True)])
        advance(len(rows))
        logits = held_out_scores(features, rows["label"].to_numpy(), seed)
        parts.append(rows.select("image_id", "subset", "label", logit=pl.Series(logits, dtype=pl.Float64)))
    return pl.concat(parts)


def area_by_subset(
    scores: pl.DataFrame, seed: int, resamples: int = RESAMPLES, trained_on: tuple[str, ...] | None = None
) -> pl.DataFrame:
    """subset, value, low, high: AUC of the column logit, and the plain means. Subsets of one class are left out."""
    random, by_subset = np.random.default_rng(seed), dict[str, np.ndarray]()
    groups = {str(name): group for (name,), group in scores.group_by("subset") if group["label"].n_unique() == 2}
    for name in paper_order(groups):
        labels = groups[name]["label"].to_numpy()
        by_subset[name] = auc(groups[name]["logit"].to_numpy(), labels, draw_images(labels, random, resamples))
    rows = [(name, *estimate(values)) for name, values in add_means(by_subset, trained_on).items()]
    return pl.DataFrame(rows, schema=["subset", "value", "low", "high"], orient="row")


def embedder(settings: DetectorSettings, folder: str, device: str) -> Callable[[list[Image.Image]], np.ndarray]:
    """RGB images to the frozen image encoder's embeddings (n, D), each seen as the detector sees it in evaluation."""
    import torch

    from sare_core.detectors.encoders import load_image_encoder, require_input_size
    from sare_core.detectors.transforms import prepare

    encoder: Any = load_image_encoder(folder).eval().to(device)
    require_input_size(encoder, settings.input_size)

    @torch.no_grad()
    def embed(images: list[Image.Image]) -> np.ndarray:
        views = torch.stack([prepare({"image": image}, settings)["image"] for image in images])
        return encoder(pixel_values=views.to(device)).image_embeds.float().cpu().numpy()

    return embed


def embed_rows(
    rows: pl.DataFrame,
    load: Loader,
    embed: Callable[[list[Image.Image]], np.ndarray],
    advance: Callable[[int], None],
) -> np.ndarray:
    """The embeddings of some rows of the index, (n, D), in their order."""
    parts = []
    for batch in rows.iter_slices(64):
        parts.append(embed([load(row) for row in batch.iter_rows(named=True)]))
        advance(len(batch))
    return np.concatenate(parts)


def transfer(rows: pl.DataFrame, embeddings: np.ndarray, seed: int, resamples: int = RESAMPLES) -> pl.DataFrame:
    """trained_on, subset, value, low, high: AUC on each subset's test split of logistic regression on each train split.

    rows: of the index, with subset, split (train or test) and label, one an embedding; subsets without train images of
    both classes are only tested on.
    """
    at = {str(name): (rows["subset"] == name).to_numpy() for name in rows["subset"].unique()}
    train, labels = (rows["split"] == "train").to_numpy(), rows["label"].to_numpy()
    parts = []
    for source in paper_order(at):
        used = at[source] & train
        if len(set(labels[used])) < 2:
            continue
        logits = _regression().fit(embeddings[used], labels[used]).decision_function(embeddings[~train])
        scores = rows.filter(~train).select("subset", "label", logit=pl.Series(logits, dtype=pl.Float64))
        table = area_by_subset(scores, seed, resamples, trained_on=(source,))
        parts.append(table.select(pl.lit(source).alias("trained_on"), pl.all()))
    if not parts:
        raise StageError("no subset has train images of both classes: there is no transfer to measure.")
    return pl.concat(parts)


def _regression() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
