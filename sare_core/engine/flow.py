"""Images through a stage: files are read and results encoded in threads, so that neither holds up the model."""

import os
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, Protocol, TypeVar

from sare_core.errors import ImageError, NotReached

BEHIND = 10  # niceness of what is not the model; 0 is usual, 19 the least
T = TypeVar("T")
Row = dict[str, Any]
Made = list[tuple[Row, "Future[Any] | ImageError"]]  # a batch behind the model: samples as they are encoded
AHEAD = 2  # batches that are read while the model works, and batches of results that may wait to be written
# Of the images that are read and not yet through the model, by the index: 0.5 GB as Pillow holds them, and at the end
# of a shard as much of the next. A larger batch is cut, and less is read ahead; an image that is larger by itself is
# alone. Ordinary batches never come near it.
PIXELS = 1 << 27


def in_batches(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """The items in their order, `size` at a time; the last may be fewer."""
    return [items[start : start + size] for start in range(0, len(items), size)]


class Read(NamedTuple):
    """A batch as the readers leave it. items: each row with what was read of it, or why nothing was.

    collated: of those that were read; None: there is none.
    """

    items: list[tuple[Row, Any]]
    collated: Any


class Work(Protocol):
    """What a stage does with the images of one shard. Each image's result depends on that image alone."""

    def batches(self, rows: list[Row]) -> Sequence[Sequence[Row]]:
        """The rows grouped as the model takes them; the order is the output's order."""

    def read(self, row: Row) -> Any:
        """What the model needs of one image. Runs in threads. Raises ImageError, which fails this image only."""

    def collate(self, items: list[Any]) -> Any:
        """What `process` takes of a batch, of which so many were read. Runs in threads."""

    def process(self, batch: Any) -> list[Any]:
        """The model's results, one an item, each a result or an ImageError. Runs on the device."""

    def encode(self, row: Row, item: Any, result: Any) -> dict[str, Any]:
        """A result as the sample to write. Runs in threads."""


class Crew(NamedTuple):
    """The threads of a run, for all of its shards.

    New ones for each shard would come to hold many times the memory: malloc gives each thread an arena, mostly another
    one, and an arena keeps as much as its batches once took.
    """

    readers: ThreadPoolExecutor
    encoders: ThreadPoolExecutor


@contextmanager
def crew_of(threads: int) -> Iterator[Crew]:
    """So many that read, and as many that encode; at the end what they are at is waited for."""
    with (
        ThreadPoolExecutor(threads, initializer=give_way) as readers,
        ThreadPoolExecutor(threads, initializer=give_way) as encoders,
    ):
        yield Crew(readers, encoders)


class Flow:
    """The images of some shards on their way through a stage's model. Reading begins at once, in threads.

    `run`, in the model's thread, and `samples`, in another, meet in a queue, so that neither waits for the other before
    a few batches lie between them.

    Memory: a few batches, of PIXELS pixels in all. rows: of the index; width and height say what an image takes.
    """

    def __init__(self, work: Work, rows: list[Row], crew: Crew) -> None:
        self._work, self._crew = work, crew
        self._plan = deque(part for batch in work.batches(rows) for part in _cut(batch))
        self._unfinished = set[Future[Any]]()  # that the crew was given
        self._reading: deque[tuple[list[Row], Future[Read]]] = deque()
        self._made: queue.Queue[Made | None] = queue.Queue(AHEAD)
        self.failed = 0  # images so far, but for those that a stage before has failed
        self.dropped = False
        self._read_ahead()

    def run(self, before_batch: Callable[[bool], None]) -> None:
        """Run the model over all batches. Raises what anything in the way raises, but for an ImageError.

        before_batch: called when a batch is read, before the model gets it; True: it is the last.
        """
        try:
            while self._reading and not self.dropped:
                self._give(self._next(before_batch))
                self._read_ahead()
        finally:
            self._give(None)

    def _next(self, before_batch: Callable[[bool], None]) -> Made:
        """The next batch through the model. Nothing keeps its images but what encodes them."""
        batch = self._reading[0][1].result()
        before_batch(len(self._reading) == 1 and not self._plan)
        made = self._work_through(batch)
        self._reading.popleft()
        self.failed += sum(_failed(outcome) for _, outcome in made)
        return made

    def samples(self) -> Generator[tuple[Row, dict[str, Any] | ImageError]]:
        """Each row with its sample or the error that failed it, in the order of the batches; as far as `run` came.

        Whoever takes no more before the end has to say so: `drop`.
        """
        while (made := self._made.get()) is not None:
            for row, outcome in made:
                yield row, outcome if isinstance(outcome, ImageError) else outcome.result()

    def drop(self) -> None:
        """Nobody takes samples any more: `run` ends."""
        self.dropped = True

    def close(self) -> None:
        """Nothing more is read or encoded."""
        wait([future for future in tuple(self._unfinished) if not future.cancel()])

    def _give(self, made: Made | None) -> None:
        while not self.dropped:
            with suppress(queue.Full):
                self._made.put(made, timeout=0.1)
                return

    def _read_ahead(self) -> None:
        pixels = sum(_pixels(row) for batch, _ in self._reading for row in batch)
        while self._plan and len(self._reading) <= AHEAD:
            pixels += sum(map(_pixels, self._plan[0]))
            if self._reading and pixels > PIXELS:
                break
            batch = self._plan.popleft()
            found = [(row, self._give_to(self._crew.readers, self._work.read, row)) for row in batch]
            # It waits in a reader's place, but for those alone that were begun before it.
            self._reading.append((batch, self._give_to(self._crew.readers, _collated, self._work, found)))

    def _work_through(self, batch: Read) -> Made:
        good = sum(not isinstance(item, ImageError) for _, item in batch.items)
        made = self._work.process(batch.collated) if good else []
        if len(made) != good:
            raise RuntimeError(f"{good} images went into the model, {len(made)} results came out")
        results = iter(made)
        out: Made = []
        for row, item in batch.items:
            result = item if isinstance(item, ImageError) else next(results)
            failed = isinstance(result, ImageError)
            encode = self._work.encode
            out.append((row, result if failed else self._give_to(self._crew.encoders, encode, row, item, result)))
        return out

    def _give_to(self, threads: ThreadPoolExecutor, do: Callable[..., T], *given: Any) -> "Future[T]":
        future = threads.submit(do, *given)
        self._unfinished.add(future)
        future.add_done_callback(self._unfinished.discard)
        return future


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


def _collated(work: Work, batch: list[tuple[Row, Future[Any]]]) -> Read:
    items: list[tuple[Row, Any]] = []
    for row, future in batch:
        try:
            items.append((row, future.result()))
        except ImageError as error:
            items.append((row, error))
    good = [item for _, item in items if not isinstance(item, ImageError)]
    return Read(items, work.collate(good) if good else None)


def _failed(outcome: Future[Any] | ImageError) -> bool:
    return isinstance(outcome, ImageError) and not isinstance(outcome, NotReached)
