"""One shard through a stage: files are read and results encoded in threads, so that neither holds up the model."""

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from typing import Any, Protocol

from sare_core.errors import ImageError

Row = dict[str, Any]
AHEAD = 2  # batches that are read while the model works, and batches of results that may wait to be written


class Work(Protocol):
    """What a stage does with the images of one shard. Each image's result depends on that image alone."""

    def batches(self, rows: list[Row]) -> list[list[Row]]:
        """The rows grouped as the model takes them; the order is the output's order."""

    def read(self, row: Row) -> Any:
        """What the model needs of one image. Runs in threads. Raises ImageError, which fails this image only."""

    def process(self, items: list[Any]) -> list[Any]:
        """The model's results, one an item, each a result or an ImageError. Runs on the device."""

    def encode(self, row: Row, item: Any, result: Any) -> dict[str, Any]:
        """A result as the sample to write. Runs in threads."""


def samples(work: Work, rows: list[Row], threads: int) -> Generator[tuple[Row, dict[str, Any] | ImageError]]:
    """Each row with its sample or the error that failed it, in the order of the batches. Memory: a few batches."""
    plan = iter(work.batches(rows))
    with ThreadPoolExecutor(threads) as readers, ThreadPoolExecutor(threads) as encoders:

        def start(batch: list[Row]) -> list[tuple[Row, Future[Any]]]:
            return [(row, readers.submit(work.read, row)) for row in batch]

        reading = deque(start(batch) for _, batch in zip(range(AHEAD), plan, strict=False))
        waiting: deque[list[tuple[Row, Future[Any] | ImageError]]] = deque()
        try:
            while reading:
                batch = reading.popleft()
                reading.extend(start(following) for _, following in zip(range(1), plan, strict=False))
                waiting.append(_work_through(work, batch, encoders))
                if len(waiting) > AHEAD:
                    yield from _finished(waiting.popleft())
            yield from chain.from_iterable(_finished(done) for done in waiting)
        finally:
            readers.shutdown(cancel_futures=True)
            encoders.shutdown(cancel_futures=True)


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
