"""SIGTERM and SIGINT as a flag that the work loop asks for between batches; a second one ends the process at once.

A launcher with signals of its own (submitit binds one to "give up and queue again") keeps them: within
`signals_of_the_launcher` nothing is bound here, and the launcher's handler calls `abandon`.
"""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from sare_core.errors import Stopped

ABANDON = 30.0  # seconds that `abandon` waits for its cleanups; Slurm kills some time after the signal

_arrived: list[int] = []
_cleanups: list[Callable[[], object]] = []
_launcher_owns_them = False


@contextmanager
def stop_cleanly() -> Iterator[None]:
    """Within this block the first SIGTERM or SIGINT only sets the flag, and its end clears it. Main thread only."""
    _arrived.clear()
    try:
        with _on_signal(_arrived.append):
            yield
    finally:
        _arrived.clear()  # else who goes on in Python after a stop would be stopped again by it


@contextmanager
def stop_at_once() -> Iterator[None]:
    """Within this block the first SIGTERM or SIGINT raises Stopped, in the midst of anything: for work that leaves
    nothing half done, and may wait long (for a listing, say). Main thread only."""

    def stop(signum: int) -> None:
        raise Stopped(signum)

    with _on_signal(stop):
        yield


@contextmanager
def _on_signal(act: Callable[[int], None]) -> Iterator[None]:
    def first(signum: int, _: FrameType | None) -> None:
        signal.signal(signum, signal.SIG_DFL if signum == signal.SIGTERM else signal.default_int_handler)
        act(signum)

    ours = () if _launcher_owns_them else (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, first) for number in ours}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def signals_of_the_launcher() -> Iterator[None]:
    """Within this block `stop_cleanly` leaves the handlers alone: who started this process has bound its own."""
    global _launcher_owns_them
    before, _launcher_owns_them = _launcher_owns_them, True
    try:
        yield
    finally:
        _launcher_owns_them = before


def check_stop() -> None:
    """Raises Stopped once a signal has arrived."""
    if _arrived:
        raise Stopped(_arrived[0])


def wait(seconds: float) -> None:
    """Sleep, but no longer than until a signal arrives. Raises Stopped then."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        check_stop()
        time.sleep(min(left, 0.1))
    check_stop()


@contextmanager
def release_on_preemption(cleanup: Callable[[], object]) -> Iterator[None]:
    """Within this block `abandon` calls the cleanup. It may be called in the midst of anything, and must bear that."""
    _cleanups.append(cleanup)
    try:
        yield
    finally:
        if cleanup in _cleanups:
            _cleanups.remove(cleanup)


def abandon() -> None:
    """Drop the work in hand: run what was registered, the newest first, each once. Safe in a signal handler.

    One that fails does not keep the others from being run: what they leave behind is only waste.
    """
    # The interrupted code may hold a lock that a cleanup needs, so they run in a thread that need not come to an end.
    thread = threading.Thread(target=_clean_up, daemon=True)
    thread.start()
    thread.join(ABANDON)


def _clean_up() -> None:
    while _cleanups:
        with contextlib.suppress(Exception):
            _cleanups.pop()()


def leave_signals_to_the_parent(_: int) -> None:
    """For a loader's workers: Ctrl-C reaches the whole process group, Slurm signals every process of a step, and the
    parent still needs its workers for its step (and would not be abandoned twice)."""
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
