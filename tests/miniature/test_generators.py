"""Each generator of the miniature world, trained for two steps on a handful of scenes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sare_core.miniature import fitting
from sare_core.miniature.generators import GENERATORS
from sare_core.miniature.scenes import CLASSES, Scenes

STEPS = 2


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    rng = np.random.default_rng(0)
    pixels = rng.uniform(0.1, 0.9, (20, 32, 32)).astype(np.float32)
    classes = np.arange(20, dtype=np.uint8) % len(CLASSES)
    return Scenes(pixels, classes, *(np.zeros(20, np.uint8) for _ in range(4)))


@pytest.fixture(scope="module", params=sorted(GENERATORS))
def trained(request: pytest.FixtureRequest, scenes: Scenes, tmp_path_factory: pytest.TempPathFactory):
    """(generator, its folder, its model after STEPS steps)."""
    generator, folder = GENERATORS[request.param], tmp_path_factory.mktemp(request.param)
    return generator, folder, generator.train(folder, scenes, STEPS, 0)


def test_samples_are_scenes_of_their_classes(trained) -> None:
    generator, _, model = trained
    classes = np.array([0, 1, 2, 9])
    drawn = generator.sample(model, classes, 5)
    assert drawn.shape == (4, 32, 32)
    assert drawn.dtype == np.float32
    assert 0 <= drawn.min() < drawn.max() <= 1
    other = generator.sample(model, np.array([0, 1, 3, 9]), 5)
    changed = (drawn != other).any(axis=(1, 2))
    assert changed.tolist() == [False, False, True, False], "a sample follows its own class, and only its own"


def test_a_sample_depends_on_seed_and_position(trained) -> None:
    generator, _, model = trained
    classes = np.array([4, 4, 4])
    drawn = generator.sample(model, classes, 5)
    np.testing.assert_array_equal(drawn, generator.sample(model, classes, 5))
    np.testing.assert_allclose(drawn[:2], generator.sample(model, classes[:2], 5), atol=1e-4)
    assert np.abs(drawn[0] - drawn[1]).max() > 1e-4
    assert np.abs(drawn - generator.sample(model, classes, 6)).max(axis=(1, 2)).min() > 1e-4


def test_training_goes_on_to_the_bit(trained, scenes: Scenes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator, folder, model = trained
    save, deaths = fitting._save, 0

    def save_and_die(path: Path, state: dict[str, object]) -> None:
        save(path, state)
        raise KeyboardInterrupt

    monkeypatch.setattr(fitting, "CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr(fitting, "_save", save_and_die)
    while True:
        try:
            resumed = generator.train(tmp_path, scenes, STEPS, 0)
            break
        except KeyboardInterrupt:
            deaths += 1
    assert deaths == STEPS * len(list(folder.rglob("training.pt")))
    for name, network in networks(model).items():
        again = networks(resumed)[name].state_dict()
        for key, value in network.state_dict().items():
            assert torch.equal(value, again[key]), f"{name}: {key}"


def networks(model: Any) -> dict[str, torch.nn.Module]:
    return {"only": model} if isinstance(model, torch.nn.Module) else vars(model)
