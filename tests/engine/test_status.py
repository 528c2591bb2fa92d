"""`sare status --json`: one document and nothing else, whatever lies in the work folder."""

import json
import os
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import typer

from sare_core.engine.checkpoints import save_checkpoint
from sare_core.engine.folders import Failure, Folder, Output
from sare_core.engine.manifest import Index, write_index
from stages.status import status
from tests.builders import ABOUT, index_frame, index_row, shard_record

ROWS = [index_row(number, number // 2) for number in range(8)]  # four shards of two test images


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return write_index(str(tmp_path / "manifests"), "it", index_frame(*ROWS), ABOUT)


@pytest.fixture
def document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Reads the document as a script does."""

    def read() -> dict[str, Any]:
        code = 0
        try:
            status(work=str(tmp_path / "work"), manifests=str(tmp_path / "manifests"), as_json=True)
        except typer.Exit as end:
            code = end.exit_code
        out, err = capsys.readouterr()
        assert err == ""
        assert out.isascii(), "it prints in any locale, and nothing in it steers a terminal"
        found: dict[str, Any] = json.loads(out, parse_constant=pytest.fail)  # NaN is no JSON
        assert code == bool(found["problems"])
        return found

    return read


def made(tmp_path: Path, stage: str, **made_by: Any) -> Folder:
    folder = Folder(str(tmp_path / "work"), "it", stage, {"stage": stage, **made_by}, None)
    folder.describe(preset="my[/b].yaml", splits=["test"])
    return folder


def claim(folder: Folder, shard: int) -> None:
    mark = {"host": os.uname().nodename, "pid": os.getpid(), "started": psutil.Process().create_time()}
    folder.store.write(f"claims/{shard:05d}.json", json.dumps(mark).encode())


def test_of_nothing(document: Any, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    assert document() == {"format": 1, "work": str(tmp_path / "work"), "folders": [], "problems": []}


def test_shards_rate_and_failures(document: Any, index: Index, tmp_path: Path) -> None:
    folder = made(tmp_path, "captions")
    for shard, seconds in ((0, 4.0), (1, 1.0)):
        name = f"{shard:05d}-0123456789ab.parquet"
        folder.store.write(name, b"x")
        failures = [Failure(image_id=ROWS[2 * shard]["image_id"], path="x", reason="too dark\x1b[31m")]
        facts = {"output": Output(name=name, bytes=1, sha256="0" * 64), "ok": 1, "failures": failures}
        inputs = {"index": index.digests[shard]}
        folder.commit(shard_record(folder, shard, inputs, seconds=seconds, **facts))
    facts = {"status": "failed", "error": "disk\n\u202eaway", "output": None}
    folder.commit(shard_record(folder, 2, {"index": index.digests[2]}, **facts))
    claim(folder, 3)
    (found,) = document()["folders"]
    assert isinstance(found.pop("described"), str)
    assert found == {
        "dataset": "it",
        "stage": "captions",
        "fingerprint": folder.fingerprint,
        "url": folder.store.url,
        "runs": ["b]"],
        "preset": "my[/b].yaml",
        "shards": {"done": 2, "open": 0, "running": 1, "failed": 1, "stale": 0},
        "images_per_second": 0.8,  # 4 images in 5 seconds
        "eta_seconds": 5.0,  # 4 images are left
        "not_done": [
            {"reason": "failed (disk\n\u202eaway)", "shards": 1},
            {"reason": f"running ({os.uname().nodename}, process {os.getpid()})", "shards": 1},
        ],
        "failed_images": [{"reason": "too dark\x1b[31m", "images": 2}],
        "checkpoint": None,
        "holder": None,
    }


def test_a_detector(document: Any, index: Index, tmp_path: Path) -> None:
    folder = made(tmp_path, "detectors", settings={"epochs": 3})
    assert document()["folders"] == [], "nobody has begun it"
    claim(folder, 0)
    (found,) = document()["folders"]
    assert (found["shards"], found["checkpoint"], found["eta_seconds"]) == (None, None, None)
    facts: dict[str, Any] = {"step": 4, "epoch": 2, "finished": False, "history": [], "about": {}}
    for name in ("last", "best"):
        save_checkpoint(folder.store, name, {"w": torch.zeros(3)}, **facts)
    (found,) = document()["folders"]
    assert found["checkpoint"] == {"epoch": 2, "epochs": 3, "step": 4, "finished": False, "best_epoch": 2}
    assert found["holder"] == f"{os.uname().nodename}, process {os.getpid()}"


def test_a_folder_that_cannot_be_read_is_a_problem(document: Any, index: Index, tmp_path: Path) -> None:
    claim(made(tmp_path, "captions"), 0)
    broken = made(tmp_path, "captions", other=1)
    broken.store.write("about.json", b"{")
    found = document()
    assert len(found["folders"]) == 1
    (problem,) = found["problems"]
    assert f"{broken.store.path('about.json')}: missing or unreadable" in problem
