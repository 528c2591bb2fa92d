"""The models that ship refuse images that are not the scale model's."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from sare_core.engine.manifest import Index
from sare_core.errors import ConfigError
from sare_core.index.indexing import build_index
from sare_core.miniature.foreign import refuse_foreign_images
from sare_core.miniature.unpack import unpack_models
from stages.app import app


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack_models(tmp_path_factory.mktemp("toys") / "anywhere")


def index_of(folder: Path, *shapes: tuple[int, ...]) -> Index:
    rng = np.random.default_rng(0)
    for number, shape in enumerate(shapes):
        (folder / "images").mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
    return build_index("pics", "folder", str(folder / "images"), str(folder / "manifests"), workers=1).index


def test_images_of_the_scale_models_kind_are_taken(tmp_path: Path, models: Path) -> None:
    refuse_foreign_images([f"{models}/captioner"], index_of(tmp_path, (32, 32), (20, 32)))


@pytest.mark.parametrize("shape", [(32, 33), (33, 32), (32, 32, 3)])
@pytest.mark.parametrize("role", ["captioner", "diffusion", "image-encoder", "semantic-encoder"])
def test_one_other_image_is_enough(tmp_path: Path, models: Path, role: str, shape: tuple[int, ...]) -> None:
    index = index_of(tmp_path, (32, 32), shape)
    with pytest.raises(ConfigError, match=r"'pics' holds others, as 1.png \(3[23]×3[23], (L|RGB)\).*--preset paper"):
        refuse_foreign_images([None, "owner/hub-model", f"{models}/{role}"], index)


def test_other_models_take_anything(tmp_path: Path, standin_models: Path) -> None:
    refuse_foreign_images([f"{standin_models}/captioner", "owner/hub-model", None], index_of(tmp_path, (50, 50, 3)))


@pytest.mark.parametrize("stage", ["caption", "reconstruct"])
def test_the_commands_of_the_default_preset_refuse_photos(
    tmp_path: Path, models: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    index_of(tmp_path, (50, 50, 3))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mini").symlink_to(models)
    monkeypatch.chdir(tmp_path)
    where = ["--manifests", str(tmp_path / "manifests"), "--work", str(tmp_path / "work")]
    result = CliRunner().invoke(app, [stage, "--dataset", "pics", *where])
    assert isinstance(result.exception, ConfigError) and "toy model" in str(result.exception)
    assert not (tmp_path / "work").exists(), "before anything is written"
