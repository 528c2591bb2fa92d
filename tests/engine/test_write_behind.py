"""Writing in a thread: the same samples in the same order, and no error is lost."""

import threading
from typing import Any

import pytest

from sare_core.engine.shardfiles import WriteBehind


class Slow:
    """Writes once it is let; fails from the third sample on, if it is to."""

    def __init__(self, fails: bool = False) -> None:
        self.let, self.fails, self.got, self.closed = threading.Event(), fails, list[Any](), False

    def write(self, sample: dict[str, Any]) -> None:
        self.let.wait(10)
        if self.fails and len(self.got) == 2:
            raise OSError(28, "No space left on device")
        self.got.append(sample)

    def close(self) -> None:
        self.closed = True


def test_the_caller_does_not_wait_for_the_disk() -> None:
    slow = Slow()
    writer = WriteBehind(slow)
    samples = [{"__key__": str(number)} for number in range(WriteBehind.WAITING)]
    for sample in samples:
        writer.write(sample)
    assert slow.got == []
    slow.let.set()
    writer.close()
    assert slow.got == samples and slow.closed


def test_an_error_comes_with_a_later_write_or_at_the_end() -> None:
    slow = Slow(fails=True)
    slow.let.set()
    writer = WriteBehind(slow)
    with pytest.raises(OSError, match="No space"):
        for number in range(10_000):
            writer.write({"__key__": str(number)})
    with pytest.raises(OSError, match="No space"):
        writer.close()
    assert slow.closed and len(slow.got) == 2


def test_nobody_waits_for_a_writer_that_has_failed() -> None:
    slow = Slow(fails=True)
    writer = WriteBehind(slow)
    for number in range(WriteBehind.WAITING):
        writer.write({"__key__": str(number)})
    slow.let.set()
    with pytest.raises(OSError, match="No space"):
        writer.close()
