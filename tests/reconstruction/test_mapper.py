"""The mean map of several draws, the noise of each, and what the stage leaves where no captions are needed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from sare_core.config import Settings
from sare_core.config.reconstruction import ReconstructSettings
from sare_core.errors import ImageError
from sare_core.images.decoding import resize
from sare_core.reconstruction.mapper import Mapped, Mapper, generator_for
from tests.pipeline import Pipeline
from tests.trees import genimage_tree

MakeSettings = Callable[..., Settings]
IMAGE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


class Shifted:
    """x̂ is x, moved by as many levels as the generator's first integers say; the levels are kept in `moves`."""

    multiple = 8

    def __init__(self, fail_at: int = 0) -> None:
        self.moves: list[np.ndarray] = []
        self.fail_at = fail_at

    def reconstruct(
        self, images: torch.Tensor, captions: list[str], generators: list[torch.Generator]
    ) -> list[torch.Tensor | ImageError]:
        results: list[torch.Tensor | ImageError] = []
        for image, generator in zip(images, generators, strict=True):
            move = torch.randint(-9, 10, image.shape, generator=generator)
            results.append(((image / 2 + 0.5) + move / 255).clamp(0, 1))
            self.moves.append(move.permute(1, 2, 0).numpy())
        if len(self.moves) == self.fail_at:
            results[0] = ImageError("the reconstruction is all black")
        return results


def mapped(settings: ReconstructSettings, reconstructor: Shifted, image: np.ndarray = IMAGE) -> Any:
    return Mapper(settings, 5, reconstructor).maps([image], ["a cat"], ["id"])[0]


def test_the_map_is_the_mean_of_the_draws(standin_settings: MakeSettings) -> None:
    settings = standin_settings("reconstruct.noise_draws=3").reconstruct
    image = np.full((8, 8, 3), 100, np.uint8)  # far from black and white, where a move would be cut off
    model = Shifted()
    found = mapped(settings, model, image)
    first, second, third = model.moves
    assert not np.array_equal(first, second)
    assert np.array_equal(found.reconstruction, image + first)
    thirds = abs(first) + abs(second) + abs(third)
    assert np.array_equal(found.sare, (thirds + 1) // 3)  # the nearest level: a third has no half
    one = mapped(standin_settings().reconstruct, Shifted(), image)
    assert np.array_equal(one.sare, abs(first))
    assert np.array_equal(one.reconstruction, found.reconstruction)


def test_a_half_goes_to_the_even_level(standin_settings: MakeSettings) -> None:
    model = Shifted()
    found = mapped(standin_settings("reconstruct.noise_draws=2").reconstruct, model, np.full((8, 8, 3), 100, np.uint8))
    sums = abs(model.moves[0]) + abs(model.moves[1])
    assert (sums % 4 == 1).any() and (sums % 4 == 3).any()
    assert np.array_equal(found.sare, sums // 2 + (sums % 4 == 3))


def test_each_draw_has_noise_of_its_own() -> None:
    def numbers(*what: Any) -> tuple[float, ...]:
        return tuple(torch.randn(4, generator=generator_for(*what)).tolist())

    kinds = {numbers(0, "a"), numbers(0, "a", 2), numbers(0, "a", 3), numbers(0, "b", 2), numbers(1, "a", 2)}
    assert len(kinds) == 5
    assert numbers(0, "a", 1) == numbers(0, "a")
    assert generator_for(0, "a").initial_seed() == 6841154156042874738, "the noise of all maps made so far"


def test_an_image_that_fails_in_any_draw_fails(standin_settings: MakeSettings) -> None:
    settings = standin_settings("reconstruct.noise_draws=3").reconstruct
    assert isinstance(mapped(settings, Shifted(fail_at=2)), ImageError)
    assert isinstance(mapped(settings, Shifted()), Mapped)


def test_a_second_round_is_of_the_reconstruction_with_the_same_noise(standin_settings: MakeSettings) -> None:
    settings = standin_settings("reconstruct.rounds=2", "reconstruct.noise_draws=2").reconstruct
    image, distances = np.full((8, 8, 3), 100, np.uint8), list[tuple[np.ndarray, np.ndarray]]()
    model = Shifted()
    mapper = Mapper(settings, 5, model, lambda *pair: distances.append(pair) or 0.0)  # type: ignore[func-returns-value]
    (found,) = mapper.maps([image], [""], ["id"])
    first, again, other, other_again = model.moves
    assert np.array_equal(first, again) and np.array_equal(other, other_again) and not np.array_equal(first, other)
    assert isinstance(found, Mapped)
    assert np.array_equal(found.reconstruction, image + 2 * first)
    assert np.array_equal(found.sare, np.rint((abs(first) + abs(other)) / 2))
    for (x, x_hat), move in zip(distances, (first, other), strict=True):
        assert np.array_equal(x, image + move) and np.array_equal(x_hat, image + 2 * move)


@pytest.mark.parametrize("fail_at", [1, 2])
def test_an_image_that_fails_in_either_round_fails(fail_at: int, standin_settings: MakeSettings) -> None:
    assert isinstance(mapped(standin_settings("reconstruct.rounds=2").reconstruct, Shifted(fail_at)), ImageError)


def test_distance_and_size_are_of_the_mean(standin_settings: MakeSettings) -> None:
    settings = standin_settings("reconstruct.noise_draws=2", "reconstruct.sare_size=12").reconstruct
    distances = iter([1.0, 4.0])
    mapper = Mapper(settings, 5, Shifted(), lambda image, other: next(distances))
    (found,) = mapper.maps([IMAGE], [""], ["id"])
    assert isinstance(found, Mapped)
    assert found.lpips == 2.5
    whole = mapped(standin_settings("reconstruct.noise_draws=2").reconstruct, Shifted())
    assert np.array_equal(found.sare, np.asarray(resize(Image.fromarray(whole.sare), (12, 12), "bilinear")))
    assert whole.lpips is None


def test_more_draws_make_steadier_maps(standin_settings: MakeSettings) -> None:
    """With the model of the stand-ins: the map's mean over draws varies less between seeds than that of one draw."""
    spread = []
    for draws in (1, 4):
        settings = standin_settings("reconstruct.steps=2", f"reconstruct.noise_draws={draws}").reconstruct
        model = Mapper.load(settings, 0, settings.model, "cpu").reconstructor
        maps = [Mapper(settings, seed, model).maps([IMAGE], ["a cat"], ["id"])[0] for seed in range(4)]
        spread.append(np.std([each.sare for each in maps if isinstance(each, Mapped)], axis=0).mean())
    assert spread[1] < 0.75 * spread[0]


@pytest.mark.parametrize("method", ["autoencoder", "ddim_inversion"])
def test_without_captions_the_stage_waits_for_none(method: str, standin_settings: MakeSettings, tmp_path: Path) -> None:
    """Shards are reconstructed, square first, though nobody has captioned anything."""
    from sare_core.engine.shardfiles import read_samples

    settings = standin_settings(
        f"reconstruct.method={method}", "reconstruct.steps=2", "reconstruct.longer_side=32", "view=square"
    )
    pipeline = Pipeline(settings, str(tmp_path / "manifests"), str(tmp_path / "work"))
    index = pipeline.index(genimage_tree(tmp_path / "data", per_cell=2, subsets=["sdv1.4"]))
    assert pipeline.reconstructions().complete
    assert not list(Path(pipeline.work).rglob("*.parquet"))
    readers = [read_samples(path) for path in Path(pipeline.work).rglob("*.tar")]
    samples = [reader[key] for reader in readers for key in reader]
    assert len(samples) == len(index.frame().filter(pl.col("error").is_null()))
    for sample in samples:
        about = json.loads(sample["json"])
        assert (about["caption"], about["size"], about["view"]) == ("", [32, 32], "square")
    assert pipeline.reconstructions().done == []
