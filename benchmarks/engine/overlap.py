"""A model that sleeps: whether reading, encoding, writing and checking stay behind it."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.bars import Row
from benchmarks.engine.drawn import draw, pipeline, small_models
from sare_core.captioning.pretrained import Generating
from sare_core.engine.manifest import Index, read_index
from sare_core.engine.runner import run
from sare_core.reconstruction.mapper import Mapper, rounded
from tests.pipeline import QUIET, Pipeline

# Images a batch, and seconds of sleep for it: what the cores of a small machine hardly feed, and what they do. The goal
# on an H100 is GOAL images a second, 1.8 s a batch.
BATCH, SECONDS, GOAL = 16, (0.1, 0.4), 9
CAPTIONS, SAYING = 32, 0.4  # images a batch of captions, and seconds of sleep for it


class Sleeper:
    """A reconstruction method whose x̂ lies ready, and whose time is sleep, as a GPU's is for the processor.

    x̂ comes in levels, since a GPU rounds it (`Mapper`).
    """

    multiple, device = 8, "meta"  # images go there at no cost, as they go to a GPU

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        smooth = torch.nn.functional.interpolate(torch.rand(BATCH, 3, 32, 32), size=512, mode="bicubic")
        self.slept, self.made = 0.0, [rounded(x) for x in (smooth + 0.03 * torch.randn_like(smooth)).clamp(0, 1)]

    def reconstruct(
        self, images: torch.Tensor, captions: list[str], generators: list[torch.Generator]
    ) -> list[np.ndarray]:
        time.sleep(self.seconds)
        self.slept += self.seconds
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
    for number, seconds in enumerate(SECONDS):
        work = Pipeline(made.settings, made.manifests, str(folder / f"work-{number}"))
        before = time.process_time()
        yield _of_reconstructions(work, images, shard_size, seconds)
        spent = (time.process_time() - before) / images
    on = f"{spent * 1000:.1f} ms of the processor an image, of the run above: reading, encoding, writing, checking"
    figure = ", ".join(f"{spent * rate:.2g} for {rate:.3g} images/s" for rate in (GOAL, BATCH / SECONDS[0]))
    yield Row("cores that the reconstruct stage keeps busy beside its model", on, figure, "none", True)


def _of_captions(made: Pipeline, images: int, shard_size: int) -> Row:
    index = read_index(made.manifests, made.dataset)
    stage = made.graph.caption(index)
    stage.load("cpu")
    blip = stage.captions.captioner
    blip.__class__ = SleepingCaptioner
    assert isinstance(blip, SleepingCaptioner)
    blip.processor.image_processor.size = {"height": 384, "width": 384}
    on = f"{images} images of 512×512, {SAYING} s a batch of {CAPTIONS}, {shard_size} a shard, BLIP's pre-processing"
    return _row("caption", stage, index, blip, on)


def _of_reconstructions(made: Pipeline, images: int, shard_size: int, seconds: float) -> Row:
    index = read_index(made.manifests, made.dataset)
    stage, sleeper = made.graph.reconstruct(index), Sleeper(seconds)
    stage.mapper = Mapper(stage.settings, 0, sleeper)
    on = f"{images} images of 512×512, {seconds} s a batch of {BATCH}, {shard_size} a shard, two PNGs an image"
    return _row("reconstruct", stage, index, sleeper, on)


def _row(name: str, stage: Any, index: Index, model: Sleeper | SleepingCaptioner, on: str) -> Row:
    stage.load = lambda device: None  # it is there
    stage.folder.describe(preset="bench", train_subsets=None)
    started = time.monotonic()
    run(stage, index, index.shards["shard"].to_list(), QUIET)
    ratio = (time.monotonic() - started) / model.slept
    what = f"{name} stage ÷ its model's time, with a model that sleeps"
    return Row(what, on, f"{ratio:.3f}", "≤ 1.05", ratio <= 1.05)
