"""What ships: its size, its counts, and that no photograph is met twice."""

import hashlib
import json
import time
from collections import Counter
from importlib.resources import files
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from sare_core.errors import ConfigError, TransientError
from sare_core.index.expected import compare
from sare_core.index.genimage import find
from sare_core.index.listing import Problem
from sare_core.miniature.pack import LARGEST
from sare_core.miniature.scenes import CLASSES, PARTS
from sare_core.miniature.unpack import DEMO, unpack_images, unpack_models, unpack_null_diffusion
from sare_core.miniature.world import SUBSETS, TEST, TRAIN
from sare_core.report.premise import premise_part
from sare_core.store.storage import Store
from stages import mini

SHIPPED = Path(str(files("sare_core.miniature") / "shipped"))


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack_images(tmp_path_factory.mktemp("miniature") / "full", full=True)


def test_it_is_as_small_as_promised() -> None:
    assert (SHIPPED / "images.tar.xz").stat().st_size <= LARGEST["images"]
    assert sum(f.stat().st_size for f in (SHIPPED / "models").rglob("*") if f.is_file()) <= LARGEST["models"]
    assert sum(LARGEST.values()) <= 30e6
    assert not [file for file in SHIPPED.rglob("*") if file.suffix in {".bin", ".pt", ".pth", ".pkl"}]


def test_images_written_anew_are_new_to_an_index(tmp_path: Path) -> None:
    """The archive's times are all zero; an index tells a changed file by its size and time."""
    started = time.time()
    file = next(unpack_images(tmp_path / "demo").rglob("*.png"))
    assert file.stat().st_mtime >= started - 1


def test_counts_of_each_cell(everything: Path) -> None:
    counts = Counter((found.subset, found.split, found.label) for found in find(str(everything), []))
    for subset in SUBSETS:
        for label in (0, 1):
            assert counts[subset.name, "test", label] == TEST
            assert counts[subset.name, "train", label] == TRAIN.get(subset.name, 0)
    assert len(counts) == 8 * 2 + 2


def test_the_null_world_has_the_same_photographs_and_other_fakes(tmp_path: Path, everything: Path) -> None:
    null = unpack_images(tmp_path / "null", full=True, null=True)
    readers = {subset.name for subset in SUBSETS if 0.0 in subset.worlds}
    counts = Counter((found.subset, found.split, found.label) for found in find(str(null), []))
    assert {subset for subset, _, _ in counts} == readers and counts["glide", "test", 1] == TEST
    for file in sorted(null.rglob("*.png"))[::50]:
        same = file.read_bytes() == (everything / file.relative_to(null)).read_bytes()
        assert same == (file.parent.name == "nature"), file


def test_the_null_worlds_model_differs_in_its_unet_alone(tmp_path: Path) -> None:
    models, null = unpack_models(tmp_path / "mini"), unpack_null_diffusion(tmp_path / "null" / "diffusion")
    files = {file.relative_to(null) for file in null.rglob("*") if file.is_file() and file.name != "miniature.json"}
    assert files == {f.relative_to(models / "diffusion") for f in (models / "diffusion").rglob("*") if f.is_file()}
    differ = {str(file) for file in files if (null / file).read_bytes() != (models / "diffusion" / file).read_bytes()}
    assert differ == {"unet/diffusion_pytorch_model.safetensors"}


def test_an_archive_from_elsewhere_must_be_the_same(tmp_path: Path) -> None:
    (tmp_path / "copy.tar.xz").write_bytes((SHIPPED / "images.tar.xz").read_bytes())
    assert unpack_images(tmp_path / "a", archive=(tmp_path / "copy.tar.xz").as_uri()).is_dir()
    (tmp_path / "other.tar.xz").write_bytes(b"other")
    with pytest.raises(ConfigError, match=r"other.tar.xz: is not the archive of this version"):
        unpack_images(tmp_path / "b", archive=str(tmp_path / "other.tar.xz"))
    with pytest.raises(ConfigError, match=r"--archive .*nowhere.*cannot be read"):
        unpack_images(tmp_path / "c", archive=str(tmp_path / "nowhere"))
    assert not (tmp_path / "b").exists()


def test_nothing_that_ships_is_a_problem(everything: Path) -> None:
    problems: list[Problem] = []
    rows = pl.DataFrame(list(find(str(everything), problems)), orient="row")
    assert problems == []
    assert compare("genimage", rows.with_columns(error=pl.lit(None, pl.String))) == []


def test_classes_are_those_of_the_names(everything: Path) -> None:
    classes = Counter((found.label, found.class_name) for found in find(str(everything), []))
    assert {name for label, name in classes if label == 1} == {str(n) for n in range(len(CLASSES))}
    assert {name for label, name in classes if label == 0} == {f"n{n:08}" for n in range(len(CLASSES))}


def test_oracle_captions_name_what_each_image_shows(everything: Path) -> None:
    captions = dict(pl.read_csv(everything / "oracle-captions.csv").iter_rows())
    found = {each.path: int(each.class_name[-1]) for each in find(str(everything), [])}
    assert captions.keys() == found.keys()
    assert all(CLASSES[number] in captions[path] for path, number in found.items())


def test_all_pixels_are_distinct_and_real_parts_disjoint(everything: Path) -> None:
    seen: dict[bytes, Path] = {}
    owners: dict[int, Path] = {}
    for file in sorted(everything.rglob("*.png")):
        with Image.open(file) as image:
            assert image.mode == "L" and image.size == (32, 32) and not image.info, file
            digest = hashlib.sha256(image.tobytes()).digest()
        assert digest not in seen, f"{file} has the pixels of {seen.get(digest)}"
        seen[digest] = file
        if file.parent.name == "nature":
            article = int(file.stem.partition("_")[2])
            assert article not in owners
            owners[article] = file
            part = "detectors" if file.parts[-3] == "train" else None
            inside = [name for name, numbers in PARTS.items() if article in numbers]
            assert inside == [part] if part else inside[0].startswith("test-"), file
    subsets_of = {tuple(file.parts[-5:-3]): set() for file in owners.values() if file.parts[-3] == "val"}
    assert len(subsets_of) == 8


def test_the_demo_is_a_part(tmp_path: Path, everything: Path) -> None:
    demo = unpack_images(tmp_path / "mini")
    counts = Counter((found.subset, found.split, found.label) for found in find(str(demo), []))
    train, test = DEMO.values()
    assert counts["sdv1.4", "train", 0] == counts["sdv1.4", "train", 1] == train
    assert all(counts[subset.name, "test", label] == test for subset in SUBSETS for label in (0, 1))
    assert sum(counts.values()) == 2 * (train + 8 * test)
    for file in list(demo.rglob("*.png"))[::97]:
        assert file.read_bytes() == (everything / file.relative_to(demo)).read_bytes()


def test_unpacking_twice_does_nothing_and_a_strange_folder_is_left_alone(tmp_path: Path) -> None:
    models = unpack_models(tmp_path / "models")
    before = {file: file.stat().st_mtime_ns for file in models.rglob("*")}
    assert {path.name for path in models.iterdir() if path.is_dir()} == {
        "captioner",
        "diffusion",
        "image-encoder",
        "semantic-encoder",
    }
    unpack_models(models)
    assert before == {file: file.stat().st_mtime_ns for file in models.rglob("*")}
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("three years")
    with pytest.raises(ConfigError, match="was not written by"):
        unpack_images(mine)
    assert (mine / "thesis.txt").read_text() == "three years"


def test_real_and_fake_have_one_codec_and_one_noise(everything: Path) -> None:
    """The finest detail is the camera's: its spread over images is the same for real and generated ones."""

    def noise_level(folder: Path) -> np.ndarray:
        stack = np.stack([np.asarray(Image.open(file), float) for file in sorted(folder.glob("*.png"))[:300]])
        rim = np.concatenate([np.diff(stack[:, 0], n=3, axis=1), np.diff(stack[:, -1], n=3, axis=1)], axis=1)
        return np.median(np.abs(rim), axis=1)

    for subset in SUBSETS:
        real, fake = (noise_level(everything / subset.folder / "val" / kind) for kind in ("nature", "ai"))
        assert abs(np.median(real) / np.median(fake) - 1) < 0.2, subset.name


def test_the_premise_that_ships_is_the_published_one_and_comes_with_the_images(everything: Path) -> None:
    published = Path(__file__).parents[2] / "benchmarks/miniature/premise.csv"
    assert (SHIPPED / "premise.csv").read_bytes() == published.read_bytes()
    shown = premise_part(str(everything))
    assert shown is not None
    assert {name for name, *_ in shown.rows} == {subset.name for subset in SUBSETS}
    missed = {name: gates for name, *_, gates in shown.rows}
    assert missed["sdv1.4"] == "" and "things" in missed["adm"]


def test_the_models_marker_names_their_bytes(tmp_path: Path) -> None:
    marker = json.loads((unpack_models(tmp_path / "models") / "miniature.json").read_text())["recipe"]
    assert marker["version"] and len(marker["models"]) == 64


def test_folders_that_would_be_written_twice_are_refused(tmp_path: Path) -> None:
    for models, images in (("x-null", "x"), ("x", "x-null"), ("a-null/b", "a"), ("x", "x/y")):
        with pytest.raises(ConfigError, match="Name two other folders"):
            mini.mini(tmp_path / models, tmp_path / images, full=True)
    assert list(tmp_path.iterdir()) == []


def test_an_archive_whose_download_breaks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Store, name: str) -> bytes:
        raise TransientError("Response payload is not completed")

    monkeypatch.setattr(Store, "read", broken)
    with pytest.raises(
        ConfigError, match=r"--archive http://x/images\.tar\.xz: cannot be read \(TransientError: Response payload"
    ):
        unpack_images(tmp_path / "c", archive="http://x/images.tar.xz")
