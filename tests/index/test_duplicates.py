"""Near-duplicates: copies of one picture are found, other pictures are not, and nothing is read twice."""

from pathlib import Path

import imagehash
import numpy as np
import polars as pl
import pytest
from PIL import Image
from typer.testing import CliRunner

from sare_core.engine.manifest import read_index
from sare_core.errors import ConfigError
from sare_core.index.duplicates import SCHEMA, close_pairs, count_duplicates, near_duplicates
from sare_core.index.indexing import build_index
from stages.app import app


def test_close_pairs_are_all_of_them():
    random = np.random.default_rng(0)
    values = random.integers(0, 2**63, 60, dtype=np.uint64)
    near = values ^ (np.uint64(1) << random.integers(0, 64, 60).astype(np.uint64))
    far = near ^ np.uint64(0b111 << 20)
    together = np.unique(np.concatenate([values, near, far]))
    for distance in (0, 1, 3, 4):
        found = {tuple(sorted(pair)) for pairs in close_pairs(together, distance) for pair in pairs.T.tolist()}
        bits = np.bitwise_count(together[:, None] ^ together)
        expected = {tuple(pair) for pair in np.argwhere(np.triu(bits <= distance, 1)).tolist()}
        assert found == expected and (expected or distance == 0)


def scene(seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((96, 96), Image.Resampling.BICUBIC)


@pytest.fixture
def indexed(tmp_path: Path) -> Path:
    """A training image among the test images, re-saved; a real and a fake alike; fakes of two generators alike."""
    places = {"train/real": [1, 2, 3], "train/fake/one": [4, 5, 6], "test/real": [7, 8, 9]}
    places |= {"test/fake/one": [10, 11, 12], "test/fake/two": [13, 14]}
    for place, seeds in places.items():
        (tmp_path / "images" / place).mkdir(parents=True)
        for seed in seeds:
            scene(seed).save(tmp_path / "images" / place / f"{seed}.png")
    scene(1).save(tmp_path / "images/test/real/again.jpg", quality=70)
    scene(7).resize((80, 80)).save(tmp_path / "images/test/fake/one/again.png")
    scene(10).resize((80, 80)).save(tmp_path / "images/test/fake/two/again.png")
    build_index("pics", "folder", str(tmp_path / "images"), str(tmp_path / "manifests"), holdout=0, workers=1)
    return tmp_path


def test_the_command_finds_them_and_reads_each_image_once(indexed: Path, monkeypatch: pytest.MonkeyPatch):
    command = ["duplicates", "--dataset", "pics", "--manifests", str(indexed / "manifests")]
    first = CliRunner().invoke(app, command)
    assert first.exit_code == 0, first.output
    found = pl.read_csv(indexed / "manifests/pics/near-duplicates.csv")
    assert sorted(tuple(sorted(Path(p).stem for p in group["path"])) for _, group in found.group_by("group")) == [
        ("1", "again"),
        ("10", "again"),
        ("7", "again"),
    ]
    assert dict(count_duplicates(found)) == {
        "test images like one of train or val": 1,
        "test images like another test image": 4,
        "test images like one of another generator's subset": 4,
        "images like one of the other label": 2,
        "images with a near-duplicate": 6,
    }

    def refuse(*_: object) -> None:
        raise AssertionError("an image is read again")

    monkeypatch.setattr(imagehash, "phash", refuse)
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 0, again.output
    assert "3 groups" in " ".join(again.output.split())


def test_images_that_are_gone_are_no_clean_data_set(indexed: Path):
    command = ["duplicates", "--dataset", "pics", "--manifests", str(indexed / "manifests")]
    (indexed / "images").rename(indexed / "elsewhere")
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1 and "17 of 17 images cannot be read" in str(done.exception)
    assert not (indexed / "manifests/pics/near-duplicates.csv").exists()


def test_hashes_are_imagehashs(indexed: Path):
    index = read_index(str(indexed / "manifests"), "pics")
    CliRunner().invoke(app, ["duplicates", "--dataset", "pics", "--manifests", str(indexed / "manifests")])
    hashes = dict(pl.read_parquet(index.store.local("perceptual-hashes.parquet")).iter_rows())
    for row in index.frame().iter_rows(named=True):
        with Image.open(indexed / "images" / row["path"]) as image:
            assert f"{hashes[row['image_id']]:016x}" == str(imagehash.phash(image.convert("RGB")))


def test_a_distance_that_is_none_is_refused():
    with pytest.raises(ConfigError, match="--distance 13"):
        near_duplicates(pl.DataFrame(), SCHEMA.to_frame(), 13)
