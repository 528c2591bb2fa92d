"""A table of URLs: each fault is one image's, told soon; and a store or network that is down ends the run."""

import io
import logging
import socket
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import polars as pl
import pytest
import stamina
from PIL import Image

from sare_core.errors import ConfigError, ImageError, TransientError
from sare_core.images.reading import read_bytes
from sare_core.index.indexing import build_index
from sare_core.store import remote, web
from sare_core.store.remote import with_retries


def picture(seed: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(out, "PNG")
    return out.getvalue()


asked: Counter[str] = Counter()


class Handler(BaseHTTPRequestHandler):
    """`/<seed>.png` is an image; `/<status>` an answer of that status; `/busy.png` an image from the third time on."""

    def do_GET(self) -> None:
        name = self.path.strip("/").partition("?")[0]
        asked[name] += 1
        busy = name == "busy.png" and asked[name] < 3
        status = 503 if busy else int(name) if name.isdigit() else 200
        body = picture(0 if name == "busy.png" else int(name.partition(".")[0])) if status == 200 else b"no"
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(autouse=True)
def short_memory() -> Iterator[None]:
    web._unanswered.clear()
    yield
    web._unanswered.clear()


@pytest.fixture
def nobody() -> str:
    """An address at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def indexed(folder: Path, *paths: str) -> dict[str, str | None]:
    """The error of each path, null where it is an image."""
    (folder / "table.csv").write_text("\n".join(["path", *paths]))
    report = build_index("it", "folder", str(folder / "table.csv"), str(folder / "manifests"), workers=2)
    return dict(report.index.frame().select("path", "error").rows())


@pytest.mark.timeout(60)
def test_a_dead_url_or_missing_file_is_one_error_row(tmp_path: Path, server: str, nobody: str) -> None:
    (tmp_path / "here.png").write_bytes(picture(100))
    good = [f"{server}/{seed}.png" for seed in range(1, 6)]
    bad = {
        f"{server}/404": "is gone",
        f"{server}/410": "cannot be fetched: .*410",
        f"{server}/403": "cannot be fetched: access denied",
        "http://no-such-host.invalid/a.png": "cannot be fetched: ",
        f"{server}/302": "cannot be fetched|is not an image",
        "missing.png": "is gone",
    }
    errors = indexed(tmp_path, "here.png", *good, *bad)
    assert {path for path, error in errors.items() if error is None} == {"here.png", *good}
    for path, reason in bad.items():
        assert pl.Series([errors[path]]).str.contains(reason).item(), errors[path]
    assert asked["404"] <= 6, "not tried for long: looked up by two methods, read once"


@pytest.mark.timeout(60)
def test_hosts_that_do_not_answer_are_not_waited_for_by_each_image(
    tmp_path: Path, nobody: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "PATIENCE", 0.2)
    started = time.monotonic()
    errors = []
    for number in range(100):
        with pytest.raises(ImageError) as error:
            read_bytes(f"{nobody}/{number}.png")
        errors.append(str(error.value))
    assert time.monotonic() - started < 10
    assert all("not reachable" in error for error in errors[: web.GIVE_UP_AFTER])
    assert all("has not answered 3 times in a row" in error for error in errors[web.GIVE_UP_AFTER :])


def test_an_answer_of_any_kind_shows_that_the_host_is_there(server: str) -> None:
    for _ in range(2 * web.GIVE_UP_AFTER):
        with pytest.raises(ImageError, match="is gone"):
            read_bytes(f"{server}/404")
    assert read_bytes(f"{server}/1.png") == picture(1)


@pytest.mark.parametrize("status", [429, 503])
def test_a_host_that_is_busy_for_some_images_is_asked_for_the_others(
    server: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "PATIENCE", 0.1)
    for number in range(web.GIVE_UP_AFTER):
        with pytest.raises(ImageError, match=f"cannot be fetched: .*{status}"):
            read_bytes(f"{server}/{status}?{number}")
    assert read_bytes(f"{server}/1.png") == picture(1)


def test_a_busy_host_is_asked_again(server: str) -> None:
    assert read_bytes(f"{server}/busy.png") == picture(0)
    assert asked["busy.png"] == 3


def test_nothing_reachable_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no image that can be used, among 3 files.*not reachable"):
        indexed(tmp_path, *(f"http://no-such-host.invalid/{n}.png" for n in range(3)))


def test_the_time_left_is_never_negative(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Each attempt may last longer than the patience."""
    clock = [0.0]
    monkeypatch.setattr(remote.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(remote, "_told", -100.0)

    def slow() -> None:
        clock[0] += 7.0
        raise OSError("stale")

    with (
        stamina.set_testing(True, attempts=5),  # without the pauses
        caplog.at_level(logging.WARNING),
        pytest.raises(TransientError, match="still fails after 15 seconds"),
    ):
        with_retries("s3://bucket", slow, patience=15.0)
    said = [record.getMessage() for record in caplog.records if record.name == "sare"]
    assert said == ["s3://bucket: stale. Trying again for up to 1 seconds."]
