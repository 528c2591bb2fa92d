"""One shard through a stage: files are read and results encoded in threads, so that neither holds up the model."""

import os
import sys
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from typing import Any, Protocol, TypeVar

from sare_core.errors import ImageError

BEHIND = 10  # niceness of what is not the model; 0 is usual, 19 the least
T = TypeVar("T")
Row = dict[str, Any]
AHEAD = 2  # batches that are read while the model works, and batches of results that may wait to be written
# Of the images that are read and not yet through the model, by the index: 0.5 GB as Pillow holds them. A larger batch
# is cut, and less is read ahead; an image that is larger by itself is alone. Ordinary batches never come near it.
PIXELS = 1 << 27


def in_batches(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """The items in their order, `size` at a time; the last may be fewer."""
    return [items[start : start + size] for start in range(0, len(items), size)]


class Work(Protocol):
    """What a stage does with the images of one shard. Each image's result depends on that image alone."""

    def batches(self, rows: list[Row]) -> Sequence[Sequence[Row]]:
        """The rows grouped as the model takes them; the order is the output's order."""

    def read(self, row: Row) -> Any:
        """What the model needs of one image. Runs in threads. Raises ImageError, which fails this image only."""

    def process(self, items: list[Any]) -> list[Any]:
        """The model's results, one an item, each a result or an ImageError. Runs on the device."""

    def encode(self, row: Row, item: Any, result: Any) -> dict[str, Any]:
        """A result as the sample to write. Runs in threads."""


def samples(work: Work, rows: list[Row], threads: int) -> Generator[tuple[Row, dict[str, Any] | ImageError]]:
    """Each row with its sample or the error that failed it, in the order of the batches.

    Memory: a few batches, of PIXELS pixels in all. rows: of the index; width and height say what an image takes.
    """
    plan = deque(part for batch in work.batches(rows) for part in _cut(batch))
    with (
        ThreadPoolExecutor(threads, initializer=give_way) as readers,
        ThreadPoolExecutor(threads, initializer=give_way) as encoders,
    ):

        def start(batch: list[Row]) -> list[tuple[Row, Future[Any]]]:
            return [(row, readers.submit(work.read, row)) for row in batch]

        reading: deque[list[tuple[Row, Future[Any]]]] = deque()
        waiting: deque[list[tuple[Row, Future[Any] | ImageError]]] = deque()
        try:
            while plan or reading:
                pixels = sum(_pixels(row) for batch in reading for row, _ in batch)
                while plan and len(reading) <= AHEAD:
                    pixels += sum(map(_pixels, plan[0]))
                    if reading and pixels > PIXELS:
                        break
                    reading.append(start(plan.popleft()))
                waiting.append(_work_through(work, reading[0], encoders))
                reading.popleft()
                if len(waiting) > AHEAD:
                    yield from _finished(waiting.popleft())
            yield from chain.from_iterable(_finished(done) for done in waiting)
        finally:
            readers.shutdown(cancel_futures=True)
            encoders.shutdown(cancel_futures=True)


def give_way() -> None:
    """Let this thread run where the one with the model leaves time. Only Linux gives a thread a niceness of its own."""
    if sys.platform == "linux":
        me = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, me, max(BEHIND, os.getpriority(os.PRIO_PROCESS, me)))


def _pixels(row: Row) -> int:
    return int(row["width"] * row["height"])


def _cut(batch: Sequence[Row]) -> Iterator[list[Row]]:
    """A batch in parts of at most PIXELS pixels, or of one image."""
    part, pixels = list[Row](), 0
    for row in batch:
        pixels += _pixels(row)
        if part and pixels > PIXELS:
            yield part
            part, pixels = [], _pixels(row)
        part.append(row)
    yield part


def _work_through(
    work: Work, batch: list[tuple[Row, Future[Any]]], encoders: ThreadPoolExecutor
) -> list[tuple[Row, Future[Any] | ImageError]]:
    read: list[tuple[Row, Any]] = []
    for row, future in batch:
        try:
            read.append((row, future.result()))
        except ImageError as error:
            read.append((row, error))
    good = [item for _, item in read if not isinstance(item, ImageError)]
    made = work.process(good) if good else []
    if len(made) != len(good):
        raise RuntimeError(f"{len(good)} images went into the model, {len(made)} results came out")
    results = iter(made)
    out: list[tuple[Row, Future[Any] | ImageError]] = []
    for row, item in read:
        result = item if isinstance(item, ImageError) else next(results)
        failed = isinstance(result, ImageError)
        out.append((row, result if failed else encoders.submit(work.encode, row, item, result)))
    return out


def _finished(
    batch: list[tuple[Row, Future[Any] | ImageError]],
) -> Iterator[tuple[Row, dict[str, Any] | ImageError]]:
    for row, outcome in batch:
        yield row, outcome if isinstance(outcome, ImageError) else outcome.result()
