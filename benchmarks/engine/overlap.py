"""A model that sleeps: whether reading, encoding, writing and checking stay behind it."""

import time
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.bars import Row
from benchmarks.engine.drawn import draw, pipeline, small_models
from sare_core.engine.manifest import read_index
from sare_core.engine.runner import run
from sare_core.reconstruction.mapper import Mapper
from tests.pipeline import QUIET

BATCH, SECONDS = 16, 0.1  # of sleep a batch: about what half an H100 at its limit would take


class Sleeper:
    """A reconstruction method whose x̂ is noise over x, and whose time is sleep."""

    multiple = 8

    def __init__(self) -> None:
        self.slept, self.noise = 0.0, 0.1 * torch.randn(1, 3, 512, 512)

    def reconstruct(
        self, images: torch.Tensor, captions: list[str], generators: list[torch.Generator]
    ) -> list[torch.Tensor]:
        made = list((images / 2 + 0.5 + self.noise).clamp(0, 1))
        time.sleep(SECONDS)
        self.slept += SECONDS
        return made


def rows(folder: Path, images: int = 960, shard_size: int = 480) -> Iterator[Row]:
    sets = [*small_models(folder / "models"), "reconstruct.method=autoencoder", "reconstruct.longer_side=512"]
    sets += [f"reconstruct.batch_size={BATCH}"]
    made = pipeline(folder, draw(folder / "images", images), sets, shard_size)
    index = read_index(made.manifests, made.dataset)
    stage, sleeper = made.graph.reconstruct(index), Sleeper()
    stage.load = lambda device: None  # type: ignore[method-assign]
    stage.mapper = Mapper(stage.settings, 0, sleeper)
    stage.folder.describe(preset="bench", train_subsets=None)
    started = time.monotonic()
    run(stage, index, index.shards["shard"].to_list(), QUIET)
    ratio = (time.monotonic() - started) / sleeper.slept
    yield Row(
        "reconstruct stage ÷ its model's time, with a model that sleeps",
        f"{images} images of 512×512, {SECONDS} s a batch of {BATCH}, {shard_size} a shard, two PNGs an image",
        f"{ratio:.3f}",
        "≤ 1.05",
        ratio <= 1.05,
    )
