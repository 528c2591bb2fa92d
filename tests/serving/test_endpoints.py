"""What is asked and what is answered: results, refusals, what a browser is told, counts."""

import asyncio
import io
import json
import re
import struct
import tempfile
import zlib
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from sare_core.detection.calibration import Calibration
from sare_core.detection.examining import Examiner
from sare_core.detection.loading import load
from sare_core.detection.outputs import Json
from sare_core.detection.sources import Source
from sare_core.serving.app import make_app
from sare_core.serving.guard import LOCAL, Guard, name_of
from sare_core.serving.limits import Limits
from sare_core.serving.metrics import Metrics
from tests.detection.conftest import StandIn, grained
from tests.serving.conftest import Gate

SMALL = Limits(body=500_000)
SCHEMA = json.loads((files("sare_core.detection") / "schema.json").read_text())


@pytest.fixture
def client(stand_in: StandIn, calibration: Calibration) -> Iterator[TestClient]:
    with of(stand_in, calibration) as client:
        yield client


def of(detector: StandIn, calibration: Calibration | None, limits: Limits = SMALL) -> TestClient:
    app, _ = make_app(Examiner(detector, calibration), limits)
    return TestClient(app, "http://localhost", raise_server_exceptions=False)


def png(level: float, **of_image: object) -> bytes:
    made = io.BytesIO()
    grained(level, **of_image).save(made, "PNG")  # type: ignore[arg-type]
    return made.getvalue()


@pytest.mark.parametrize("level", [60, 128, 220])
def test_a_result_is_that_of_the_command(
    client: TestClient, stand_in: StandIn, calibration: Calibration, level: int, tmp_path: Path
) -> None:
    """As `sare detect --json` writes it, in a form and as the body, and as the schema has it."""
    data = png(level)
    (tmp_path / "photo.png").write_bytes(data)
    told = io.StringIO()
    with Json(told) as output:
        output.write(
            [
                each.result
                for each in Examiner(stand_in, calibration).examine([load(Source(str(tmp_path / "photo.png")))])
            ]
        )
    (expected,) = json.loads(told.getvalue())
    in_form = client.post("/v1/detect", files={"image": ("photo.png", data)})
    as_body = client.post("/v1/detect?name=photo.png", content=data)
    assert expected["verdict"] in ("inconclusive", "likely_ai")
    for answer in (in_form, as_body):
        assert answer.status_code == 200
        found = answer.json()
        jsonschema.validate(found, SCHEMA)
        assert found | {"milliseconds": 0, "path": ""} == expected | {"milliseconds": 0, "path": ""}
        assert found["path"] == "photo.png"
    assert client.get("/v1/schema").json() == SCHEMA


def bomb(width: int, height: int) -> bytes:
    """A PNG of few bytes that says so much of itself."""
    parts = (b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(bytes(10_000)))
    chunks = [struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


HOSTILE = {
    "nothing": (b"", 400, ""),
    "no image": (b"hello", 200, "is not an image"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', 200, "is not an image"),
    "cut": (png(60)[:900], 200, "cannot be decoded"),
    "bomb": (bomb(60_000, 60_000), 200, "too large to decode"),
    "large bomb": (bomb(10_000, 10_000), 200, "100,000,000 pixels, and this server examines up to 1,000,000"),
    "large": (png(60, size=(1200, 1000)), 200, "1,200,000 pixels"),
    "scans": (b"\xff\xd8" + b"\xff\xda" * 101, 200, "more than 100 scans"),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_gets_a_clear_answer(stand_in: StandIn, calibration: Calibration, kind: str) -> None:
    data, status, told = HOSTILE[kind]
    before = list(stand_in.batches)
    with of(stand_in, calibration, Limits(pixels=1_000_000)) as client:
        answer = client.post("/v1/detect", content=data)
        assert answer.status_code == status
        if status == 200:
            assert answer.json()["verdict"] == "no_verdict"
            assert told in answer.json()["reasons"][0]["text"]
        assert stand_in.batches == before, "none of it reaches the models"
        assert client.get("/readyz").status_code == 200


def test_a_polyglot_is_the_image_that_it_begins_with(client: TestClient) -> None:
    data = png(60)
    answer = client.post("/v1/detect", content=data + b"PK\x05\x06<script>alert(1)</script>")
    assert answer.json()["format"] == "PNG"


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "<img src=x onerror=alert(1)>.png", "a\u202egnp.exe", "\x1b[2J", "x" * 9000]
)
def test_a_name_is_only_shown(client: TestClient, name: str) -> None:
    found = client.post("/v1/detect", params={"name": name}, content=png(60)).json()
    assert found["verdict"] == "inconclusive"
    assert not re.search("[\u202e\x1b]", found["path"])
    page = client.post("/", files={"image": (name, png(60))}, headers={"Accept": "text/html"}).text
    assert "<img src=x" not in page


def test_a_damaged_form_is_refused(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    form = {"Content-Type": "multipart/form-data"}
    assert client.post("/v1/detect", content=png(60), headers=form).status_code == 400
    form = {"Content-Type": "multipart/form-data; boundary=b"}
    assert client.post("/v1/detect", content=b"--b\r\n\r\nno name\r\n--b--", headers=form).status_code == 400
    assert client.post("/v1/detect", content=b"x" * 90, headers=form).status_code == 400
    part = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nit\r\n--b--\r\n'
    form = {"Content-Type": "multipart/form-data; boundary=b; charset=undefined"}
    assert "its charset" in client.post("/v1/detect", content=part, headers=form).json()["detail"]
    assert not caplog.records, "the log is for faults of the server"
    two = [("image", ("a.png", png(60))), ("image", ("b.png", png(60)))]
    assert "Too many files" in client.post("/v1/detect", files=two).json()["detail"]
    assert client.post("/v1/detect", data={"image": "not a file"}, files={}).json()["verdict"] == "no_verdict"


def test_an_upload_that_is_too_large_is_refused_and_none_reaches_a_disk(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_file(*_: object, **__: object) -> None:
        raise AssertionError("a temporary file")

    monkeypatch.setattr(tempfile, "TemporaryFile", no_file)  # what a spooled file becomes when it is large
    for way in ({"content": bytes(600_000)}, {"files": {"image": ("a.png", bytes(600_000))}}):
        answer = client.post("/v1/detect", **way)  # type: ignore[arg-type]
        assert (answer.status_code, answer.json()["detail"]) == (413, "An image may have 0.5 MB here.")


def test_other_names_and_other_sites_are_turned_away(client: TestClient) -> None:
    assert client.get("/", headers={"Host": "localhost:8000"}).status_code == 200
    assert client.get("/", headers={"Host": "[::1]:8000"}).status_code == 200
    assert client.get("/", headers={"Host": "LOCALHOST.:8000"}).status_code == 200
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 400
    assert client.get("/healthz", headers={"Host": "10.0.0.7:8000"}).status_code == 200
    for origin in ("https://evil.example", "null", "http://localhost:9999", "http://["):
        answer = client.post("/v1/detect", content=png(60), headers={"Origin": origin})
        assert answer.status_code == 403
    own = client.post("/v1/detect", content=png(60), headers={"Origin": "http://LocalHost"})
    assert own.status_code == 200
    assert not [name for name in own.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/page.js", "/page.css", "/none", "/metrics"])
def test_a_browser_may_ask_this_server_alone(client: TestClient, path: str) -> None:
    answer = client.get(path)
    rules = dict(rule.split(" ", 1) for rule in answer.headers["Content-Security-Policy"].split("; "))
    assert rules["default-src"] == "'none'"
    assert set(" ".join(rules.values()).split()) <= {"'none'", "'self'", "data:", "blob:"}
    assert answer.headers["Cache-Control"] == "no-store"
    assert set(re.findall(r"https?://[^/\s\"'<]+", answer.text)) <= {"http://HOST:PORT"}


def test_the_page_works_without_its_script(client: TestClient) -> None:
    page = client.post("/", files={"image": ("a.png", png(220))}, headers={"Accept": "text/html,*/*"})
    assert page.status_code == 200
    assert '<h2 class="verdict" tabindex="-1">Likely AI-generated</h2>' in page.text
    assert page.text.count('src="data:image/png;base64,') == 3
    assert "of 40 real photographs of “reals” lie beyond it" in page.text
    assert "not a probability" in page.text
    assert "a picture of &lt;b&gt;something&lt;/b&gt;" in page.text
    assert not re.search(r"\d\s*%(?! interval)", page.text)
    empty = client.post("/", files={"image": ("", b"")}, headers={"Accept": "text/html"})
    assert empty.status_code == 400
    assert "There is no image in the request." in empty.text


def test_the_pages_script_is_told_each_stage(client: TestClient) -> None:
    lines = client.post("/", files={"image": ("a.png", png(220))}, headers={"Accept": "application/x-ndjson"})
    events = [json.loads(line) for line in lines.text.splitlines()]
    assert [event.get("stage") for event in events] == ["queued", "decoding", "scoring", None]
    assert events[-1]["said"] == "likely AI-generated"


def test_the_endpoints_are_described(client: TestClient) -> None:
    api = client.get("/openapi.json").json()
    assert set(api["paths"]) == {"/v1/detect", "/v1/schema", "/healthz", "/readyz", "/metrics"}
    assert set(api["paths"]["/v1/detect"]["post"]["responses"]) >= {"200", "400", "408", "413", "503", "504"}
    page = client.get("/docs").text
    assert all(path in page for path in api["paths"])


def test_what_is_counted(client: TestClient) -> None:
    client.post("/v1/detect", content=png(220)), client.post("/v1/detect", content=png(60))
    client.post("/v1/detect", content=png(60)), client.post("/v1/detect", content=b"no image")
    client.post("/v1/detect", content=b"")
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
    }
    requests = {key[1:]: value for key, value in found.items() if key[0] == "sare_requests_total"}
    assert requests == {
        ("200", "likely_ai"): 1,
        ("200", "inconclusive"): 2,
        ("200", "no_verdict"): 1,
        ("400", ""): 1,
    }
    assert found["sare_batch_images_sum",] == 4
    assert found["sare_stage_seconds_count", "scoring"] == 3
    assert found["sare_stage_seconds_count", "queued"] == 4
    assert found["sare_queue_length",] == found["sare_held_bytes",] == 0


def test_what_fails_is_said_and_the_next_image_is_examined(stand_in: StandIn, gate: Gate) -> None:
    gate.fails_at = (96, 64)
    gate.open.set()
    with of(stand_in, None) as client:
        answer = client.post("/v1/detect", content=png(60, size=(96, 64)))
        assert (answer.status_code, answer.json()) == (
            500,
            {"detail": "The server failed at this image. Its log says why."},
        )
        assert client.post("/v1/detect", content=png(60)).status_code == 200
        lines = client.post("/", content=png(60, size=(96, 64)), headers={"Accept": "application/x-ndjson"}).text
        assert json.loads(lines.splitlines()[-1]) == {"error": "The server failed at this image. Its log says why."}
        assert 'sare_requests_total{status="500",verdict=""} 2.0' in client.get("/metrics").text


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("Sare.Example.Org", "sare.example.org"),
        ("sare.example.org.:8000", "sare.example.org"),
        ("10.0.0.7:80", "10.0.0.7"),
        ("2001:DB8::1", "[2001:db8::1]"),
        ("[2001:DB8::1]:80", "[2001:db8::1]"),
        ("[", "[]"),
    ],
)
def test_the_name_of_a_host(given: str, name: str) -> None:
    assert name_of(given) == name


def test_what_breaks_before_an_answer_is_counted_as_what_is_sent_then() -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError

    metrics = Metrics()
    scope = {"type": "http", "method": "POST", "path": "/healthz", "headers": []}
    with pytest.raises(RuntimeError):
        asyncio.run(Guard(broken, LOCAL, metrics)(scope, broken, broken))
    assert b'sare_requests_total{status="500",verdict=""} 1.0' in metrics.text()


def test_an_answer_that_takes_too_long(stand_in: StandIn, gate: Gate) -> None:
    with of(stand_in, None, Limits(answer=0.2)) as client:
        answer = client.post("/v1/detect", content=png(60))
        assert (answer.status_code, answer.headers["Retry-After"]) == (504, "5")
        lines = client.post("/", content=png(60), headers={"Accept": "application/x-ndjson"}).text.splitlines()
        assert "within 0.2 seconds" in json.loads(lines[-1])["error"]
        gate.open.set()
        assert 'sare_requests_total{status="504",verdict=""} 2.0' in client.get("/metrics").text
