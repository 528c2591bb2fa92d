"""Captions by a server: a stand-in that answers, stalls, fails and talks nonsense."""

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import openai
import pytest
from PIL import Image

from sare_core.captioning import load_captioner
from sare_core.config.captioning import CaptionSettings
from sare_core.errors import ConfigError, ImageError, TransientError

MODEL = "some/vlm"
Make = Callable[..., CaptionSettings]


class StandIn(ThreadingHTTPServer):
    """Says "level 7" of an image whose first pixel is 7. What `moods` holds for a level comes before that, in turn."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.moods: dict[int, list[Any]] = {}
        self.asked: list[dict[str, Any]] = []
        self.models: Any = {"object": "list", "data": [{"id": MODEL, "object": "model"}]}
        self.at_once = self.most_at_once = 0
        self.pause, self.lock = 0.0, threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: StandIn

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.answer(200, self.server.models)

    def do_POST(self) -> None:
        server = self.server
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        picture = request["messages"][0]["content"][0]["image_url"]["url"].partition("base64,")[2]
        level = int(np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))))[0, 0, 0])
        with server.lock:
            server.asked.append(request)
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
            mood = server.moods[level].pop(0) if server.moods.get(level) else None
        time.sleep(server.pause)
        with server.lock:
            server.at_once -= 1
        if mood == "stall":
            time.sleep(3)
        elif mood == "hang up":
            self.connection.close()
        elif isinstance(mood, int):
            self.answer(mood, {"error": {"message": f"mood {mood}"}})
        elif mood is not None:
            self.answer(200, mood)
        else:
            message = {"role": "assistant", "content": f" level {level}\n"}
            self.answer(200, {"id": "x", "object": "chat.completion", "choices": [{"index": 0, "message": message}]})

    def answer(self, status: int, body: Any) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if isinstance(body, bytes) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.01)
    server = StandIn()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def ask(server: StandIn, settings: Make) -> Callable[..., list[Any]]:
    def ask(*levels: int, **changes: Any) -> list[Any]:
        captioner = load_captioner(of(settings, server, **changes), None, "cpu")
        images = [Image.fromarray(np.full((4, 5, 3), level, np.uint8)) for level in levels]
        return list(captioner.caption(images, [{} for _ in images]))

    return ask


def of(settings: Make, standin: StandIn, **changes: Any) -> CaptionSettings:
    asked = {"captioner": "server", "server": standin.url, "server_model": MODEL, "prompt": "What is it?"}
    return settings(**(asked | {"server_timeout": 1.0} | changes))


def test_each_image_gets_its_caption_in_order(server: StandIn, ask: Callable[..., list[Any]]) -> None:
    assert ask(*range(20)) == [f"level {level}" for level in range(20)]
    request = server.asked[0]
    assert (request["model"], request["temperature"], request["max_tokens"]) == (MODEL, 0, 8)
    assert request["messages"][0]["content"][1] == {"type": "text", "text": "What is it?"}


def test_so_many_requests_at_a_time_as_the_batch_size(server: StandIn, ask: Callable[..., list[Any]]) -> None:
    server.pause = 0.1
    started = time.monotonic()
    ask(*range(16), batch_size=8)
    assert 2 <= server.most_at_once <= 8
    assert time.monotonic() - started < 16 * 0.1


@pytest.mark.parametrize("mood", ["stall", "hang up", 500, 503, 429])
def test_a_passing_fault_is_tried_again(server: StandIn, ask: Callable[..., list[Any]], mood: Any) -> None:
    server.moods[5] = [mood, mood]
    assert ask(4, 5, 6) == ["level 4", "level 5", "level 6"]
    assert len(server.asked) == 5


def test_a_server_that_stays_away_fails_the_shard(server: StandIn, ask: Callable[..., list[Any]]) -> None:
    server.moods[5] = [503] * 20
    with pytest.raises(TransientError, match=r"no answer after 4 tries.*See to the server"):
        ask(4, 5, 6)


@pytest.mark.parametrize(
    ("mood", "reason"),
    [
        (400, "the server refuses it (Error code: 400"),
        (413, "the server refuses it (Error code: 413"),
        (b"<html>welcome</html>", "holds no message"),
        ({"choices": []}, "holds no message"),
        ({"choices": None}, "holds no message"),
        ({"choices": [{"message": {"content": None}}]}, "holds no text"),
        ({"choices": [{"message": {"content": ["a", "list"]}}]}, "holds no text"),
        ([1, 2], "holds no message"),
    ],
    ids=str,
)
def test_one_bad_answer_fails_that_image_alone(
    server: StandIn, ask: Callable[..., list[Any]], mood: Any, reason: str
) -> None:
    server.moods[5] = [mood]
    before, bad, after = ask(4, 5, 6)
    assert (before, after) == ("level 4", "level 6")
    assert isinstance(bad, ImageError)
    assert reason in str(bad)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_of_everything_is_a_wrong_setting(
    server: StandIn, ask: Callable[..., list[Any]], status: int
) -> None:
    server.moods[5] = [status]
    with pytest.raises(ConfigError, match=r"refuses.*OPENAI_API_KEY"):
        ask(5)


def test_what_is_wrong_is_told_before_an_image_is_read(server: StandIn, settings: Make) -> None:
    with pytest.raises(ConfigError, match=r"server_model=other: .* has some/vlm"):
        load_captioner(of(settings, server, server_model="other"), None, "cpu")
    with pytest.raises(ConfigError, match=r"caption\.server=http://127\.0\.0\.1:9/v1: does not answer"):
        load_captioner(of(settings, server, server="http://127.0.0.1:9/v1"), None, "cpu")
    for missing in ("server", "server_model", "prompt"):
        with pytest.raises(ConfigError, match=rf"captioner server needs caption\.{missing}, "):
            load_captioner(of(settings, server, **{missing: None}), None, "cpu")
    with pytest.raises(ConfigError, match="begins with neither http"):
        load_captioner(of(settings, server, server="localhost:8000"), None, "cpu")
    with pytest.raises(ConfigError, match="num_beams"):
        load_captioner(of(settings, server, num_beams=3), None, "cpu")


@pytest.mark.parametrize("models", [{"data": []}, b"<html>", {"nothing": 1}], ids=str)
def test_a_server_that_lists_no_models_is_taken_at_its_word(
    server: StandIn, ask: Callable[..., list[Any]], models: Any
) -> None:
    server.models = models
    assert ask(1) == ["level 1"]


def test_the_address_is_no_part_of_the_fingerprint(server: StandIn, settings: Make) -> None:
    here = of(settings, server)
    there = of(settings, server, server="http://elsewhere/v1", server_timeout=5.0, batch_size=1)
    assert here.fingerprint_fields() == there.fingerprint_fields()
    assert of(settings, server, server_model="another").fingerprint_fields() != here.fingerprint_fields()
    assert "server_model" not in settings().fingerprint_fields(), "older folders keep their names"
