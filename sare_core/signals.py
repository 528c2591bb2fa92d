"""SIGTERM and SIGINT as a flag that the work loop asks for between batches; a second one ends the process at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from sare_core.errors import Stopped

_arrived: list[int] = []


@contextmanager
def stop_cleanly() -> Iterator[None]:
    """Within this block the first SIGTERM or SIGINT only sets the flag. Main thread only."""

    def note(signum: int, _: FrameType | None) -> None:
        _arrived.append(signum)
        signal.signal(signum, signal.SIG_DFL if signum == signal.SIGTERM else signal.default_int_handler)

    _arrived.clear()
    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def check_stop() -> None:
    """Raises Stopped once a signal has arrived."""
    if _arrived:
        raise Stopped(_arrived[0])


def leave_signals_to_the_parent(_: int) -> None:
    """For a loader's workers: Ctrl-C reaches the whole process group, and the parent still needs them for its step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
