"""The known counts of GenImage and ForenSynths: told of the releases, and of nothing else in their layouts."""

import polars as pl
import pytest

from sare_core.index.expected import compare, is_release

Cell = tuple[str, str, int]  # subset, split, label


def rows(cells: dict[Cell, int]) -> pl.DataFrame:
    """As many readable files as each cell says."""
    return pl.concat(
        pl.DataFrame({"path": [f"{n}.png" for n in range(count)]}, schema={"path": pl.String}).with_columns(
            subset=pl.lit(subset), split=pl.lit(split), label=pl.lit(label), error=pl.lit(None, pl.String)
        )
        for (subset, split, label), count in cells.items()
    )


def both(subset: str, split: str, real: int, fake: int) -> dict[Cell, int]:
    return {(subset, split, 0): real, (subset, split, 1): fake}


def test_a_whole_subset_is_the_release_and_what_it_lacks_is_told() -> None:
    found = rows(both("sdv1.4", "train", 162_000, 161_996) | both("sdv1.4", "test", 6000, 6001))
    found = found.with_columns(path=pl.col("path").replace("7.png", "ai/033_sdv4_00134.png"))  # one that was mended
    assert is_release("genimage", found, "test")
    assert is_release("genimage", found, "train")
    assert compare("genimage", found) == [
        "sdv1.4 train/fake: 161,996 of 162,000 (counted in a copy); 2 known bad files are among the missing",
        "sdv1.4 test/fake: 6,001, 1 more than the 6,000 known (counted in a copy)",
        "nothing found of adm, biggan, glide, midjourney, sdv1.5, vqdm, wukong",
    ]


@pytest.mark.parametrize("count", [2, 100, 1000])  # 1,000 a class: the whole scale model
def test_a_sample_in_the_layout_is_not_the_release(count: int) -> None:
    subsets = ("midjourney", "sdv1.4", "sdv1.5", "adm", "glide", "wukong", "vqdm", "biggan")
    cells = both("sdv1.4", "train", 2 * count, 2 * count)
    for subset in subsets:
        cells |= both(subset, "test", count, count)
    assert not is_release("genimage", rows(cells), "test")
    assert compare("genimage", rows(cells)) == []


def test_a_part_of_training_with_the_whole_test_split() -> None:
    found = rows(both("sdv1.4", "train", 1000, 1000) | both("sdv1.4", "test", 6000, 6000))
    assert is_release("genimage", found, "test")
    assert not is_release("genimage", found, "train")
    assert compare("genimage", found)[0] == "sdv1.4 train/real: 1,000 of 162,000 (counted in a copy)"


@pytest.mark.parametrize(("count", "release"), [(5999, False), (6000, True)])
def test_from_half_of_the_known_images_on(count: int, release: bool) -> None:
    assert is_release("genimage", rows(both("adm", "test", count, 0)), "test") is release


def test_what_cannot_be_read_or_has_no_label_does_not_count() -> None:
    found = rows(both("adm", "test", 6000, 6000))
    assert not is_release("genimage", found.with_columns(error=pl.lit("broken")), "test")
    assert not is_release("genimage", found.with_columns(label=pl.lit(None, pl.Int8)), "test")


@pytest.mark.parametrize(("layout", "subset"), [("folder", "adm"), ("genimage", "mine")])
def test_nothing_is_known_of_other_data(layout: str, subset: str) -> None:
    found = rows(both(subset, "test", 6000, 6000))
    assert not is_release(layout, found, "test")
    assert compare(layout, found) == []
