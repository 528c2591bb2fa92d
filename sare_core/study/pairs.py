"""Matched examples: a real and a fake image that show the same, chosen by digest and by nobody's eye."""

from collections import Counter
from typing import Any, NamedTuple

import polars as pl

from sare_core.evaluation.metrics import SHARED_REALS, paper_order
from sare_core.report.numbers import CLASSES


class Pair(NamedTuple):
    """both: the class that both images are of, else their caption; None: they agree in neither. images: rows of the
    index, by the names of CLASSES."""

    subset: str
    both: str | None
    images: dict[str, dict[str, Any]]


def matched(images: pl.DataFrame, count: int) -> list[Pair]:
    """`count` pairs, or as many as there are: one of each generator in the paper's order, then a second one, and so on.

    images: rows of an index with a column `caption`. Two images agree if they are of one class, where a generator and
    its reals have classes in common; else if their captions are the same. An image_id is a digest of the pixels: what
    agrees is shown by the first real and the first fake image by image_id, and comes in the order of its fake; what
    was shown less often comes first.
    """
    labelled, (real, fake) = images.drop_nulls("label").sort("image_id"), CLASSES
    waiting = []
    for subset in paper_order(set(labelled.filter(label=fake)["subset"])):
        reals = labelled.filter(pl.col("label") == real, pl.col("subset").is_in([subset, SHARED_REALS]))
        waiting.append(_of_generator(subset, reals, labelled.filter(label=fake, subset=subset)))
    pairs, shown = list[Pair](), Counter[str | None]()
    while any(waiting) and len(pairs) < count:
        for found in filter(None, waiting):
            pair = min(found, key=lambda one: shown[one.both])
            found.remove(pair)
            shown[pair.both] += 1
            pairs.append(pair)
    return pairs[:count]


def _of_generator(subset: str, reals: pl.DataFrame, fakes: pl.DataFrame) -> list[Pair]:
    for key in ("class", "caption"):
        real_of, fake_of = (
            {row[key]: row for row in part.filter(pl.col(key) != "").unique(key, keep="first").to_dicts()}
            for part in (reals, fakes)
        )
        both = sorted(real_of.keys() & fake_of.keys(), key=lambda value: fake_of[value]["image_id"])
        if agreed := [(real_of[value], fake_of[value]) for value in both]:
            return [Pair(subset, real[key], _by_kind(real, fake)) for real, fake in agreed]
    loose = zip(reals.to_dicts(), fakes.to_dicts(), strict=False)
    return [Pair(subset, None, _by_kind(real, fake)) for real, fake in loose]


def _by_kind(*images: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return dict(zip(CLASSES.values(), images, strict=True))
