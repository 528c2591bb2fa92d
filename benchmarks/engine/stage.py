"""The whole reconstruct stage beside its bare model, and beside diffusers' pipeline called once an image."""

import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionImg2ImgPipeline
from PIL import Image

from benchmarks.bars import Row
from benchmarks.engine.drawn import draw, pipeline, small_models
from sare_core.bench.reconstruct import peers_way
from sare_core.engine.manifest import read_index
from sare_core.engine.runner import run
from sare_core.evaluation.results import read_outputs
from sare_core.reconstruction.mapper import Mapper
from tests.pipeline import QUIET, Pipeline

IMAGES, TIMES = 256, 3  # of few images, what a run does once would be a large part
# Channels of the U-Net's two levels, the name of its size, and the bar for diffusers' loop ÷ our stage.
MODELS = (((16, 32), "small", 3.4), ((64, 128), "larger", 1.65))
SETS = ["reconstruct.longer_side=64", "reconstruct.batch_size=16", "caption.batch_size=16"]


def rows(folder: Path) -> Iterator[Row]:
    torch.set_num_threads(1)
    images = draw(folder / "images", IMAGES)
    for channels, size, bar in MODELS:
        where = folder / size
        made = pipeline(where, images, [*SETS, *small_models(where / "models", channels)], shard_size=IMAGES)
        made.captions()
        mapper = Mapper.load(made.settings.reconstruct, 0, made.settings.reconstruct.model, "cpu")
        unet: Any = mapper.reconstructor.unet  # type: ignore[attr-defined]
        millions = sum(weight.numel() for weight in unet.parameters()) / 1e6
        batches = _batches(made, mapper)
        ours, within, bare, theirs = [], [], [], []
        for turn in range(TIMES):  # in turns: a noisy moment then hits all of them
            anew = replace(made, settings=made.settings.model_copy(update={"seed": turn}))
            taken, of_model = _stage(anew, mapper)
            ours.append(taken)
            within.append(of_model)
            bare.append(_bare(batches, mapper))
            theirs.append(_by_diffusers(made, batches))
        on = f"{IMAGES} images of 512×512 reconstructed at 64×64, U-Net of {millions:.1f} M, batch 16"
        ratio = statistics.median(a / b for a, b in zip(ours, bare, strict=True))
        yield Row("reconstruct stage ÷ bare model on the same batches", on, f"{ratio:.3f}", "≤ 1.05", ratio <= 1.05)
        # Without what the cores lose to each other and to other programs while the model runs.
        ratio = statistics.median(a / b for a, b in zip(ours, within, strict=True))
        yield Row("the same ÷ processor time of the model within it", on, f"{ratio:.3f}", "≤ 1.05", ratio <= 1.05)
        ratio = statistics.median(a / b for a, b in zip(theirs, ours, strict=True))
        yield Row("diffusers, one by one ÷ reconstruct stage", on, f"{ratio:.2f}", f"≥ {bar}", ratio >= bar)


class Batch(NamedTuple):
    paths: list[Path]
    pixels: list[np.ndarray]
    captions: list[str]
    image_ids: list[str]


def _batches(made: Pipeline, mapper: Mapper) -> list[Batch]:
    """What the stage gives its model, of all shards, read before."""
    index, graph = read_index(made.manifests, made.dataset), made.graph
    captions = {row["image_id"]: row["caption"] for row in read_outputs(graph.captions, made.shards()).to_dicts()}
    stage, found = graph.reconstruct(index), []
    stage.mapper = mapper
    for planned in (batch for shard in made.shards() for batch in stage.batches(index.rows(shard))):
        paths = [Path(index.about["root"], row["path"]) for row in planned]
        pixels = [mapper.fit(Image.open(path).convert("RGB")) for path in paths]
        ids = [row["image_id"] for row in planned]
        found.append(Batch(paths, pixels, [captions[image_id] for image_id in ids], ids))
    return found


def _stage(made: Pipeline, mapper: Mapper) -> tuple[float, float]:
    """Seconds that the stage takes, and of the processor that its model does."""
    index = read_index(made.manifests, made.dataset)
    stage = made.graph.reconstruct(index)
    stage.load, stage.mapper = (lambda device: None), mapper  # type: ignore[method-assign]
    stage.folder.describe(preset="bench", train_subsets=None)
    process, spent = stage.process, 0.0

    def timed(batch: Any) -> list[Any]:
        nonlocal spent
        before = time.thread_time()
        made = process(batch)
        spent += time.thread_time() - before
        return made

    stage.process = timed  # type: ignore[method-assign]
    started = time.monotonic()
    assert run(stage, index, made.shards(), QUIET).complete
    return time.monotonic() - started, spent


def _bare(batches: list[Batch], mapper: Mapper) -> float:
    started = time.monotonic()
    for _, *batch in batches:
        mapper.maps(*batch)
    return time.monotonic() - started


def _by_diffusers(made: Pipeline, batches: list[Batch]) -> float:
    """As the peers' scripts do: a file read, one call of the pipeline, a PNG written, and the next."""
    config = made.settings.reconstruct
    loaded: Any = StableDiffusionImg2ImgPipeline.from_pretrained(
        config.model, safety_checker=None, feature_extractor=None
    )
    loaded.scheduler = DDIMScheduler.from_config(loaded.scheduler.config)
    loaded.set_progress_bar_config(disable=True)
    started = time.monotonic()
    for paths, _, captions, _ in batches:
        for path, caption in zip(paths, captions, strict=True):
            image = Image.open(path).convert("RGB").resize((config.longer_side,) * 2)
            peers_way(loaded, config, image, caption)
    return time.monotonic() - started
