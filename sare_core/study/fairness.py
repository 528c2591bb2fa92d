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
from sare_core.evaluation.bootstrap import RESAMPLES, auc, draw_images, estimate
from sare_core.evaluation.metrics import paper_order
from sare_core.evaluation.statistics import Loader, regression
from sare_core.study.means import add_means


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
