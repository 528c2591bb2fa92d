"""Each generator of the miniature world, trained for two steps on a handful of scenes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file

from sare_core.miniature import fitting
from sare_core.miniature.generators import cascade, flow, gan, pixel_diffusion, tokens
from sare_core.miniature.generators.drawing import TEXT, guided
from sare_core.miniature.scenes import CLASSES, Scenes

STEPS = 2
GENERATORS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "adm": (pixel_diffusion.train_pixel_diffusion, pixel_diffusion.sample_pixel_diffusion),
    "biggan": (gan.train_gan, gan.sample_gan),
    "glide": (cascade.train_cascade, cascade.sample_cascade),
    "midjourney": (flow.train_flow, flow.sample_flow),
    "vqdm": (tokens.train_tokens, tokens.sample_tokens),
}


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    rng = np.random.default_rng(0)
    pixels = rng.uniform(0.1, 0.9, (20, 32, 32)).astype(np.float32)
    return Scenes(pixels, np.arange(20) % len(CLASSES), rng.random((20, 4)) < 0.5)


class Model(NamedTuple):
    """A generator after STEPS steps, how it was trained, and how it draws: (classes, seed) to scenes."""

    folder: Path
    model: Any
    train: Callable[[Path], Any]
    sample: Callable[[np.ndarray, int], np.ndarray]


@pytest.fixture(scope="module", params=sorted(GENERATORS))
def trained(request: pytest.FixtureRequest, scenes: Scenes, tmp_path_factory: pytest.TempPathFactory) -> Model:
    train, sample = GENERATORS[request.param]
    torch.manual_seed(0)
    decoder: Any = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 8),
        norm_num_groups=4,
    )
    given: Any = decoder.eval() if request.param == "biggan" else 0.7  # the share that captions mention
    run = lambda folder: train(folder, scenes, given, STEPS, 0)  # noqa: E731
    folder = tmp_path_factory.mktemp(request.param)
    model = run(folder)
    return Model(folder, model, run, lambda classes, seed: sample(model, classes, seed, 3.0))


def test_samples_are_scenes_of_their_classes(trained: Model) -> None:
    classes = np.array([0, 1, 2, 4])
    drawn = trained.sample(classes, 5)
    assert drawn.shape == (4, 32, 32)
    assert drawn.dtype == np.float32
    assert 0 <= drawn.min() < drawn.max() <= 1
    other = trained.sample(np.array([0, 1, 3, 4]), 5)
    changed = (drawn != other).any(axis=(1, 2))
    assert changed.tolist() == [False, False, True, False], "a sample follows its own class, and only its own"


def test_a_sample_depends_on_seed_and_position(trained: Model) -> None:
    classes = np.array([4, 4, 4])
    drawn = trained.sample(classes, 5)
    np.testing.assert_array_equal(drawn, trained.sample(classes, 5))
    np.testing.assert_allclose(drawn[:2], trained.sample(classes[:2], 5), atol=1e-4)
    assert np.abs(drawn[0] - drawn[1]).max() > 1e-4
    assert np.abs(drawn - trained.sample(classes, 6)).max(axis=(1, 2)).min() > 1e-4


def test_training_goes_on_to_the_bit(trained: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save, deaths = fitting._save, 0

    def save_and_die(path: Path, state: dict[str, object]) -> None:
        save(path, state)
        raise KeyboardInterrupt

    monkeypatch.setattr(fitting, "CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr(fitting, "_save", save_and_die)
    while True:
        try:
            trained.train(tmp_path)
            break
        except KeyboardInterrupt:
            deaths += 1
    kept = sorted(file.relative_to(tmp_path) for file in tmp_path.rglob("*.safetensors"))
    assert deaths > len({file.parent for file in kept})
    assert kept == sorted(file.relative_to(trained.folder) for file in trained.folder.rglob("*.safetensors"))
    for file in kept:
        before, after = load_file(trained.folder / file), load_file(tmp_path / file)
        assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before), file


def test_worlds_share_the_first_part_of_a_training(scenes: Scenes, tmp_path: Path) -> None:
    for mentioned in (0.0, 0.7):
        flow.train_flow(tmp_path, scenes, mentioned, 3, 0)
    files = {file.parent.name: load_file(file) for file in tmp_path.rglob("*.safetensors")}
    assert files.keys() == {"shared", "0.0", "0.7"}
    assert not torch.equal(files["0.0"]["texts.weight"], files["0.7"]["texts.weight"])


def test_guidance_goes_beyond_what_the_caption_says() -> None:
    texts = torch.ones(2, TEXT)
    said = lambda texts: texts.sum(1)  # noqa: E731
    assert guided(said, texts, 3.0).tolist() == [3.0 * TEXT] * 2
    assert guided(said, texts, 1.0).tolist() == [1.0 * TEXT] * 2
    assert guided(lambda texts: 1 + texts.sum(1), texts, 0.0).tolist() == [1.0] * 2
