"""What the loader of training costs, and from it a projection: does it keep up with the detector on an H100?

No GPU is timed. Its step is counted FLOPs at a share of its peak. The loader is some workers, each as fast as one that
is measured: by its processor time, the least of some tries, since other processes slow it.
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

WORKERS, IMAGES, TIMES = 8, 256, 8
HELD_OUT = 0.1  # of the training images
PEAK, SHARE = 790e12, 0.45  # what a matrix product of an H100 reaches in half precision, and a good training step of it
FORMATS = (("JPEG", "PNG"), ("JPEG",))  # the first as in GenImage's sdv1.4, half and half
MAPS: tuple[list[str], ...] = ([], ["reconstruct.sare_size=224"])


def rows(folder: Path) -> Iterator[Row]:
    settings = load_settings("paper")
    cost = flops.detector_cost(settings.detector)
    step = SHARE * PEAK / cost.step
    for number, (formats, sets) in enumerate(itertools.product(FORMATS, MAPS)):
        samples = DrawnSamples(load_settings("paper", sets), folder / str(number), formats)
        taken = min(_seconds(samples, settings.train.micro_batch_size) for _ in range(TIMES))
        ratio, maps = WORKERS / taken / step, " ".join(sets) or "maps of the size of x̂"
        yield Row(
            "projection: loader ÷ step of the paper's detector on one H100",
            f"{' and '.join(formats)} of 512 pixels, {maps}: {1000 * taken:.1f} ms of a processor an image, so "
            f"{WORKERS / taken:,.0f} images/s of {WORKERS} workers. Step: {cost.step / 1e9:.0f} GFLOP an image at "
            f"{SHARE:.0%} of {PEAK / 1e12:.0f} TFLOP/s, so {step:,.0f} images/s",
            f"{ratio:.2f}",
            "≥ 1",
            ratio >= 1,
        )
    frozen = flops.detector_cost(load_settings("paper", ["detector.detector=image"]).detector).forward
    epochs = settings.train.epochs
    whole = epochs * ((1 - HELD_OUT) * cost.step + HELD_OUT * cost.forward)
    yield Row(
        "FLOPs that features of the held-out images would spare, were they kept ÷ all of a training",
        f"{epochs} epochs, {HELD_OUT:.0%} of the images held out; frozen CLIP: {frozen / 1e9:.0f} GFLOP an image",
        f"{(epochs - 1) * HELD_OUT * frozen / whole:.3f}",
        "none: not built",
        True,
    )


def _seconds(samples: DrawnSamples, size: int) -> float:
    """Processor time an image of a worker: reading, decoding, augmentation, and the batch into shared memory."""
    batches = list(itertools.islice(samples.batches(size), IMAGES // size))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in loader(samples, batches, workers=1):
        pass
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / IMAGES
