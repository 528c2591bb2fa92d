"""A server around the stand-in for a detector: within this process, or listening in a thread."""

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image

from sare_core.detection.calibration import Calibration
from sare_core.detection.examining import Examiner
from sare_core.serving.app import make_app
from sare_core.serving.limits import DEFAULT, Limits
from sare_core.serving.queue import Queue
from sare_core.serving.server import Server, bound
from tests.detection.conftest import StandIn, brightness, calibration, grained, reals, stand_in

__all__ = ["calibration", "reals", "stand_in"]  # fixtures


class Gate:
    """A rule for StandIn that holds up each batch until it is opened, and fails at images of one size."""

    def __init__(self) -> None:
        self.open, self.entered = threading.Event(), threading.Event()
        self.fails_at = (0, 0)

    def __call__(self, image: Image.Image, name: str) -> float:
        self.entered.set()
        assert self.open.wait(120)
        if image.size == self.fails_at:
            raise RuntimeError("the model broke")
        return brightness(image)


class Running(NamedTuple):
    """A server that listens at this port of loopback."""

    port: int
    server: Server
    queue: Queue
    thread: threading.Thread

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, dict[str, str], bytes]:
        """Status, headers by lower-case names, and body."""
        asked = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            asked.request(method, path, body)
            answer = asked.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            asked.close()

    def detect(self, data: bytes) -> tuple[int, dict[str, Any]]:
        status, _, body = self.ask("POST", "/v1/detect", data)
        return status, json.loads(body)


@contextmanager
def running(detector: StandIn, calibration: Calibration | None = None, limits: Limits = DEFAULT) -> Iterator[Running]:
    place = bound("127.0.0.1", 0)
    app, queue = make_app(Examiner(detector, calibration), limits)
    server = Server(app, queue)
    thread = threading.Thread(target=server.run, args=([place],))
    thread.start()
    made = Running(place.getsockname()[1], server, queue, thread)
    try:
        wait_for(lambda: server.started)
        yield made
    finally:
        server.should_exit = True
        thread.join(30)


def wait_for(what: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)


@pytest.fixture
def gate(stand_in: StandIn) -> Iterator[Gate]:
    """Of `stand_in`, shut."""
    made = Gate()
    stand_in.of = made
    yield made
    made.open.set()


@pytest.fixture
def photo(tmp_path: Path) -> bytes:
    """A dark PNG of 64x48 pixels."""
    grained(60).save(tmp_path / "photo.png")
    return (tmp_path / "photo.png").read_bytes()
