"""A server that listens: batches of concurrent requests, a full queue, slow clients, the end."""

import asyncio
import io
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.requests import Request

from sare_core.detection import running as running_module
from sare_core.detection.examining import Examiner
from sare_core.detection.loading import of_bytes
from sare_core.detection.running import batch_size
from sare_core.errors import ConfigError
from sare_core.serving import server as server_module
from sare_core.serving.app import LINES
from sare_core.serving.limits import Limits, Refused
from sare_core.serving.metrics import Metrics
from sare_core.serving.page import Page
from sare_core.serving.queue import Queue
from sare_core.serving.server import bound
from sare_core.serving.uploads import ENVELOPE, Uploads
from tests.detection.conftest import StandIn, brightness, grained
from tests.serving.conftest import Gate, running, wait_for


@pytest.fixture
def clients() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as threads:
        yield threads


def test_requests_that_wait_are_one_batch(
    stand_in: StandIn, gate: Gate, photo: bytes, clients: ThreadPoolExecutor
) -> None:
    with running(stand_in) as server:
        size = batch_size(server.queue.examiner)
        answers = [clients.submit(server.detect, photo)]
        wait_for(gate.entered.is_set)
        answers += [clients.submit(server.detect, photo) for _ in range(size + 2)]
        wait_for(lambda: server.queue.waiting == size + 2)
        gate.open.set()
        assert {answer.result()[0] for answer in answers} == {200}
    assert stand_in.batches == [1, size, 2]


def test_an_image_that_breaks_the_model_fails_alone(
    stand_in: StandIn, gate: Gate, photo: bytes, clients: ThreadPoolExecutor
) -> None:
    gate.fails_at = (96, 64)
    poison = io.BytesIO()
    grained(60, size=gate.fails_at).save(poison, "PNG")
    with running(stand_in) as server:
        first = clients.submit(server.detect, photo)
        wait_for(gate.entered.is_set)
        bad = clients.submit(server.detect, poison.getvalue())
        good = [clients.submit(server.detect, photo) for _ in range(3)]
        wait_for(lambda: server.queue.waiting == 4)
        gate.open.set()
        assert [each.result()[0] for each in (first, *good)] == [200] * 4
        assert bad.result()[0] == 500


def test_a_full_queue_turns_away_and_recovers(
    stand_in: StandIn, gate: Gate, photo: bytes, clients: ThreadPoolExecutor
) -> None:
    with running(stand_in, limits=Limits(waiting=2)) as server:
        taken = [clients.submit(server.detect, photo)]
        wait_for(gate.entered.is_set)
        taken += [clients.submit(server.detect, photo) for _ in range(2)]
        wait_for(lambda: server.queue.waiting == 2)
        status, headers, body = server.ask("POST", "/v1/detect", photo)
        assert (status, headers["retry-after"]) == (503, "5")
        assert b"2 images wait already" in body
        assert (server.ask("GET", "/readyz")[0], server.ask("GET", "/healthz")[0]) == (503, 200)
        gate.open.set()
        assert [each.result()[0] for each in taken] == [200] * 3
        assert server.ask("GET", "/readyz")[0] == 200


def test_uploads_together_have_a_limit(
    stand_in: StandIn, gate: Gate, photo: bytes, clients: ThreadPoolExecutor
) -> None:
    with running(stand_in, limits=Limits(held=int(2.5 * len(photo)))) as server:
        taken = [clients.submit(server.detect, photo) for _ in range(2)]
        wait_for(lambda: gate.entered.is_set() and server.queue.waiting == 1)
        assert server.detect(photo) == (503, {"detail": "The server holds as many uploads as it can. Try again soon."})
        gate.open.set()
        assert [each.result()[0] for each in taken] == [200] * 2
        assert server.detect(photo)[0] == 200


def test_a_client_that_goes_away_leaves_its_place(
    stand_in: StandIn, gate: Gate, photo: bytes, clients: ThreadPoolExecutor
) -> None:
    with running(stand_in) as server:
        first = clients.submit(server.detect, photo)
        wait_for(gate.entered.is_set)
        head = f"HTTP/1.1\r\nHost: localhost\r\nAccept: {LINES}\r\nContent-Length: {len(photo)}\r\n\r\n".encode()
        for way in (b"POST /v1/detect ", b"POST / "):
            with connected(server.port) as gone:
                gone.sendall(way + head + photo)
                wait_for(lambda: server.queue.waiting == 1)
            wait_for(lambda: server.queue.waiting == 0)
        gate.open.set()
        assert first.result()[0] == 200
        wait_for(lambda: b'sare_requests_total{status="400",verdict=""} 2.0' in server.ask("GET", "/metrics")[2])


def test_who_has_gone_costs_no_batch(stand_in: StandIn, photo: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the batch that its image is to be in is made up already."""
    monkeypatch.setattr(running_module, "PIXELS", 1)  # each image is a part of its own
    passes = threading.Semaphore(1)
    stand_in.of = lambda image, _: brightness(image) * passes.acquire(timeout=120)

    async def ask() -> None:
        queue = Queue(Examiner(stand_in, None), Limits(), Metrics())  # type: ignore[arg-type]
        jobs = [queue.put(of_bytes("photo", photo)) for _ in range(4)]
        await jobs[0].answer
        await asyncio.sleep(0)
        assert queue.begun and queue.waiting == 2
        jobs[2].answer.cancel()
        await asyncio.sleep(0)
        assert queue.waiting == 1
        passes.release(3)
        await asyncio.gather(jobs[1].answer, jobs[3].answer)

    asyncio.run(ask())
    assert stand_in.batches == [1, 1, 1]


@pytest.mark.parametrize("path", ["/docs", "/"])
def test_who_does_not_read_is_cut(path: str, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, photo: bytes) -> None:
    """Of an answer that is whole, and of one that is still being written; who reads slowly is not."""
    monkeypatch.setattr(server_module, "PATIENCE", 0.3)
    monkeypatch.setattr(Page, "docs", lambda *_: "x" * 30_000_000)
    monkeypatch.setattr(Page, "parts", lambda *_: {"said": "x" * 30_000_000})
    head = "GET /docs" if path == "/docs" else "POST /"
    asked = (
        f"{head} HTTP/1.1\r\nHost: localhost\r\nAccept: application/x-ndjson\r\nContent-Length: {len(photo)}\r\n\r\n"
    )
    with running(stand_in) as server, connected(server.port) as silent, connected(server.port) as slow:
        for connection in (silent, slow):
            connection.sendall(asked.encode() + photo)
        read = 0
        for _ in range(10):
            time.sleep(0.1)
            read += len(slow.recv(4_000_000, socket.MSG_WAITALL))
        read += len(answer_of(slow))
        assert read > 30_000_000
        assert len(answer_of(silent)) < 30_000_000


def test_a_body_without_end_is_read_no_further_than_allowed() -> None:
    """200 MB in chunks, with no length told before."""
    read = 0

    async def receive() -> dict[str, object]:
        nonlocal read
        read += 1 << 16
        return {"type": "http.request", "body": bytes(1 << 16), "more_body": read < 200_000_000}

    uploads = Uploads(Limits(body=1_000_000))
    scope = {"type": "http", "method": "POST", "headers": [], "query_string": b""}
    with pytest.raises(Refused, match="An image may have 1 MB") as refused:
        asyncio.run(uploads.read(Request(scope, receive)))  # type: ignore[arg-type]
    assert refused.value.status == 413
    assert read <= 1_000_000 + ENVELOPE + (1 << 16)
    assert uploads.held == 0


@pytest.mark.parametrize("close", [True, False])
def test_who_sends_too_much_is_told_so_at_the_end(stand_in: StandIn, close: bool) -> None:
    size, ends = 6_000_000, b"Connection: close\r\n" * close
    with running(stand_in, limits=Limits(body=1_000_000)) as server, connected(server.port) as sender:
        sender.sendall(b"POST /v1/detect HTTP/1.1\r\nHost: localhost\r\n%bContent-Length: %d\r\n\r\n" % (ends, size))
        sender.sendall(bytes(size))
        assert sender.recv(1 << 16).startswith(b"HTTP/1.1 413 ")


def test_who_asks_before_sending_need_not_send(stand_in: StandIn) -> None:
    with running(stand_in, limits=Limits(body=1_000_000)) as server, connected(server.port) as sender:
        head = b"POST /v1/detect HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 6000000\r\n\r\n"
        sender.sendall(head)
        assert sender.recv(1 << 16).startswith(b"HTTP/1.1 413 ")


def test_slow_clients_are_cut(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, photo: bytes) -> None:
    """One that says nothing, one that never ends its head, and one whose body trickles."""
    monkeypatch.setattr(server_module, "PATIENCE", 0.3)
    with running(stand_in, limits=Limits(upload=0.5)) as server:
        with connected(server.port) as silent, connected(server.port) as endless, connected(server.port) as slow:
            endless.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
            slow.sendall(b"POST /v1/detect HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n12")
            assert answer_of(slow).startswith(b"HTTP/1.1 408 ")
            assert answer_of(silent) == answer_of(endless) == b""
        assert server.detect(photo)[0] == 200


def test_a_connection_in_use_is_not_cut(
    stand_in: StandIn, gate: Gate, monkeypatch: pytest.MonkeyPatch, photo: bytes, clients: ThreadPoolExecutor
) -> None:
    monkeypatch.setattr(server_module, "PATIENCE", 0.1)
    with running(stand_in) as server:
        answer = clients.submit(server.detect, photo)
        wait_for(gate.entered.is_set)
        time.sleep(0.5)
        gate.open.set()
        assert answer.result()[0] == 200


def test_it_ends_when_what_waits_is_answered(
    stand_in: StandIn, gate: Gate, photo: bytes, clients: ThreadPoolExecutor
) -> None:
    with running(stand_in) as server:
        taken = [clients.submit(server.detect, photo)]
        wait_for(gate.entered.is_set)
        taken += [clients.submit(server.detect, photo) for _ in range(3)]
        wait_for(lambda: server.queue.waiting == 3)
        server.server.handle_exit(signal.SIGTERM, None)
        status, headers, body = server.ask("POST", "/v1/detect", photo)
        assert (status, headers["retry-after"]) == (503, "5")
        assert b"about to stop" in body
        assert (server.ask("GET", "/readyz")[0], server.ask("GET", "/healthz")[0]) == (503, 200)
        gate.open.set()
        assert [each.result()[0] for each in taken] == [200] * 4
        server.thread.join(20)
        assert not server.thread.is_alive()
        with pytest.raises(ConnectionRefusedError):
            server.ask("GET", "/healthz")


def test_a_port_that_is_taken_is_named() -> None:
    with bound("127.0.0.1", 0) as taken, pytest.raises(ConfigError, match=r"in use\. Name others: --host, --port"):
        taken.listen()
        bound("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(ConfigError, match=r"^a\.\.b, port 0: .*Name others"):
        bound("a..b", 0)


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=120)


def answer_of(connection: socket.socket) -> bytes:
    """All that comes until the other side ends it."""
    found = b""
    try:
        while piece := connection.recv(1 << 16):
            found += piece
    except ConnectionResetError:
        pass
    return found
