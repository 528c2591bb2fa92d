"""What the loader of training costs, and from it a projection: does it keep up with the detector on an H100?

No GPU is timed. Its step is counted FLOPs at a share of its peak. The loader is some workers, each as fast as the
processor time of its work allows, which is measured.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from benchmarks.bars import Row
from sare_core.bench.loader import DrawnSamples
from sare_core.bench.timing import processor_seconds
from sare_core.config import load_settings
from sare_core.plan import flops
from sare_core.training.samples import collate

WORKERS, TIMES = 8, 40  # the least of so many is taken, for machines are noisy
HELD_OUT = 0.1  # of the training images
PEAK, SHARE = 790e12, 0.45  # what a matrix product of an H100 reaches in half precision, and a good training step of it
MIXED, RECODED, SMALL = ("JPEG", "PNG"), "reconstruct.keep_source=recoded", "reconstruct.sare_size=224"
# Formats of the source files, the first as in GenImage's sdv1.4, half and half; and settings.
READ: tuple[tuple[tuple[str, ...], list[str]], ...] = (
    (MIXED, []),
    (MIXED, [SMALL]),
    (MIXED, [RECODED]),
    (MIXED, [RECODED, SMALL]),
    (("JPEG",), []),
    (("JPEG",), [SMALL]),
)


def rows(folder: Path) -> Iterator[Row]:
    torch.set_num_threads(1)
    settings = load_settings("paper")
    cost = flops.detector_cost(settings.detector)
    step = SHARE * PEAK / cost.step
    for number, (formats, sets) in enumerate(READ):
        samples = DrawnSamples(load_settings("paper", sets), folder / str(number), formats)
        taken = _seconds(samples, settings.train.micro_batch_size)
        ratio, maps = WORKERS / taken / step, " ".join(sets) or "as the preset has it"
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
    """Processor time an image: to read, decode, augment and stack it. Not counted: the way to the main process."""
    keys = next(samples.batches(size))
    each = [processor_seconds(partial(samples.__getitem__, key), TIMES) for key in keys]
    stacked = processor_seconds(partial(collate, [samples[key] for key in keys]), TIMES)
    return (sum(each) + stacked) / size
