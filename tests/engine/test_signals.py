"""Signals: a flag of ours, or left to the launcher; and work in hand that is dropped."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from sare_core.engine import signals
from sare_core.engine.signals import (
    abandon,
    check_stop,
    release_on_preemption,
    signals_of_the_launcher,
    stop_cleanly,
    wait,
)
from sare_core.errors import Stopped


def test_the_first_signal_only_sets_the_flag() -> None:
    with stop_cleanly():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Stopped) as stop:
            check_stop()
    assert stop.value.signum == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    check_stop()  # what comes after is not stopped


def test_a_wait_ends_at_a_signal() -> None:
    started = time.monotonic()
    with stop_cleanly(), pytest.raises(Stopped):
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        wait(30)
    assert time.monotonic() - started < 5


def test_a_launchers_handlers_stay() -> None:
    before, arrived = signal.getsignal(signal.SIGTERM), []
    signal.signal(signal.SIGTERM, lambda *_: arrived.append("launcher"))
    try:
        with signals_of_the_launcher(), stop_cleanly():
            os.kill(os.getpid(), signal.SIGTERM)
            check_stop()
        assert arrived == ["launcher"]
        with stop_cleanly():  # and are ours again afterwards
            os.kill(os.getpid(), signal.SIGTERM)
            with pytest.raises(Stopped):
                check_stop()
        assert arrived == ["launcher"]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_abandon_runs_each_cleanup_once_the_newest_first(tmp_path: Path) -> None:
    ran: list[str] = []

    def fails() -> None:
        raise OSError("the disk is gone")

    with (
        release_on_preemption(lambda: ran.append("outer")),
        release_on_preemption(fails),
        release_on_preemption(lambda: ran.append("inner")),
    ):
        abandon()
        abandon()
    assert ran == ["inner", "outer"]
    with release_on_preemption(lambda: ran.append("over")):
        pass
    abandon()
    assert ran == ["inner", "outer"], "what is over is not abandoned"


def test_abandon_in_a_handler_comes_back_although_a_lock_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "ABANDON", 0.2)
    lock, before = threading.Lock(), signal.signal(signal.SIGUSR2, lambda *_: abandon())
    ran: list[str] = []

    def cleanup() -> None:
        with lock:
            ran.append("cleaned")

    try:
        with release_on_preemption(cleanup), lock:
            os.kill(os.getpid(), signal.SIGUSR2)
            assert ran == []
        end = time.monotonic() + 60
        while not ran and time.monotonic() < end:
            time.sleep(0.01)
        assert ran == ["cleaned"]
    finally:
        signal.signal(signal.SIGUSR2, before)
