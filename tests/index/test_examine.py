"""No file holds up an index: each has a limit of time, and signals end the run in each of its phases."""

import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from sare_core.errors import ConfigError, StageError
from sare_core.index import examine, listing
from sare_core.index.indexing import IndexReport, build_index
from sare_core.index.listing import Problem
from tests.trees import generated

pytestmark = pytest.mark.timeout(60)


def progressive(scans: int, side: int = 1500) -> bytes:
    """A JPEG whose last scan comes again and again: few bytes each, and all blocks are gone through for each."""
    out = io.BytesIO()
    Image.new("L", (side, side), 100).save(out, "JPEG", progressive=True)
    data = out.getvalue()
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * scans + b"\xff\xd9"


@contextmanager
def silent_server() -> Iterator[tuple[str, socket.socket]]:
    """It takes connections, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}", server


def images(folder: Path, count: int = 5) -> Path:
    rng = np.random.default_rng(0)
    for number in range(count):
        generated(folder / f"{number}.png", rng, 16)
    return folder


def run(root: Path, manifests: Path, workers: int = 1) -> IndexReport:
    return build_index("it", "folder", str(root), str(manifests), workers=workers)


def errors(report: IndexReport) -> dict[str, str]:
    return dict(report.index.frame().drop_nulls("error").select("path", "error").rows())


@pytest.mark.parametrize("workers", [1, 2])
def test_a_decoder_that_goes_on_and_on_is_ended(tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    root = images(tmp_path / "root", 8)
    (root / "3b.jpg").write_bytes(progressive(scans=30_000))
    (root / "5b.jpg").write_bytes(progressive(scans=3))
    monkeypatch.setattr(examine, "DECODE_SECONDS", 0.5)
    monkeypatch.setattr(examine, "CHUNK", 3)
    started = time.monotonic()
    report = run(root, tmp_path / "manifests", workers)
    assert time.monotonic() - started < 30
    assert errors(report) == {
        "3b.jpg": "decoding it took more than 0.5 seconds of processor time. Leave it out.",
    }
    assert report.index.about["images"] == 9


def test_a_read_that_never_ends_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examine, "READ_SECONDS", 1.0)
    monkeypatch.setattr(listing, "stat", lambda path: (1, 1))
    monkeypatch.setattr("sare_core.index.table.stat", lambda path: (1, 1))
    images(tmp_path, 2)
    with silent_server() as (url, _):
        (tmp_path / "table.csv").write_text(f"path\n0.png\n{url}/a.png\n1.png\n")
        report = run(tmp_path / "table.csv", tmp_path / "manifests")
    assert errors(report) == {f"{url}/a.png": "reading it took more than 1 seconds. Check the disk, or leave it out."}
    assert report.index.about["images"] == 2


def test_a_process_that_dies_otherwise_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed for want of memory, say: that need not be the file's fault, and no file becomes an error row."""
    give = examine._Worker.give

    def give_and_kill(worker: examine._Worker, files: list[examine.File]) -> None:
        worker.process.kill()
        worker.process.join()
        give(worker, files)

    monkeypatch.setattr(examine._Worker, "give", give_and_kill)
    with pytest.raises(StageError, match=r"0\.png: a process that read images died at this one \(exit code -9\)"):
        run(images(tmp_path / "root"), tmp_path / "manifests")


def test_links_that_fan_out_end(tmp_path: Path) -> None:
    """Seven folders, each with ten links to the next: ten million ways to the last."""
    images(tmp_path / "7")
    for level in range(7):
        (tmp_path / str(level)).mkdir()
        for number in range(10):
            (tmp_path / str(level) / f"link{number}").symlink_to(tmp_path / str(level + 1))
    started = time.monotonic()
    with pytest.raises(ConfigError, match=r"/0/link0/.*: reached in more than 100 ways through links. Remove links"):
        list(listing.walk(str(tmp_path / "0"), []))
    assert time.monotonic() - started < 10


def test_a_few_links_to_one_folder_and_a_loop(tmp_path: Path) -> None:
    images(tmp_path / "shared", 2)
    for number in range(20):
        (tmp_path / "root" / f"generator{number}").mkdir(parents=True)
        (tmp_path / "root" / f"generator{number}" / "real").symlink_to(tmp_path / "shared")
    (tmp_path / "shared" / "again").symlink_to(tmp_path / "shared")
    problems: list[Problem] = []
    found = list(listing.walk(str(tmp_path / "root"), problems))
    assert sum(len(files) for _, files in found) == 40
    assert len(problems) == 20 and {problem.problem for problem in problems} == {
        "not followed: a link to a folder above it"
    }


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("phase", ["listing", "decoding"])
def test_signals_end_each_phase(tmp_path: Path, phase: str, signum: signal.Signals) -> None:
    root = images(tmp_path / "root", 2)
    with silent_server() as (url, server):
        if phase == "listing":
            root = tmp_path / "root" / "table.csv"
            root.write_text(f"path\n{url}/a.png\n{url}/b.png\n")
        else:
            (root / "0b.jpg").write_bytes(progressive(scans=30_000))
        command = [sys.executable, "-m", "stages.app", "index", "--layout", "folder", "--root", root, "--name", "it"]
        process = subprocess.Popen(
            [*map(str, command), "--manifests", str(tmp_path / "m")],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(Path.cwd())},
        )
        if phase == "listing":
            _open = server.accept()
        else:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            while not children.read_text():
                time.sleep(0.1)
            time.sleep(1)
        assert process.poll() is None
        process.send_signal(signum)
        started = time.monotonic()
        _, said = process.communicate(timeout=120)
    assert time.monotonic() - started < 10
    assert process.returncode == 128 + signum
    assert f"stopped by signal {signum.value}; what was finished is kept" in said and "Traceback" not in said


def test_what_was_read_before_a_limit_is_in_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = images(tmp_path / "root", 8)
    (root / "9.jpg").write_bytes(progressive(scans=30_000))
    monkeypatch.setattr(examine, "DECODE_SECONDS", 0.5)
    first = run(root, tmp_path / "manifests")
    second = run(root, tmp_path / "manifests")
    assert (first.read, second.read) == (9, 1), "the error is tried again, and nothing else"
    assert first.index.frame().equals(second.index.frame())
    assert pl.read_csv(tmp_path / "manifests" / "it" / "problems.csv")["path"].to_list() == ["9.jpg"]
