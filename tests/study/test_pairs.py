import polars as pl

from sare_core.study.pairs import Pair, matched


def images(*rows: tuple[str, str, int, str | None, str | None]) -> pl.DataFrame:
    schema = {"image_id": pl.String, "subset": pl.String, "label": pl.Int8, "class": pl.String, "caption": pl.String}
    return pl.DataFrame(rows, schema, orient="row")


def shown(pairs: list[Pair]) -> list[tuple[str, str | None, object, object]]:
    return [(p.subset, p.both, p.images["real"]["image_id"], p.images["fake"]["image_id"]) for p in pairs]


CLASSES = images(
    ("f", "adm", 0, "dog", "a dog"),
    ("b", "adm", 0, "dog", "a dog"),
    ("c", "adm", 0, "cat", "a cat"),
    ("e", "adm", 1, "dog", "a cat"),
    ("a", "adm", 1, "cat", "a dog"),
    ("d", "adm", 1, "cow", "a dog"),
    ("g", "glide", 0, "cat", "a cat"),
    ("h", "glide", 0, "dog", "a dog"),
    ("i", "glide", 1, "cat", "a cat"),
    ("j", "glide", 1, "dog", "a dog"),
)


def test_generators_take_turns_and_what_was_shown_less_comes_first() -> None:
    expected = [
        ("adm", "cat", "c", "a"),
        ("glide", "dog", "h", "j"),
        ("adm", "dog", "b", "e"),
        ("glide", "cat", "g", "i"),
    ]
    assert shown(matched(CLASSES, 9)) == expected
    assert shown(matched(CLASSES, 3)) == expected[:3]


def test_the_order_of_the_rows_changes_nothing() -> None:
    assert shown(matched(CLASSES.reverse(), 9)) == shown(matched(CLASSES, 9))


def test_captions_decide_where_reals_have_no_class() -> None:
    assert shown(matched(CLASSES.with_columns(pl.when(pl.col("label") == 1).then("class").alias("class")), 2)) == [
        ("adm", "a dog", "b", "a"),
        ("glide", "a cat", "g", "i"),
    ]


def test_reals_that_generators_share() -> None:
    rows = images(("a", "real", 0, "dog", None), ("b", "mine", 1, "dog", None), ("c", "other", 1, "dog", None))
    assert shown(matched(rows, 9)) == [("mine", "dog", "a", "b"), ("other", "dog", "a", "c")]


def test_images_that_agree_in_nothing_are_told_from_pairs() -> None:
    rows = images(("a", "adm", 0, None, ""), ("b", "adm", 1, "dog", ""), ("c", "adm", 1, None, None))
    assert shown(matched(rows, 9)) == [("adm", None, "a", "b")]
    assert matched(rows.filter(pl.col("label") == 1), 9) == []
