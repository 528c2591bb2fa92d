from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sare_core.errors import ConfigError
from sare_core.images.sources import locate
from sare_core.index.folder import find
from sare_core.index.listing import Problem, base_folder
from tests.trees import generated, nasty_files

Place = tuple[str, str, str, int | None]


def places(root: Path | str, problems: list[Problem] | None = None) -> set[Place]:
    found = list(find(str(root), [] if problems is None else problems))
    return {(f.path, f.subset, f.split, f.label) for f in found}


def make(root: Path, *paths: str) -> Path:
    for path in paths:
        generated(root / path, np.random.default_rng(0), side=8)
    return root


def test_several_generators_share_the_reals(tmp_path: Path) -> None:
    make(tmp_path, "train/real/a/1.png", "train/fake/sdxl/2.png", "test/real/3.png", "test/fake/flux/deep/4.png")
    assert places(tmp_path) == {
        ("train/real/a/1.png", "real", "train", 0),
        ("train/fake/sdxl/2.png", "sdxl", "train", 1),
        ("test/real/3.png", "real", "test", 0),
        ("test/fake/flux/deep/4.png", "flux", "test", 1),
    }


def test_one_generator_has_the_reals_in_its_subset(tmp_path: Path) -> None:
    make(tmp_path, "val/real/1.png", "val/fake/sdxl/2.png")
    assert places(tmp_path) == {("val/real/1.png", "sdxl", "val", 0), ("val/fake/sdxl/2.png", "sdxl", "val", 1)}


def test_no_generator_and_no_split(tmp_path: Path) -> None:
    problems: list[Problem] = []
    make(tmp_path, "real/1.png", "fake/2.png", "stray.png")
    assert places(tmp_path, problems) == {("real/1.png", "images", "test", 0), ("fake/2.png", "images", "test", 1)}
    assert problems == [Problem("", "1 files not read: neither in real/ nor in fake/")]


def test_reals_only(tmp_path: Path) -> None:
    assert places(make(tmp_path, "real/1.png")) == {("real/1.png", "real", "test", 0)}


def test_a_plain_folder_is_unlabelled(tmp_path: Path) -> None:
    nasty = nasty_files(tmp_path / "holiday")
    (tmp_path / "holiday" / ".thumbnails").mkdir()
    make(tmp_path, "holiday/.thumbnails/1.png")
    found = places(tmp_path)
    assert found == {(f"holiday/{name}", "images", "test", None) for name in nasty}


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_of_paths(tmp_path: Path, suffix: str) -> None:
    make(tmp_path / "data", "pictures/1.png", "2.png", "3,4.png", "5.png")
    make(tmp_path / "elsewhere", "6.png")
    outside = str(tmp_path / "elsewhere" / "6.png")
    table = pl.DataFrame(
        {
            "path": ["pictures/1.png", "./2.png", "3,4.png", "5.png", outside, "gone.png"],
            "label": ["real", "1", "0", None, "FAKE", "1.0"],
            "subset": ["a", "b", None, "b", "b", "b"],
            "split": ["train", "val", None, "test", "test", "test"],
            "class": ["dog", None, None, None, None, None],
            "note": ["x"] * 6,
        }
    )
    root = tmp_path / "data" / f"table{suffix}"
    table.write_csv(root) if suffix == ".csv" else table.write_parquet(root)
    problems: list[Problem] = []
    found = {file.path: file for file in find(str(root), problems)}
    assert {(f.path, f.subset, f.split, f.label, f.class_name) for f in found.values()} == {
        ("pictures/1.png", "a", "train", 0, "dog"),
        ("2.png", "b", "val", 1, None),
        ("3,4.png", "images", "test", 0, None),
        ("5.png", "b", "test", None, None),
        (outside, "b", "test", 1, None),
        ("gone.png", "b", "test", 1, None),
    }
    assert [problem.problem for problem in problems] == [f"{root}: columns that the index has no use for: note"]
    for path, file in found.items():
        full = Path(locate(base_folder(str(root)), path))
        assert file.bytes == (full.stat().st_size if path != "gone.png" else None)


def test_labels_as_numbers_and_paths_alone(tmp_path: Path) -> None:
    make(tmp_path, "1.png", "2.png")
    pl.DataFrame({"path": ["1.png", "2.png"], "label": [0, 1]}).write_parquet(tmp_path / "numbers.parquet")
    assert {(path, label) for path, _, _, label in places(tmp_path / "numbers.parquet")} == {("1.png", 0), ("2.png", 1)}
    (tmp_path / "paths.csv").write_text("path\n1.png\n2.png\n")
    assert places(tmp_path / "paths.csv") == {("1.png", "images", "test", None), ("2.png", "images", "test", None)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\n1.png,real\n2.png,maybe\n", r"row 2: label 'maybe'"),
        ("path,label\n1.png,2\n", r"row 1: label '2'"),
        ("path,split\n1.png,holdout\n", r"row 1: split 'holdout'"),
        ("path,label\n,real\n", r"row 1: no path"),
        ("name,label\n1.png,real\n", r"no column `path`. It holds: name, label"),
        ("", r"not readable as a table"),
        ("path\n1.png,2.png,3.png\n", r"not readable as a table"),
    ],
)
def test_a_bad_table_names_the_row(tmp_path: Path, text: str, message: str) -> None:
    table = tmp_path / "table.csv"
    table.write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        places(table)
    assert str(table) in str(error.value)


def test_bad_roots(tmp_path: Path) -> None:
    (tmp_path / "table.parquet").write_bytes(b"PAR1 but no more")
    for name, message in [
        ("table.parquet", "not readable"),
        ("gone.csv", "cannot be read"),
        ("gone", "no such folder"),
    ]:
        with pytest.raises(ConfigError, match=message):
            places(tmp_path / name)
    make(tmp_path, "one.png")
    with pytest.raises(ConfigError, match="a file, not a folder"):
        places(tmp_path / "one.png")


def test_a_url(tmp_path: Path) -> None:
    make(tmp_path, "real/1.png", "fake/sdxl/2.png", "fake/sdxl/.hidden.png", "notes.txt")
    local, remote = (list(find(root, [])) for root in (str(tmp_path), f"file://{tmp_path}"))
    assert [file._replace(mtime_ns=0) for file in local] == [file._replace(mtime_ns=0) for file in remote]
    assert all(abs(a.mtime_ns - b.mtime_ns) < 1000 for a, b in zip(local, remote, strict=True))
