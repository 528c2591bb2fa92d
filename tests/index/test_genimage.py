import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sare_core.errors import ConfigError
from sare_core.index.genimage import class_of, find
from sare_core.index.listing import Problem
from tests.trees import GENIMAGE, generated, genimage_tree, nasty_files

README_NAMES = {
    "midjourney": "Midjourney",
    "sdv1.4": "Stable Diffusion V1.4",
    "sdv1.5": "Stable Diffusion V1.5",
    "adm": "ADM",
    "glide": "GLIDE",
    "wukong": "Wukong",
    "vqdm": "VQDM",
    "biggan": "BigGAN",
}


def meaning(root: Path, problems: list[Problem] | None = None) -> set[tuple[object, ...]]:
    """What was found, whatever the folders: file name, subset, split, label, class."""
    found = list(find(str(root), [] if problems is None else problems))
    assert len({file.path for file in found}) == len(found)
    assert all((root / file.path).stat().st_size == file.bytes for file in found)
    return {(Path(f.path).name, f.subset, f.split, f.label, f.class_name) for f in found}


def without_inner(root: Path) -> None:
    for outer, inner, *_ in GENIMAGE.values():
        for split in ("train", "val"):
            (root / outer / inner / split).rename(root / outer / split)
        (root / outer / inner).rmdir()


def without_outer(root: Path) -> None:
    for outer, inner, *_ in GENIMAGE.values():
        (root / outer / inner).rename(root / inner)
        (root / outer).rmdir()


def readme(root: Path) -> None:
    without_inner(root)
    for subset, (outer, *_) in GENIMAGE.items():
        (root / outer).rename(root / README_NAMES[subset])


def lower_case(root: Path) -> None:
    for outer, inner, *_ in GENIMAGE.values():
        (root / outer / inner).rename(root / outer / inner.upper())
        (root / outer).rename(root / outer.lower())


def converted(root: Path) -> None:
    without_inner(root)
    for outer, *_ in GENIMAGE.values():
        (root / outer / "val").rename(root / outer / "test")
        for split in ("train", "test"):
            (root / outer / split / "nature").rename(root / outer / split / "0_real")
            (root / outer / split / "ai").rename(root / outer / split / "1_fake")


def converted_split_first(root: Path) -> None:
    converted(root)
    for outer, *_ in GENIMAGE.values():
        for split in ("train", "test"):
            (root / split).mkdir(exist_ok=True)
            (root / outer / split).rename(root / split / outer)
        (root / outer).rmdir()


def test_the_release_is_understood(tmp_path: Path) -> None:
    files = meaning(genimage_tree(tmp_path))
    assert len(files) == 8 * 2 * 2 * 4
    assert {subset for _, subset, *_ in files} == set(GENIMAGE)
    for name, subset, split, label, class_name in files:
        assert isinstance(name, str)
        assert label == (not name.endswith(".JPEG"))
        assert split == "test" or "val" not in name
        if label == 1:
            # The token right before the generator's own word in every pattern.
            tokens = name.split("_")
            assert class_name == str(int(tokens[-3])) and subset[:2] in ("sd", tokens[-2][:2])
        elif split == "train":
            assert class_name == name.split("_")[0]
        else:
            assert class_name is None
    assert any(name.endswith(".PNG") for name, subset, *_ in files if subset == "adm")


@pytest.mark.parametrize(
    "rearrange", [without_inner, without_outer, readme, lower_case, converted, converted_split_first]
)
def test_every_way_of_unpacking_means_the_same(tmp_path: Path, rearrange: Callable[[Path], None]) -> None:
    expected = meaning(genimage_tree(tmp_path / "root", per_cell=2))
    rearrange(tmp_path / "root")
    problems: list[Problem] = []
    assert meaning(tmp_path / "root", problems) == expected
    assert problems == []


@pytest.mark.parametrize(
    "inside", ["", "imagenet_ai_0508_adm", "imagenet_ai_0508_adm/val", "imagenet_ai_0508_adm/val/ai"]
)
def test_the_root_may_be_a_part(tmp_path: Path, inside: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root = genimage_tree(tmp_path, per_cell=2) / "ADM"
    everything = meaning(root / "imagenet_ai_0508_adm")
    assert {subset for _, subset, *_ in everything} == {"adm"} and len(everything) == 8
    part = {file for file in everything if "/val" not in inside or file[2] == "test"}
    part = {file for file in part if "/ai" not in inside or file[3] == 1}
    assert meaning(root / inside) == part
    monkeypatch.chdir(root / inside)
    assert meaning(Path()) == part


def test_the_form_without_split_is_test_data(tmp_path: Path) -> None:
    generated(tmp_path / "stable_diffusion_v_1_5" / "1_fake" / "000_sdv5_00001.png", np.random.default_rng(0))
    assert meaning(tmp_path) == {("000_sdv5_00001.png", "sdv1.5", "test", 1, "0")}


@pytest.mark.parametrize(
    ("name", "label", "expected"),
    [
        ("033_sdv4_00134.png", 1, "33"),
        ("0_midjourney_169.png", 1, "0"),
        ("624_adm_34.PNG", 1, "624"),
        ("729_wukong_image188.png", 1, "729"),
        ("GLIDE_1000_200_05_510_glide_00008.png", 1, "510"),
        ("VQDM_1000_200_02_245_vqdm_00036.png", 1, "245"),
        ("116_biggan_00094.png", 1, "116"),
        ("holiday.png", 1, None),
        ("20230101.png", 1, None),
        ("n01440764_10027.JPEG", 0, "n01440764"),
        ("ILSVRC2012_val_00000612.JPEG", 0, None),
    ],
)
def test_class_from_the_name(name: str, label: int, expected: str | None) -> None:
    assert class_of(name, label) == expected


def test_what_is_passed_over_is_reported(tmp_path: Path) -> None:
    genimage_tree(tmp_path, per_cell=1, subsets=["glide"])
    inner = tmp_path / "glide" / "imagenet_glide"
    shutil.copytree(inner / "train" / "ai", inner / "train" / "extra")
    shutil.copytree(inner, tmp_path / "dalle9")
    (inner / "train" / "ai" / "._0001.png").touch()
    (inner / "train" / "ai" / ".DS_Store").touch()
    (inner / "train" / "ai" / "Thumbs.db").touch()
    for sidecar in ("glide.zip", "glide.z01", "glide.Z02", "metadata.csv", "readme.txt"):
        (tmp_path / sidecar).touch()
    problems: list[Problem] = []
    assert len(meaning(tmp_path, problems)) == 4
    told = dict(problems)
    assert told["glide/imagenet_glide/train/extra"].startswith("1 files not read")
    assert told["dalle9/train/ai"].startswith("1 files not read")
    assert {problem.split()[1] for path, problem in problems if not path} == {".zip", ".z01", ".z02", ".csv", ".txt"}


def test_val_beside_test_is_told(tmp_path: Path) -> None:
    root = genimage_tree(tmp_path, per_cell=1, subsets=["wukong"]) / "wukong" / "imagenet_ai_0424_wukong"
    shutil.copytree(root / "val", root / "test")
    problems: list[Problem] = []
    assert len(list(find(str(tmp_path), problems))) == 6
    assert "both val and test" in problems[0].problem


def test_something_else_is_an_error_that_shows_what_was_found(tmp_path: Path) -> None:
    generated(tmp_path / "holiday" / "beach.png", np.random.default_rng(0))
    with pytest.raises(ConfigError, match=r"(?s)imagenet_midjourney/train/ai.*holiday"):
        meaning(tmp_path)
    with pytest.raises(ConfigError, match="no such folder"):
        meaning(tmp_path / "gone")


@pytest.mark.timeout(20)
def test_links_loops_and_nasty_files(tmp_path: Path) -> None:
    root = genimage_tree(tmp_path, per_cell=1, subsets=["adm"]) / "ADM" / "imagenet_ai_0508_adm" / "train"
    nasty = nasty_files(root / "nature")
    (root / "nature" / "loop").symlink_to(tmp_path)
    (root / "nature" / "itself").symlink_to("itself")
    # The same reals for another generator, by a link: meant, not a loop.
    other = tmp_path / "VQDM" / "imagenet_ai_0419_vqdm" / "train"
    other.mkdir(parents=True)
    (other / "nature").symlink_to(root / "nature")
    (root / os.fsdecode(b"ai/\xff.png")).touch()
    problems: list[Problem] = []
    found = list(find(str(tmp_path), problems))
    for subset in ("adm", "vqdm"):
        names = {Path(f.path).name for f in found if f.subset == subset and f.label == 0 and f.split == "train"}
        assert names > {*nasty, "itself"}
    told = [problem.problem for problem in problems]
    assert sum("link to a folder above it" in text for text in told) >= 2
    assert any("UTF-8" in text for text in told)
    assert found == sorted(found, key=lambda f: f.path.rpartition("/")) == list(find(str(tmp_path), []))


@pytest.mark.parametrize("split", ["holdout", "train2", "train_small", "train-set"])
def test_a_folder_that_may_be_a_split_is_not_taken_for_the_test_split(tmp_path: Path, split: str) -> None:
    (tmp_path / "ADM" / split / "ai").mkdir(parents=True)
    (tmp_path / "ADM" / split / "ai" / "0.png").touch()
    with pytest.raises(
        ConfigError, match=f"{split}' is no split of GenImage's layout. Rename it to train, val or test"
    ):
        list(find(str(tmp_path), []))


def test_usual_words_for_splits_are_understood(tmp_path: Path) -> None:
    for place in ("ADM/training/ai", "ADM/Testing/ai", "training/wukong/1_fake"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "0.png").touch()
    assert sorted((found.subset, found.split) for found in find(str(tmp_path), [])) == [
        ("adm", "test"),
        ("adm", "train"),
        ("wukong", "train"),
    ]
