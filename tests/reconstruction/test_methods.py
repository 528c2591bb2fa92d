"""Methods by name: which folder they make, what they need, and a method of somebody's own."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sare_core import reconstruction
from sare_core.config import Settings, load_settings
from sare_core.config.reconstruction import ReconstructSettings
from sare_core.errors import ConfigError
from sare_core.graph import Graph
from sare_core.models.weights import resolve
from sare_core.reconstruction import method_names, method_of, register
from sare_core.reconstruction.mapper import Mapper

METHODS = ("img2img", "one_step", "autoencoder", "ddim_inversion")
CAPTIONED = {"img2img", "one_step"}
OWN = """
import torch
from sare_core.reconstruction import register

class Negative:
    multiple = 4

    def __init__(self, settings, folder, device):
        pass

    def reconstruct(self, images, captions, generators):
        return list(0.5 - images / 2)

register("negative", "negative:Negative", unused={"steps", "strength"})
"""


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Folders as models have them, which nobody could load."""
    for name in ("captioner", "diffusion", "tokenizer"):
        folder = tmp_path / "models" / name / "unet"
        folder.mkdir(parents=True)
        (folder.parent / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(name.encode())
    return tmp_path / "models"


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten after it."""
    monkeypatch.setattr(reconstruction, "_METHODS", dict(reconstruction._METHODS))


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of a method of somebody's own, imported."""
    (tmp_path / "negative.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    __import__("negative")
    yield tmp_path / "negative.py"
    del sys.modules["negative"]


def graph(models: Path, *overrides: str) -> Graph:
    resolve.cache_clear()
    places = (
        f"caption.model={models}/captioner",
        f"caption.text_tokenizer={models}/tokenizer",
        f"reconstruct.model={models}/diffusion",
    )
    settings: Settings = load_settings("paper", [*places, *overrides])
    return Graph(settings, "it", "work")


def folder(models: Path, method: str, *overrides: str) -> str:
    return graph(models, f"reconstruct.method={method}", *overrides).reconstructions.fingerprint


def of(*overrides: str) -> ReconstructSettings:
    return load_settings("paper", list(overrides)).reconstruct


def test_the_folders_of_the_paper_keep_their_names(models: Path) -> None:
    """As they were before there were methods and draws."""
    made = graph(models)
    assert (made.captions.fingerprint, made.reconstructions.fingerprint) == ("225951959487", "6fe9fd5564e4")


def test_a_neutral_value_is_left_out_and_another_counts(models: Path) -> None:
    values = {"noise_draws": 1, "method": "img2img", "cache_interval": 1, "rounds": 1}
    values |= {"sampler": "ddim", "token_merging": 0}
    neutral = of(*(f"reconstruct.{name}={value}" for name, value in values.items())).fingerprint_fields()
    assert not values.keys() & neutral.keys()
    assert of("reconstruct.noise_draws=3").fingerprint_fields() == neutral | {"noise_draws": 3}
    others = ("noise_draws=3", "cache_interval=2", "cache_interval=3", "rounds=2", "sampler=lcm", "token_merging=0.5")
    made = {folder(models, "img2img", f"reconstruct.{other}") for other in others}
    assert len(made | {folder(models, "img2img")}) == 7
    assert len({folder(models, method) for method in METHODS}) == len(METHODS)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("override", "unused_by"),
    [
        ("reconstruct.steps=40", {"autoencoder"}),
        ("reconstruct.strength=0.7", {"autoencoder"}),
        ("reconstruct.guidance_scale=5", {"autoencoder", "ddim_inversion"}),
        ("reconstruct.eta=0.5", {"autoencoder", "ddim_inversion", "one_step"}),
        ("caption.num_beams=2", {"autoencoder", "ddim_inversion"}),
        ("reconstruct.latents=mean", set()),
        ("reconstruct.longer_side=256", set()),
        ("seed=1", set()),
        ("view=square", set()),
    ],
)
def test_only_what_a_method_uses_moves_its_folder(
    models: Path, method: str, override: str, unused_by: set[str]
) -> None:
    assert (folder(models, method) == folder(models, method, override)) == (method in unused_by)


@pytest.mark.parametrize("method", METHODS)
def test_only_guidance_by_captions_needs_captions(models: Path, method: str) -> None:
    made = graph(models, f"reconstruct.method={method}").reconstructions
    assert method_of(of(f"reconstruct.method={method}")).needs_captions == (method in CAPTIONED)
    assert bool(made.upstream) == ("captions" in made.made_by) == (method in CAPTIONED)


def test_an_unknown_method_names_those_that_there_are() -> None:
    with pytest.raises(
        ConfigError, match=r"no method 'dire'; there are autoencoder, ddim_inversion, img2img, inpaint, one_step"
    ):
        method_of(of("reconstruct.method=dire"))


@pytest.mark.parametrize(
    ("overrides", "refused"),
    [
        (["steps=4", "strength=0.2"], True),
        (["steps=5", "strength=0.2"], False),
        (["steps=4", "strength=0.2", "sampler=lcm"], False),
        (["strength=0"], False),  # the autoencoder alone
        (["method=one_step", "steps=4", "strength=0.2"], True),
        (["method=autoencoder", "steps=4", "strength=0.2"], False),
        (["method=ddim_inversion", "strength=0"], True),
        (["method=inpaint", "strength=0"], True),
    ],
)
def test_a_strength_that_leaves_no_step_is_refused_before_anything_is_loaded(
    overrides: list[str], refused: bool
) -> None:
    settings = of(*(f"reconstruct.{override}" for override in overrides))
    if refused:
        with pytest.raises(ConfigError, match=r"reconstruct\.strength=0\.\d of \d+ steps leaves no step; raise one"):
            method_of(settings)
    else:
        assert method_of(settings).name == settings.method


@pytest.mark.parametrize(
    ("overrides", "refused"),
    [
        (["method=img2img"], False),
        (["method=img2img", "latents=mean"], False),
        (["method=img2img", "latents=mean", "strength=0"], True),
        (["method=autoencoder"], False),  # the sampled latents differ
        (["method=autoencoder", "latents=mean"], True),
        (["method=ddim_inversion", "latents=mean"], True),
    ],
)
def test_draws_that_would_all_be_the_same_are_refused(overrides: list[str], refused: bool) -> None:
    settings = of("reconstruct.noise_draws=2", *(f"reconstruct.{override}" for override in overrides))
    if refused:
        with pytest.raises(ConfigError, match=r"reconstruct\.noise_draws=2: .* Set reconstruct\.noise_draws=1"):
            method_of(settings)
    else:
        assert method_of(settings).name == settings.method


@pytest.mark.parametrize("method", METHODS)
def test_a_cache_is_refused_where_it_plays_no_part(models: Path, method: str) -> None:
    if method == "img2img":
        assert folder(models, method, "reconstruct.cache_interval=2") != folder(models, method)
    else:
        with pytest.raises(ConfigError, match=rf"cache_interval=2: plays no part in {method}\. Set .*interval=1"):
            folder(models, method, "reconstruct.cache_interval=2")


def test_a_method_of_somebodys_own(own: Path, models: Path) -> None:
    settings = of("reconstruct.method=negative", "reconstruct.longer_side=16")
    mapper = Mapper.load(settings, 0, "", "cpu")
    x = mapper.fit(Image.new("RGB", (32, 30), (10, 100, 250)))
    assert x.shape == (12, 16, 3)
    (mapped,) = mapper.maps([x], [""], ["id"])
    found: Any = mapped
    assert found.reconstruction[0, 0].tolist() == [245, 155, 5]
    assert found.sare[0, 0].tolist() == [235, 55, 245]
    assert found.sare.dtype == np.uint8

    before = folder(models, "negative")
    assert folder(models, "negative", "reconstruct.steps=40", "caption.num_beams=2") == before
    own.write_text(OWN + "# edited\n")
    assert folder(models, "negative") != before


def test_faults_of_an_own_method_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="registered already"):
        register("img2img", "mine:Mine")
    with pytest.raises(ValueError, match=r"'package\.module:Class', not 'mine'"):
        register("mine", "mine")
    with pytest.raises(ValueError, match=r"no setting reconstruct\.step"):
        register("mine", "mine:Mine", unused={"step"})
    register("gone", "no_such_module:Mine")
    assert "gone" in method_names()
    settings = of("reconstruct.method=gone")
    with pytest.raises(ConfigError, match=r"cannot be imported .*no_such_module"):
        method_of(settings).load(settings, "", "cpu")
    with pytest.raises(ConfigError, match=r"cannot be imported .*no_such_module"):
        method_of(settings).fingerprint_fields(settings)


def test_folders_are_named_without_torch() -> None:
    ask = "import sys, sare_core.graph; print('torch' in sys.modules, 'diffusers' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["False", "False"]


def test_a_grid_that_is_coarser_than_the_image_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"reconstruct\.size_multiple=1000 is above longer_side=32"):
        load_settings("mini", ["reconstruct.size_multiple=1000"])


def test_a_grid_that_the_model_cannot_take_is_refused(models: Path) -> None:
    settings = of("reconstruct.size_multiple=12")
    with pytest.raises(ConfigError, match=r"size_multiple=12: this model takes multiples of 8"):
        Mapper(settings, 0, SimpleNamespace(multiple=8))  # type: ignore[arg-type]
    coarse = Mapper(of("reconstruct.size_multiple=16", "reconstruct.longer_side=64"), 0, SimpleNamespace(multiple=8))  # type: ignore[arg-type]
    assert coarse.size(640, 400) == (64, 32)
