"""What training reads, timed: images that are drawn, in place of a data set's, in files and shards as the stages write.

Half of them are real and JPEGs of 4:3, half fake and PNGs of 1:1, as in GenImage's subset sdv1.4.
"""

import hashlib
import io
import itertools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

from sare_core.config import Settings
from sare_core.detectors import detector_class
from sare_core.detectors.parts import map_role
from sare_core.engine.shardfiles import TarWriter
from sare_core.images.decoding import EXTENSIONS
from sare_core.images.png import encode_png
from sare_core.store.storage import sha256_file
from sare_core.training.samples import SampleKey, Samples, loader

IMAGES = 32  # that are drawn; they come again and again


def photo(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Pixels about as smooth as a photograph's: codecs work on noise, or on one colour, otherwise than on these."""
    coarse = Image.fromarray(rng.integers(0, 256, (max(height // 16, 1), max(width // 16, 1), 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)) + rng.normal(0, 4, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


class DrawnSamples(Samples):
    """Training samples of drawn images: read, prepared and augmented as those of a data set, all of whose facts are
    made up here."""

    def __init__(self, settings: Settings, folder: Path, formats: tuple[str, ...] = ("JPEG", "PNG")) -> None:
        """Draws into a folder. formats: of the source files, in turn."""
        self.settings, self.augment, self.seed = settings.detector, settings.train.augment, settings.train.seed
        self.root, self.view = str(folder), settings.view
        self.kind = detector_class(self.settings.detector)
        self.names = self.kind.samples(self.settings)
        folder.mkdir(parents=True, exist_ok=True)
        shard = folder / "maps.tar"
        rows = _draw(settings, folder, shard, formats)
        outputs = str(folder), {0: (shard.name, sha256_file(shard))}
        self._outputs = {map_role(name): outputs for name in self.kind.maps}
        self.labels, self.shards = rows["label"].to_numpy(), np.zeros(IMAGES * len(self.names), dtype=int)
        self._table = rows.to_arrow()

    def batches(self, size: int) -> Iterator[list[SampleKey]]:
        """Without an end; each time an image comes again it is augmented anew."""
        keys = (SampleKey(epoch, position) for epoch in itertools.count() for position in range(len(self)))
        while True:
            yield list(itertools.islice(keys, size))


def _draw(settings: Settings, folder: Path, shard: Path, formats: tuple[str, ...]) -> pl.DataFrame:
    """The images' files, a shard of their maps, and their rows of the index."""
    rng, plan, rows = np.random.default_rng(0), settings.reconstruct, list[dict[str, Any]]()
    long, tar = plan.longer_side, TarWriter(shard)
    for number, kind in zip(range(IMAGES), itertools.cycle(formats), strict=False):
        extension, data = EXTENSIONS[kind], io.BytesIO()
        image = photo(rng, long, long if kind == "PNG" else long * 3 // 4)
        image.save(data, kind, quality=92)
        key = f"{number:020x}"
        path = folder / f"{key}.{extension}"
        path.write_bytes(data.getvalue())
        shape = (*reversed(image.size), 3) if plan.sare_size == "full" else (plan.sare_size, plan.sare_size, 3)
        error = abs(rng.normal(0, 8, shape)).astype(np.uint8)
        sample = {"__key__": key, "sare.png": encode_png(error), "json": json.dumps({"caption": "a ball"}).encode()}
        sample |= {"reconstruction.png": encode_png(image)} if plan.keep_reconstruction else {}
        recoded = kind == "PNG" and plan.keep_source == "recoded"
        kept = {extension: encode_png(image) if recoded else data.getvalue()} if plan.keep_source else {}
        tar.write(sample | kept)
        digest = hashlib.sha256(data.getvalue()).hexdigest()
        rows.append({"image_id": key, "path": path.name, "sha256": digest, "extension": extension, "label": number % 2})
    tar.close()
    return pl.DataFrame(rows).with_columns(shard=pl.lit(0))


def rate(samples: DrawnSamples, size: int, workers: int, step: Callable[[Any], object], at_least: float) -> float:
    """Samples a second that the loader gives and `step` takes, in batches; after a first one, for so many seconds."""
    batches, taken = iter(loader(samples, samples.batches(size), workers)), 0
    step(next(batches)[0])
    started = time.perf_counter()
    while (passed := time.perf_counter() - started) < at_least or taken < 2:
        step(next(batches)[0])
        taken += 1
    return taken * size / passed
