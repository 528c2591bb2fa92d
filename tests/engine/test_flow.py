import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Timer
from typing import Any

import pytest

from sare_core.engine.flow import PIXELS, Flow, Row, crew_of
from sare_core.errors import ConfigError, ImageError, NotReached

WAIT = 20.0  # seconds after which a test gives up


class Doubling:
    """A stage that doubles numbers. Each hook may be replaced."""

    def __init__(self, batch_size: int = 4) -> None:
        self.batch_size = batch_size
        self.on_read: Callable[[int], Any] = lambda n: n
        self.on_process: Callable[[int], Any] = lambda n: 2 * n
        self.on_batch: Callable[[list[int]], None] = lambda items: None
        self.on_collate: Callable[[list[int]], list[int]] = lambda items: items
        self.on_encode: Callable[[int], Any] = lambda n: None

    def batches(self, rows: list[Row]) -> list[list[Row]]:
        return [rows[start : start + self.batch_size] for start in range(0, len(rows), self.batch_size)]

    def read(self, row: Row) -> Any:
        return self.on_read(row["n"])

    def collate(self, items: list[Any]) -> list[Any]:
        return self.on_collate(items)

    def process(self, items: list[Any]) -> list[Any]:
        self.on_batch(items)
        return [self.on_process(item) for item in items]

    def encode(self, row: Row, item: Any, result: Any) -> dict[str, Any]:
        self.on_encode(row["n"])
        return {"n": row["n"], "item": item, "result": result}


def rows(count: int) -> list[Row]:
    return [{"n": number, "width": 8, "height": 8} for number in range(count)]


def doubled(number: int) -> dict[str, int]:
    return {"n": number, "item": number, "result": 2 * number}


def noting(read: list[int], then: Callable[[int], int] = lambda n: n) -> Callable[[int], int]:
    def work(n: int) -> int:
        read.append(n)
        return then(n)

    return work


def fail_on(number: int, error: Exception) -> Callable[[int], int]:
    def work(n: int) -> int:
        if n == number:
            raise error
        return n

    return work


def samples(work: Doubling, rows: list[Row], threads: int) -> Iterator[tuple[Row, Any]]:
    """What comes of the rows. The model has a thread of its own."""
    with (
        crew_of(threads) as crew,
        closing(Flow(work, rows, crew)) as flow,
        ThreadPoolExecutor(1, thread_name_prefix="model") as model,
    ):
        running = model.submit(flow.run, lambda last: None)
        try:
            yield from flow.samples()
        except BaseException:
            flow.drop()
            raise
        running.result()


@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 30])
def test_every_row_once_in_order_whatever_the_batch(batch_size: int, count: int) -> None:
    found = list(samples(Doubling(batch_size), rows(count), threads=3))
    assert found == [(row, doubled(row["n"])) for row in rows(count)]


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_batches_are_collated_in_threads_of_what_was_read(threads: int) -> None:
    work, collated = Doubling(4), list[tuple[list[int], bool]]()

    def collate(items: list[int]) -> list[int]:
        collated.append((items, threading.current_thread().name.startswith("model")))
        return [100 * item for item in items]

    work.on_collate, work.on_read = collate, fail_on(5, ImageError("cannot be read"))
    found = {row["n"]: sample for row, sample in samples(work, rows(8), threads)}
    assert sorted(collated) == [([0, 1, 2, 3], False), ([4, 6, 7], False)]
    assert found[4] == {"n": 4, "item": 4, "result": 800}, "the model got what was collated"
    assert isinstance(found[5], ImageError)


def test_of_a_batch_that_cannot_be_read_nothing_is_collated() -> None:
    work, collated = Doubling(1), list[list[int]]()
    work.on_read = fail_on(1, ImageError("cannot be read"))
    work.on_collate = lambda items: collated.append(items) or items
    list(samples(work, rows(3), threads=2))
    assert sorted(collated) == [[0], [2]]


def test_the_order_is_the_one_of_the_batches() -> None:
    work = Doubling(4)
    work.batches = lambda rows: [rows[3:], rows[:3]]  # type: ignore[method-assign]
    assert [row["n"] for row, _ in samples(work, rows(5), threads=2)] == [3, 4, 0, 1, 2]


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_bad_images_fail_alone(batch_size: int) -> None:
    unread, unreached, unmade = ImageError("cannot be read"), NotReached("no caption"), ImageError("cannot be done")
    work = Doubling(batch_size)
    errors = {2: unread, 5: unreached, 7: unmade}

    def read(n: int) -> int:
        if n in (2, 5):
            raise errors[n]
        return n

    work.on_read = read
    work.on_process = lambda n: unmade if n == 7 else 2 * n
    work.on_encode = fail_on(7, AssertionError("there is nothing to encode"))
    found = {row["n"]: sample for row, sample in samples(work, rows(12), threads=3)}
    assert list(found) == list(range(12))
    assert {n: sample for n, sample in found.items() if isinstance(sample, ImageError)} == errors
    assert all(found[n] == doubled(n) for n in found.keys() - errors.keys())


def test_a_batch_of_bad_images_does_not_reach_the_model() -> None:
    work, seen = Doubling(2), list[list[int]]()
    work.on_batch = seen.append

    def read(n: int) -> int:
        if n in (2, 3, 4):
            raise ImageError("bad")
        return n

    work.on_read = read
    list(samples(work, rows(6), threads=2))
    assert seen == [[0, 1], [5]]


@pytest.mark.parametrize("error", [ConfigError("no such model"), ZeroDivisionError(), MemoryError(), OSError(5, "io")])
@pytest.mark.parametrize("hook", ["on_read", "on_process", "on_encode"])
def test_any_other_error_ends_the_work(hook: str, error: Exception) -> None:
    work, read = Doubling(2), list[int]()
    failing = fail_on(9, error)
    setattr(work, hook, failing)
    work.on_read = noting(read, work.on_read)
    threads = threading.active_count()
    out = []
    with pytest.raises(type(error)) as raised:
        for row, _ in samples(work, rows(1000), threads=2):
            out.append(row["n"])
    assert raised.value is error
    assert out == list(range(len(out)))
    assert len(out) < 10
    assert len(read) < 40
    assert threading.active_count() == threads


def test_after_an_error_no_further_file_is_opened() -> None:
    work, read = Doubling(4), list[int]()

    def slow_from_the_second_batch(n: int) -> int:
        time.sleep(0.05 if n >= 4 else 0)
        return n

    work.on_read = noting(read, slow_from_the_second_batch)
    work.on_process = fail_on(0, ConfigError("no such model"))
    with pytest.raises(ConfigError):
        list(samples(work, rows(40), threads=1))
    assert 4 <= len(read) < 8  # eight more were waiting


def test_a_consumer_that_stops_ends_the_work() -> None:
    work, read = Doubling(2), list[int]()
    work.on_read = noting(read)
    threads = threading.active_count()
    flow = samples(work, rows(1000), threads=2)
    assert next(flow) == (rows(1)[0], doubled(0))
    flow.close()  # type: ignore[attr-defined]
    assert len(read) < 20
    assert threading.active_count() == threads


def test_memory_is_a_few_batches() -> None:
    work, size, lock = Doubling(8), 8, threading.Lock()
    held, most = 0, 0

    def read(n: int) -> int:
        nonlocal held, most
        with lock:
            held += 1
            most = max(most, held)
        return n

    work.on_read = read
    for _ in samples(work, rows(1000), threads=4):
        with lock:
            held -= 1
    assert held == 0
    assert size < most <= 6 * size


@pytest.mark.parametrize("side", [100, 4_000, 9_000, 20_000])
def test_pixels_in_memory_are_bounded(side: int) -> None:
    """Large images are taken in smaller batches and less far ahead; each result and the order stay what they were."""
    work, lock, pixels = Doubling(8), threading.Lock(), side * side
    held, most, largest = 0, 0, 0

    def read(n: int) -> int:
        nonlocal held, most
        with lock:
            held += 1
            most = max(most, held)
        return n

    def done(items: list[int]) -> None:
        nonlocal held, largest
        largest = max(largest, len(items))
        with lock:
            held -= len(items)

    work.on_read, work.on_batch = read, done
    large = [row | {"width": side, "height": side} for row in rows(40)]
    assert list(samples(work, large, threads=4)) == [(row, doubled(row["n"])) for row in large]
    assert most * pixels <= PIXELS or most == 1
    assert largest == (8 if 8 * pixels <= PIXELS else max(PIXELS // pixels, 1)), "no smaller than it must be"


def test_files_are_read_while_the_model_works() -> None:
    work, second_batch_read, waited = Doubling(2), threading.Event(), list[bool]()

    def read(n: int) -> int:
        if n == 2:
            second_batch_read.set()
        return n

    work.on_read = read
    work.on_batch = lambda items: waited.append(second_batch_read.wait(WAIT)) if 0 in items else None
    assert len(list(samples(work, rows(8), threads=2))) == 8
    assert waited == [True]


def test_results_are_encoded_while_the_model_works() -> None:
    work, second_batch_done, waited = Doubling(2), threading.Event(), list[bool]()
    work.on_batch = lambda items: second_batch_done.set() if 2 in items else None
    work.on_encode = lambda n: waited.append(second_batch_done.wait(WAIT)) if n == 0 else None
    assert [row["n"] for row, _ in samples(work, rows(8), threads=2)] == list(range(8))
    assert waited == [True]


def test_the_images_of_a_batch_are_read_at_once() -> None:
    work, together = Doubling(3), threading.Barrier(3)
    work.on_read = lambda n: (together.wait(WAIT), n)[1]
    assert len(list(samples(work, rows(9), threads=3))) == 9


def test_it_says_before_each_batch_whether_it_is_the_last_and_how_many_failed() -> None:
    def read(n: int) -> int:
        if n in (1, 2):
            raise ImageError("bad") if n == 1 else NotReached("no caption")
        return n

    work, told = Doubling(2), list[tuple[bool, int]]()
    work.on_read = read
    with crew_of(2) as crew, closing(Flow(work, rows(5), crew)) as flow, ThreadPoolExecutor(1) as taker:
        taken = taker.submit(lambda: list(flow.samples()))
        flow.run(lambda last: told.append((last, flow.failed)))
        assert len(taken.result()) == 5
    assert told == [(False, 0), (False, 1), (True, 1)]


def test_what_it_is_told_before_a_batch_may_end_it() -> None:
    def stop(last: bool) -> None:
        if last:
            raise ConfigError("enough")

    with crew_of(2) as crew, closing(Flow(Doubling(2), rows(6), crew)) as flow, ThreadPoolExecutor(1) as taker:
        taken = taker.submit(lambda: [row["n"] for row, _ in flow.samples()])
        with pytest.raises(ConfigError, match="enough"):
            flow.run(stop)
        assert taken.result() == [0, 1, 2, 3], "what is through the model is given"


def test_when_nobody_takes_samples_any_more_the_model_stops() -> None:
    with crew_of(2) as crew, closing(Flow(Doubling(1), rows(1000), crew)) as flow:
        told, samples = list[bool](), flow.samples()

        def one_is_taken(last: bool) -> None:
            told.append(last)
            if len(told) == 2:
                next(samples)
                Timer(0.3, flow.drop).start()  # by then the model waits for room

        flow.run(one_is_taken)
        assert len(told) == 4, "one was taken, two waited, and the last was not given"


def test_what_is_not_begun_is_dropped_and_what_is_begun_is_waited_for() -> None:
    work, begun, go_on, read = Doubling(2), threading.Event(), threading.Event(), list[int]()

    def slowly(n: int) -> int:
        begun.set()
        assert go_on.wait(WAIT)
        return n

    work.on_read = noting(read, slowly)
    with crew_of(1) as crew:
        with closing(Flow(work, rows(6), crew)):
            assert begun.wait(WAIT)
            Timer(0.2, go_on.set).start()
        assert read == [0] and go_on.is_set()
        assert crew.readers.submit(lambda: "the next").result(WAIT) == "the next", "the crew stays for other shards"
