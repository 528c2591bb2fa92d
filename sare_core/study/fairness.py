"""Is the game fair? How far one gets on each generator without any semantics, and from one generator to the others.

Everything is measured on the dataset's files alone: no caption and no reconstruction is needed.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

from sare_core.config.detectors import DetectorSettings
from sare_core.errors import StageError
from sare_core.evaluation.bootstrap import RESAMPLES, auc, draw_images, estimate
from sare_core.evaluation.metrics import paper_order
from sare_core.evaluation.statistics import held_out_scores, pixel_statistics, regression
from sare_core.study.means import add_means

PER_CELL = 2000  # images of a subset, split and class at most, the first by image_id: a hash, so a random draw
Loader = Callable[[dict[str, Any]], Image.Image]  # a row of the index to its RGB image


def chosen_rows(index_frame: pl.DataFrame, splits: list[str]) -> pl.DataFrame:
    """The readable, labelled rows of some splits, at most PER_CELL a subset, split and label, by image_id."""
    usable = pl.col("error").is_null(), pl.col("label").is_not_null(), pl.col("split").is_in(splits)
    rows = index_frame.filter(*usable).sort("image_id")
    return rows.group_by("subset", "split", "label", maintain_order=True).head(PER_CELL).sort("image_id")


def pixel_scores(test: pl.DataFrame, load: Loader, seed: int, advance: Callable[[int], None]) -> pl.DataFrame:
    """Columns image_id, subset, label, logit: of the pixel statistics, cross-validated within each subset."""
    parts = []
    for _, rows in test.group_by("subset", maintain_order=True):
        features = np.stack([pixel_statistics(load(row)) for row in rows.iter_rows(named=True)])
        advance(len(rows))
        logits = held_out_scores(features, rows["label"].to_numpy(), seed)
        parts.append(rows.select("image_id", "subset", "label", logit=pl.Series(logits, dtype=pl.Float64)))
    return pl.concat(parts)


def carried_over(rows: pl.DataFrame, load: Loader, trained_on: Sequence[str] | None) -> pl.DataFrame:
    """Columns image_id, subset, label, logit of the test images: of the pixel statistics, fitted to the training images
    of `trained_on` (none named: of all subsets) and carried over to every subset.

    rows: of the index, train and test, see `chosen_rows`. Raises StageError: the training images are of one class.
    """
    own = pl.lit(True) if trained_on is None else pl.col("subset").is_in(trained_on)
    train, test = rows.filter(pl.col("split") == "train", own), rows.filter(pl.col("split") == "test")
    if train["label"].n_unique() < 2:
        raise StageError("the training split holds images of one class only: pixel statistics cannot be fitted to it.")
    known, tried = (
        np.stack([pixel_statistics(load(row)) for row in part.iter_rows(named=True)]) for part in (train, test)
    )
    logits = regression().fit(known, train["label"].to_numpy()).decision_function(tried)
    return test.select("image_id", "subset", "label", logit=pl.Series(logits, dtype=pl.Float64))


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
        logits = regression().fit(embeddings[used], labels[used]).decision_function(embeddings[~train])
        scores = rows.filter(~train).select("subset", "label", logit=pl.Series(logits, dtype=pl.Float64))
        table = area_by_subset(scores, seed, resamples, trained_on=(source,))
        parts.append(table.select(pl.lit(source).alias("trained_on"), pl.all()))
    if not parts:
        raise StageError("no subset has train images of both classes: there is no transfer to measure.")
    return pl.concat(parts)
