"""A model that sleeps: whether reading, encoding, writing and checking stay behind it."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.bars import Row
from benchmarks.engine.drawn import draw, pipeline, small_models
from sare_core.captioning.pretrained import Generating
from sare_core.engine.manifest import read_index
from sare_core.engine.runner import run
from sare_core.reconstruction.mapper import Mapper
from tests.pipeline import QUIET, Pipeline

BATCH, SECONDS = 16, 0.1  # of sleep a batch: about what half an H100 at its limit would take
CAPTIONS, SAYING = 32, 0.4  # images a batch of captions, and seconds of sleep for it


class Sleeper:
    """A reconstruction method whose x̂ lies ready, and whose time is sleep, as a GPU's is for the processor."""

    multiple, device = 8, "meta"  # images go there at no cost, as they go to a GPU

    def __init__(self) -> None:
        smooth = torch.nn.functional.interpolate(torch.rand(BATCH, 3, 32, 32), size=512, mode="bicubic")
        self.slept, self.made = 0.0, list((smooth + 0.03 * torch.randn_like(smooth)).clamp(0, 1))

    def reconstruct(
        self, images: torch.Tensor, captions: list[str], generators: list[torch.Generator]
    ) -> list[torch.Tensor]:
        time.sleep(SECONDS)
        self.slept += SECONDS
        return self.made[: len(images)]


class SleepingCaptioner(Generating):
    """BLIP with its own pre-processing, at 384×384, and sleep in place of its words."""

    slept = 0.0

    def generate(self, prepared: Any) -> list[str | None]:
        time.sleep(SAYING)
        self.slept += SAYING
        return ["a picture"] * len(prepared["pixel_values"])


def rows(folder: Path, images: int = 2000, shard_size: int = 1000) -> Iterator[Row]:
    sets = [*small_models(folder / "models"), "reconstruct.method=autoencoder", "reconstruct.longer_side=512"]
    sets += [f"reconstruct.batch_size={BATCH}", f"caption.batch_size={CAPTIONS}"]
    made = pipeline(folder, draw(folder / "images", images), sets, shard_size)
    yield _of_captions(made, images, shard_size)
    yield _of_reconstructions(made, images, shard_size)


def _of_captions(made: Pipeline, images: int, shard_size: int) -> Row:
    index = read_index(made.manifests, made.dataset)
    stage = made.graph.caption(index)
    stage.load("cpu")
    blip = stage.captions.captioner
    blip.__class__ = SleepingCaptioner
    stage.load = lambda device: None  # type: ignore[method-assign]
    assert isinstance(blip, SleepingCaptioner)
    blip.processor.image_processor.size = {"height": 384, "width": 384}
    stage.folder.describe(preset="bench", train_subsets=None)
    started = time.monotonic()
    run(stage, index, index.shards["shard"].to_list(), QUIET)
    ratio = (time.monotonic() - started) / blip.slept
    return Row(
        "caption stage ÷ its model's time, with a model that sleeps",
        f"{images} images of 512×512, {SAYING} s a batch of {CAPTIONS}, {shard_size} a shard, BLIP's pre-processing",
        f"{ratio:.3f}",
        "≤ 1.05",
        ratio <= 1.05,
    )


def _of_reconstructions(made: Pipeline, images: int, shard_size: int) -> Row:
    index = read_index(made.manifests, made.dataset)
    stage, sleeper = made.graph.reconstruct(index), Sleeper()
    stage.load = lambda device: None  # type: ignore[method-assign]
    stage.mapper = Mapper(stage.settings, 0, sleeper)
    stage.folder.describe(preset="bench", train_subsets=None)
    started = time.monotonic()
    run(stage, index, index.shards["shard"].to_list(), QUIET)
    ratio = (time.monotonic() - started) / sleeper.slept
    return Row(
        "reconstruct stage ÷ its model's time, with a model that sleeps",
        f"{images} images of 512×512, {SECONDS} s a batch of {BATCH}, {shard_size} a shard, two PNGs an image",
        f"{ratio:.3f}",
        "≤ 1.05",
        ratio <= 1.05,
    )
