"""What the loader of training costs, and from it a projection: does it keep up with the detector on an H100?

No GPU is timed. Its step is counted FLOPs at a share of its peak; the loader is a worker's processor time, times WORKERS.
"""

import itertools
import resource
from collections.abc import Iterator
from pathlib import Path

from benchmarks.bars import Row
from sare_core.bench.loader import DrawnSamples
from sare_core.config import load_settings
from sare_core.plan import flops
from sare_core.training.samples import loader

WORKERS, IMAGES, TIMES = 8, 512, 3
PEAK, SHARE = 790e12, 0.45  # what a matrix product of an H100 reaches in half precision, and a good training step of it
FULL, SMALL = "as large as x̂", "of 224×224"
BOTH, JPEG = "half JPEG, half PNG", "JPEG"


def rows(folder: Path) -> Iterator[Row]:
    settings = load_settings("paper", ["train.workers=1"])
    each = flops.detector_cost(settings.detector).step
    step = SHARE * PEAK / each
    cases = {(BOTH, FULL): [], (BOTH, SMALL): [], (JPEG, FULL): [], (JPEG, SMALL): []}
    for (files, maps), taken in cases.items():
        kinds = ("JPEG", "PNG") if files == BOTH else ("JPEG",)
        sets = ["reconstruct.sare_size=224"] if maps == SMALL else []
        samples = DrawnSamples(load_settings("paper", sets), folder / f"{len(kinds)}-{len(sets)}", kinds)
        taken.append(min(_seconds(samples, settings.train.micro_batch_size) for _ in range(TIMES)))
        ratio = WORKERS / taken[0] / step
        yield Row(
            "projection: loader ÷ step of the paper's detector on one H100",
            f"sources {files}, maps {maps}: {1000 * taken[0]:.1f} ms of a processor an image, {WORKERS} workers, "
            f"{WORKERS / taken[0]:,.0f} images/s; step: {each / 1e9:.0f} GFLOP an image at {SHARE:.0%} of "
            f"{PEAK / 1e12:.0f} TFLOP/s, {step:,.0f} images/s",
            f"{ratio:.2f}",
            "≥ 1",
            ratio >= 1,
        )


def _seconds(samples: DrawnSamples, size: int) -> float:
    """Processor time an image of a worker: reading, decoding, augmentation, and the batch into shared memory."""
    batches = list(itertools.islice(samples.batches(size), IMAGES // size))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in loader(samples, batches, workers=1):
        pass
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / IMAGES
