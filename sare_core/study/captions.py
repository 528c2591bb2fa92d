"""Wrong captions: each image gets that of another image of its label, of another class and in other words."""

import io

import numpy as np
import polars as pl

from sare_core.errors import StageError

ROUNDS = 1000  # of drawing again for the images that drew one of their own class


def wrong_captions(captions: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Columns image_id and caption, in order of image_id, for the captioner `table`.

    captions: image_id, label, class (null: unknown), caption. Donors are drawn evenly from the images of the same
    label, so real and fake keep their captions' distribution; where a class is unknown, other words are all that is
    asked for. Raises StageError: an image has no donor.
    """
    captions = captions.unique("image_id").sort("image_id")
    random = np.random.default_rng(seed)
    parts = []
    for (label,), pool in captions.group_by("label", maintain_order=True):
        words, classes = pool["caption"].to_numpy(), pool["class"].fill_null("").to_numpy()
        donors = np.arange(len(pool))
        for _ in range(ROUNDS):
            wrong = (words[donors] == words) | ((classes[donors] == classes) & (classes != ""))
            if not wrong.any():
                break
            donors[wrong] = random.integers(len(pool), size=int(wrong.sum()))
        else:
            raise StageError(
                f"{int(wrong.sum())} images of label {label} find no other class with another caption: "
                "the captions are too much alike for a wrong one."
            )
        parts.append(pool.select("image_id", caption=pl.Series(words[donors], dtype=pl.String)))
    return pl.concat(parts).sort("image_id")


def to_parquet(table: pl.DataFrame) -> bytes:
    """The same rows give the same bytes: the captions' fingerprint counts them."""
    out = io.BytesIO()
    table.write_parquet(out)
    return out.getvalue()
