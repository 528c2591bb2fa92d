"""A rehearsal of the recipes: two steps each on made-up articles, through to what would ship."""

import hashlib
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from sare_core.config import Settings, load_settings
from sare_core.errors import SareError
from sare_core.miniature import pack as pack_module
from sare_core.miniature import world as world_module
from sare_core.miniature.corpus import FIELDS
from sare_core.miniature.pack import pack, write_archive
from sare_core.miniature.scenes import PARTS, compose
from sare_core.miniature.world import RECIPES, SUBSETS, World, build
from tests.miniature.articles import made_up_articles


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world of 80 scenes a part, in which the latent recipes have run."""
    work = tmp_path_factory.mktemp("world")
    articles, labels = made_up_articles(80)
    for number, part in enumerate(PARTS):
        scenes = compose(articles, labels, range(80), seed=number)
        np.savez(work / f"scenes-{part}.npz", **{name: getattr(scenes, name) for name in FIELDS})
    return World(work, "nowhere", scale=0.0001)


def test_what_waits_for_what_can_be_run() -> None:
    for name, needs in RECIPES.items():
        assert set(needs) <= RECIPES.keys(), name
    assert {f"{subset.name}-{share}" for subset in SUBSETS for share in subset.worlds or (0.0,)} <= RECIPES.keys()
    assert sorted(subset.number for subset in SUBSETS) == list(range(8))


def test_all_that_ships(rehearsed: World, tmp_path: Path) -> None:
    """What pack writes is what the stages read: each model loads in the class that its stage uses."""
    from sare_core.captioning import load_captioner
    from sare_core.detectors.encoders import load_image_encoder, load_semantic_encoder
    from sare_core.reconstruction.img2img import Img2Img
    from sare_core.reconstruction.mapper import generator_for

    pack(rehearsed, tmp_path)
    models = tmp_path / "models"
    settings: Settings = load_settings("mini")
    reconstructor = Img2Img(settings.reconstruct, str(models / "diffusion"), "cpu")
    (result,) = reconstructor.reconstruct(torch.rand(1, 3, 32, 32), ["a photo of a bag"], [generator_for(0, "a")])
    assert isinstance(result, torch.Tensor)
    assert tuple(result.shape) == (3, 32, 32)

    clip = rehearsed.clip()
    images = torch.randn(2, 3, 32, 32)
    vision = load_image_encoder(str(models / "image-encoder"))
    with torch.no_grad():
        expected = clip.get_image_features(pixel_values=images).pooler_output
        torch.testing.assert_close(vision(pixel_values=images).image_embeds, expected, atol=2e-2, rtol=2e-2)
    encoder = load_semantic_encoder(str(models / "semantic-encoder"))
    assert encoder.forward_features(images).shape[2:] == (4, 4)
    assert load_captioner(settings.caption, str(models / "captioner"), "cpu") is not None

    with tarfile.open(tmp_path / "images.tar.xz") as archive:
        names = archive.getnames()
    images = [name for name in names if name.endswith(".png")]
    # 10 of each class to test and, of sdv1.4, to train; of the null world 3 generators' own.
    assert len(images) == len(set(images)) == 9 * 2 * 10 + 4 * 10
    assert sum(name.startswith("null/") for name in images) == 4 * 10
    assert set(names) - set(images) == {"null/unet/config.json", "null/unet/diffusion_pytorch_model.safetensors"}
    digest = hashlib.sha256((tmp_path / "images.tar.xz").read_bytes()).hexdigest()
    assert (tmp_path / "images.sha256").read_text().strip() == digest


def test_two_images_of_the_same_pixels_do_not_ship(tmp_path: Path) -> None:
    pixels = np.zeros((32, 32), np.uint8)
    with pytest.raises(SareError, match="b has the pixels of a"):
        write_archive(iter([("a", pixels), ("b", pixels)]), tmp_path / "images.tar.xz")


def test_samples_are_drawn_once(rehearsed: World) -> None:
    subset = SUBSETS[0]
    first = rehearsed.samples(subset, 0.7, True)
    assert first.shape == (20, 32, 32) and first.min() >= 0 and first.max() <= 1
    assert rehearsed.samples(subset, 0.7, True).tobytes() == first.tobytes()
    others = [rehearsed.samples(subset, *how) for how in ((0.0, True), (0.7, False), (0.7, True, True))]
    assert len({drawn[:10].tobytes() for drawn in [first, *others]}) == 4


def test_a_recipe_that_fails_stops_the_build(rehearsed: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(world_module, "RECIPES", {"clip": (), "counter": ("clip",)})
    broken = World(tmp_path, "nowhere")
    broken.scenes = rehearsed.scenes
    with pytest.raises(SareError, match="clip failed"):
        build(broken, jobs=2)


def test_a_stopped_build_leaves_no_recipe_running(tmp_path: Path) -> None:
    """Or the same command, given again, would be a second writer of the same checkpoints."""
    command = [sys.executable, "-m", "sare_core.miniature", "--work", str(tmp_path / "work"), "--articles"]
    articles, labels = made_up_articles(50)
    for part in PARTS:
        scenes = compose(articles, labels, range(50), seed=0)
        (tmp_path / "work").mkdir(exist_ok=True)
        np.savez(tmp_path / f"work/scenes-{part}.npz", **{name: getattr(scenes, name) for name in FIELDS})
    with subprocess.Popen([*command, "nowhere"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as parent:
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
        deadline = time.monotonic() + 60
        while not (running := children.read_text().split()) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert running, "no recipe has started"
        parent.terminate()
        assert parent.wait(60) == 143
    assert not [pid for pid in running if Path(f"/proc/{pid}").exists()]


def test_a_rehearsal_is_not_the_start_of_the_real_training(rehearsed: World) -> None:
    rehearsed.clip()
    again = World(rehearsed.work, "nowhere", rehearsed.scale)
    again.clip()
    with pytest.raises(SareError, match=r"clip: holds a training of 2 steps with seed 2, and 800 steps with"):
        World(rehearsed.work, "nowhere").clip()


def test_a_pack_that_fails_leaves_what_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("models/old", "images.tar.xz", "mine.txt"):
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_text("before")

    def written() -> dict[str, str]:
        return {str(f.relative_to(tmp_path)): f.read_text() for f in tmp_path.rglob("*") if f.is_file()}

    def save(world: World, folder: Path) -> None:
        folder.mkdir()
        (folder / "new").write_text("after")

    monkeypatch.setattr(pack_module, "save_models", save)
    monkeypatch.setattr(pack_module, "entries", lambda world: iter(()))
    monkeypatch.setattr(pack_module, "write_archive", lambda entries, path: path.write_text("after" * 10))
    before = written()
    monkeypatch.setitem(pack_module.LARGEST, "images", 20)
    with pytest.raises(SareError, match="more than"):
        pack(World(tmp_path, "nowhere"), tmp_path / "out")
    assert written() == before

    monkeypatch.setitem(pack_module.LARGEST, "images", 100)
    pack(World(tmp_path, "nowhere"), tmp_path / "out")
    digest = hashlib.sha256(b"after" * 10).hexdigest() + "\n"
    made = {"out/models/new": "after", "out/images.tar.xz": "after" * 10, "out/images.sha256": digest}
    assert written() == made | {"out/mine.txt": "before"}
