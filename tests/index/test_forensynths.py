from pathlib import Path

import numpy as np
import pytest

from sare_core.errors import ConfigError
from sare_core.index.forensynths import find
from sare_core.index.listing import Problem
from tests.trees import FORENSYNTHS, forensynths_tree, generated


def places(root: Path, problems: list[Problem] | None = None) -> set[tuple[object, ...]]:
    found = find(str(root), [] if problems is None else problems)
    return {(f.subset, f.split, f.label, f.class_name) for f in found}


def test_the_release_is_understood(tmp_path: Path) -> None:
    problems: list[Problem] = []
    expected = {
        ("sitd" if name == "seeingdark" else name, "test", label, kind)
        for name, kinds in FORENSYNTHS.items()
        for kind in kinds or (None,)
        for label in (0, 1)
    }
    root = forensynths_tree(tmp_path / "CNN_synth_testset")
    assert places(root, problems) == expected
    assert problems == []
    assert len(list(find(str(root), []))) == 2 * 2 * (9 + 9)
    assert places(tmp_path) == expected  # from one folder above


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("train/cat", ("progan", "train", "cat")),
        ("train/train", ("progan", "train", "train")),
        ("val/cat", ("progan", "val", "cat")),
        ("progan/train", ("progan", "test", "train")),
        ("progan/train/cat", ("progan", "train", "cat")),
        ("train/progan/cat", ("progan", "train", "cat")),
        ("test/stylegan/car", ("stylegan", "test", "car")),
        ("test/seeingdark", ("sitd", "test", None)),
        ("biggan/train", ("biggan", "train", None)),
        ("BigGAN", ("biggan", "test", None)),
        ("DALLE2", ("DALLE2", "test", None)),
        ("DALLE2/birds", ("DALLE2", "test", "birds")),
    ],
)
def test_splits_classes_and_other_generators(
    tmp_path: Path, folder: str, expected: tuple[str, str, str | None]
) -> None:
    for kind in ("0_real", "1_fake"):
        generated(tmp_path / "root" / folder / kind / "a.png", np.random.default_rng(0))
    subset, split, kind_name = expected
    assert places(tmp_path / "root") == {(subset, split, label, kind_name) for label in (0, 1)}


def test_the_root_may_be_a_part(tmp_path: Path) -> None:
    forensynths_tree(tmp_path, folders=["progan", "san"])
    assert {place[:2] + place[3:] for place in places(tmp_path / "progan")} == {
        ("progan", "test", kind) for kind in FORENSYNTHS["progan"]
    }
    assert places(tmp_path / "san") == {("san", "test", 0, None), ("san", "test", 1, None)}
    (tmp_path / "progan").rename(tmp_path / "train")
    assert ("progan", "train", 1, "cat") in places(tmp_path / "train")


def test_what_is_passed_over_is_reported(tmp_path: Path) -> None:
    forensynths_tree(tmp_path, folders=["san"])
    generated(tmp_path / "san" / "2_other" / "a.png", np.random.default_rng(0))
    generated(tmp_path / "a" / "b" / "c" / "0_real" / "a.png", np.random.default_rng(0))
    problems: list[Problem] = []
    assert len(places(tmp_path, problems)) == 2
    assert {problem.path for problem in problems} == {"san/2_other", "a/b/c/0_real"}
    with pytest.raises(ConfigError, match=r"2_other: no ForenSynths.*progan/airplane/0_real.*found files in: \.\. "):
        places(tmp_path / "san" / "2_other")


def test_words_for_splits_are_understood_or_refused(tmp_path: Path) -> None:
    for place in ("Train/car/0_real", "training/cat/1_fake"):
        (tmp_path / "understood" / place).mkdir(parents=True)
        (tmp_path / "understood" / place / "0.png").touch()
    found = list(find(str(tmp_path / "understood"), []))
    assert {(each.subset, each.split) for each in found} == {("progan", "train")}
    for number, place in enumerate(("progan_train/car/0_real", "train_small/progan/0_real")):
        (tmp_path / str(number) / place).mkdir(parents=True)
        (tmp_path / str(number) / place / "0.png").touch()
        with pytest.raises(ConfigError, match="a split or a generator"):
            list(find(str(tmp_path / str(number)), []))
