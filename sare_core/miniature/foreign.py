"""The models that ship are toys: they know the scale model's images, and what they say of others means nothing."""

from collections.abc import Iterable
from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path

import polars as pl

from sare_core.engine.manifest import Index
from sare_core.errors import ConfigError
from sare_core.models.weights import resolve

SIDE, MODE = 32, "L"  # the largest side in pixels, and Pillow's mode, of the images that they know


def refuse_foreign_images(models: Iterable[str | None], index: Index) -> None:
    """Raises ConfigError where a model, a folder of any name, is one that ships and the index has other images."""
    local = [model for model in models if model is not None and Path(model).is_dir()]
    if not local or (found := _foreign(index)) is None:
        return
    for model in local:
        if resolve(model).digest in toys():
            raise ConfigError(
                f"{model}: a toy model of the scale model, which knows {SIDE}×{SIDE} gray images only; "
                f"{index.about['dataset']!r} holds others, as {found}, of which its results would mean nothing. "
                "Use --preset paper, or models of your own."
            )


@lru_cache
def toys() -> frozenset[str]:
    """The digests of the models that ship."""
    with as_file(files("sare_core.miniature") / "shipped" / "models") as shipped:
        return frozenset(resolve(str(folder)).digest for folder in shipped.glob("*") if folder.is_dir())


def _foreign(index: Index) -> str | None:
    """An image that cannot be the scale model's, in words."""
    images = pl.scan_parquet(index.store.local(index.images), glob=False).filter(pl.col("error").is_null())
    other = images.filter((pl.max_horizontal("width", "height") > SIDE) | (pl.col("mode") != MODE))
    row = next(other.select("path", "width", "height", "mode").head(1).collect().iter_rows(), None)
    return None if row is None else f"{row[0]} ({row[1]}×{row[2]}, {row[3]})"
