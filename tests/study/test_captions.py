import hashlib

import polars as pl
import pytest

from sare_core.errors import StageError
from sare_core.study.captions import to_parquet, wrong_captions

CLASSES = ["bag", "boot", "coat", None]


def captions(n=200, told=lambda n: CLASSES[n % 4]):
    rows = [
        {
            "image_id": hashlib.sha256(str(n).encode()).hexdigest()[:20],
            "label": n // 4 % 2,
            "class": CLASSES[n % 4],
            "caption": f"a {told(n)} on {n % 3}",
        }
        for n in range(n)
    ]
    return pl.DataFrame(rows, schema_overrides={"label": pl.Int8, "class": pl.String})


def test_the_caption_is_of_another_class_and_in_other_words_and_of_the_same_label():
    before = captions()
    after = before.rename({"caption": "own"}).join(wrong_captions(before, 0), on="image_id")
    assert len(after) == 200
    assert (after["caption"] != after["own"]).all()
    known = after.drop_nulls("class")
    assert not any(kind in caption for kind, caption in known.select("class", "caption").iter_rows())
    for label in (0, 1):
        own = before.filter(pl.col("label") == label)["caption"]
        assert set(after.filter(pl.col("label") == label)["caption"]) <= set(own)


def test_the_same_seed_gives_the_same_bytes_and_another_others():
    before = captions()
    assert to_parquet(wrong_captions(before, 0)) == to_parquet(wrong_captions(before.reverse(), 0))
    assert to_parquet(wrong_captions(before, 0)) != to_parquet(wrong_captions(before, 1))


def test_donors_are_drawn_evenly():
    given = wrong_captions(captions(8000), 0).join(captions(8000).select("image_id", "class"), on="image_id")
    shares = given.filter(pl.col("class") == "bag")["caption"].str.extract("a (boot|coat|None)").value_counts()
    assert shares["count"].min() / 2000 == pytest.approx(1 / 3, abs=0.04)


def test_captions_that_are_all_alike_are_refused():
    with pytest.raises(StageError, match="too much alike"):
        wrong_captions(captions().with_columns(caption=pl.lit("a thing")), 0)
