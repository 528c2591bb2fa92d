"""From the files of a dataset to the rows of its index: splits, conflicts, duplicates, shards. No file is touched.

Rows have the columns of INDEX_SCHEMA that `Found` and a scan give: path, subset, split, label, image_id, error, ….
"""

import polars as pl

CONFLICT = "label conflict: "  # how the error of such a row begins
SPLITS = ("train", "val", "test")
_PIXELS = ["subset", "image_id"]  # unique in an index
_USABLE = pl.col("error").is_null()


def hold_out(rows: pl.DataFrame, share: float) -> pl.DataFrame:
    """A share of train, in [0, 1), becomes val: chosen by the pixels, so that no copy of an image stays behind."""
    point = pl.col("image_id").str.head(8).str.to_integer(base=16, dtype=pl.Int64) / 2**32  # uniform in [0, 1)
    held_out = (pl.col("split") == "train") & (point < share)
    return rows.with_columns(split=pl.when(held_out).then(pl.lit("val")).otherwise("split"))


def refuse_conflicts(rows: pl.DataFrame) -> pl.DataFrame:
    """The same pixels labelled real and fake in one subset: an error in each of their rows, which names another."""
    first = {label: pl.col("path").filter(pl.col("label") == label).min().over(_PIXELS) for label in (0, 1)}
    rows = rows.with_columns(first_real=first[0], first_fake=first[1])
    conflict = _USABLE & pl.col("first_real").is_not_null() & pl.col("first_fake").is_not_null()
    is_real = pl.col("label") == 0
    reason = pl.format(
        CONFLICT + "same pixels as {}, which is labelled {}",
        pl.when(is_real).then("first_fake").otherwise("first_real"),
        pl.when(is_real).then(pl.lit("fake")).otherwise(pl.lit("real")),
    )
    rows = rows.with_columns(error=pl.when(conflict).then(reason).otherwise("error"))
    return rows.drop("first_real", "first_fake")


def find_copies(rows: pl.DataFrame) -> pl.DataFrame:
    """Adds `copy_of` and `copy_of_split`: null but in a row whose pixels its subset has in a row that goes before.

    A test image goes before a val and a train image, a labelled one before an unlabelled, then the path decides. The
    row that goes before all others gets their paths as `duplicates`; each other row has none.
    """
    rank = pl.col("split").replace_strict({"test": 0, "val": 1, "train": 2}, return_dtype=pl.Int8)
    usable = rows.filter(_USABLE).sort(*_PIXELS, rank, pl.col("label").is_null(), "path", maintain_order=True)
    ahead = pl.int_range(pl.len()).over(_PIXELS)
    usable = usable.with_columns(
        copy_of=pl.when(ahead > 0).then(pl.col("path").first().over(_PIXELS)),
        copy_of_split=pl.when(ahead > 0).then(pl.col("split").first().over(_PIXELS)),
    )
    copies = usable.filter(pl.col("copy_of").is_not_null()).group_by(_PIXELS).agg(duplicates=pl.col("path").sort())
    images = usable.filter(pl.col("copy_of").is_null()).join(copies, on=_PIXELS, how="left")
    others = usable.filter(pl.col("copy_of").is_not_null())
    rows = pl.concat([images, others, rows.filter(~_USABLE)], how="diagonal")
    return rows.with_columns(pl.col("duplicates").fill_null([]))


def number_shards(images: pl.DataFrame, old: pl.DataFrame, size: int, first: int) -> pl.DataFrame:
    """Adds `shard`. Images of the old index keep theirs; the others fill new shards from number `first` on.

    A shard holds up to `size` images of one subset and split, ordered by image_id, so that labels are mixed.
    """
    place = ["subset", "split", "image_id"]
    images = images.join(old.select(*place, "shard").drop_nulls(), on=place, how="left")
    order = pl.col("split").replace_strict({split: i for i, split in enumerate(SPLITS)}, return_dtype=pl.Int8)
    new = images.filter(pl.col("shard").is_null()).sort("subset", order, "image_id")
    chunk = pl.int_range(pl.len()).over("subset", "split") // size
    number = pl.struct("subset", "split", chunk.alias("chunk")).rle_id() + first
    return pl.concat([images.drop_nulls("shard"), new.with_columns(shard=number.cast(pl.Int32))])
