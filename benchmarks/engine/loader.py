"""What the loader of training costs, and from it a projection: does it keep up with the detector on an H100?

No GPU is timed. Its step is counted FLOPs at a share of its peak; the loader is WORKERS times one worker, which is
measured by the processor time that it takes.
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
FORMATS = (("JPEG", "PNG"), ("JPEG",))  # the first as in GenImage's sdv1.4, half and half
MAPS: tuple[list[str], ...] = ([], ["reconstruct.sare_size=224"])


def rows(folder: Path) -> Iterator[Row]:
    settings = load_settings("paper")
    each = flops.detector_cost(settings.detector).step
    step = SHARE * PEAK / each
    for number, (formats, sets) in enumerate(itertools.product(FORMATS, MAPS)):
        samples = DrawnSamples(load_settings("paper", sets), folder / str(number), formats)
        taken = min(_seconds(samples, settings.train.micro_batch_size) for _ in range(TIMES))
        ratio, maps = WORKERS / taken / step, " ".join(sets) or "maps of the size of x̂"
        yield Row(
            "projection: loader ÷ step of the paper's detector on one H100",
            f"{' and '.join(formats)} of 512 pixels, {maps}: {1000 * taken:.1f} ms of a processor an image, so "
            f"{WORKERS / taken:,.0f} images/s of {WORKERS} workers. Step: {each / 1e9:.0f} GFLOP an image at "
            f"{SHARE:.0%} of {PEAK / 1e12:.0f} TFLOP/s, so {step:,.0f} images/s",
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
