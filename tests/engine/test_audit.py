import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from sare_core.engine import ledger
from sare_core.engine.audit import (
    folders,
    integrity_errors,
    mixed_libraries,
    others_differ,
    reopen,
    summarize,
    superseded,
)
from sare_core.engine.checkpoints import save_checkpoint
from sare_core.engine.folders import Failure, Folder, Output
from sare_core.engine.garbage import GRACE, is_empty, orphaned_files
from sare_core.engine.manifest import Index, write_index
from sare_core.engine.owner import this_process
from sare_core.engine.shardfiles import TarWriter
from sare_core.errors import ConfigError
from sare_core.store.storage import Store, sha256_file
from stages.status import status
from stages.verify import verify
from tests.builders import ABOUT, index_frame, index_row, shard_record

ROWS = [
    index_row(0, 0),
    index_row(1, 0),
    index_row(2, 1),
    index_row(3, 1),
    index_row(4, 2, split="train", subset="adm"),
    index_row(5, 2, split="train", subset="adm"),
]
NOBODY = 2**22 + 1  # no process has this number


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return write_index(str(tmp_path / "manifests"), "it", index_frame(*ROWS), ABOUT)


def made(work: Path, stage: str = "captions", **made_by: Any) -> Folder:
    folder = Folder(str(work), "it", stage, {"stage": stage, **made_by}, None)
    folder.describe(preset="mini", splits=["test"])
    return folder


def do(folder: Folder, index: Index, shard: int, failed: int = 0, **changes: Any) -> None:
    """A shard of two images as a stage leaves it; the last ones failed."""
    ids = [row["image_id"] for row in ROWS if row["shard"] == shard]
    path = Path(folder.work) / "spooled.tar"
    writer = TarWriter(path)
    for image_id in ids[: 2 - failed]:
        writer.write({"__key__": image_id, "json": b"{}", "sare.png": b"pixels"})
    writer.close()
    output = Output(
        name=f"{shard:05d}-{sha256_file(path)[:12]}.tar", bytes=path.stat().st_size, sha256=sha256_file(path)
    )
    folder.store.put(path, output.name)
    path.unlink()
    failures = [Failure(image_id=image_id, path="x.png", reason="too dark") for image_id in ids[2 - failed :]]
    facts = {"output": output, "ok": 2 - failed, "failures": failures} | changes
    folder.commit(shard_record(folder, shard, {"index": index.digests[shard]}, **facts))


@pytest.fixture
def folder(tmp_path: Path, index: Index) -> Folder:
    """Shard 0 is done, in shard 1 an image failed, shard 2 is no part of the run."""
    folder = made(tmp_path / "work")
    do(folder, index, 0)
    do(folder, index, 1, failed=1)
    return folder


def output_of(folder: Folder, shard: int) -> Path:
    record = folder.record(shard)
    assert record is not None
    assert record.output is not None
    return folder.store.local(record.output.name)


def claim(folder: Folder, shard: int, pid: int) -> None:
    started = psutil.Process(pid).create_time() if psutil.pid_exists(pid) else 0.0
    facts = this_process().model_dump() | {"pid": pid, "started": started}
    folder.store.write(f"claims/{shard:05d}.json", json.dumps(facts).encode())


def test_a_sound_folder_keeps_its_promises(folder: Folder, index: Index) -> None:
    assert list(integrity_errors(folder, index)) == []
    assert list(orphaned_files(folder, index, grace=0)) == []


@pytest.mark.parametrize("compacted", [False, True])
def test_shards_of_several_library_versions_are_told_and_are_no_error(
    folder: Folder, index: Index, tmp_path: Path, capsys: pytest.CaptureFixture[str], compacted: bool
) -> None:
    one, other = {"torch": "2.14.1", "timm": "1.0"}, {"torch": "2.15.0", "timm": "1.0"}
    do(folder, index, 0, libraries=one)
    do(folder, index, 1, libraries=one)
    assert mixed_libraries(folder) == []
    do(folder, index, 2, status="failed", error='said: "libraries": {"torch": "9"}', output=None, libraries=other)
    assert mixed_libraries(folder) == [], "a failed shard has no output"
    do(folder, index, 2, libraries=other)
    if compacted:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ledger, "COMPACT_FROM", 0)
            assert folder.ledger.compact(index.digests.keys())
        do(folder, index, 1, libraries=one)  # a later record goes before what was gathered
    line = "its shards were made with several versions of libraries: torch 2.14.1 (2 shards), 2.15.0 (1 shards)"
    assert mixed_libraries(folder) == [line]
    status(work=folder.work, manifests=str(tmp_path / "manifests"))
    assert f"captions {folder.fingerprint}: {line}" in capsys.readouterr().out
    verify(work=folder.work, manifests=str(tmp_path / "manifests"))
    assert f"{folder.store.url}: {line}" in (said := capsys.readouterr().out)
    assert "all as recorded" in said


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[700] ^= 1
    path.write_bytes(data)


def cut_the_padding(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-512])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip_a_byte, "is not the bytes that the record names"),
        (cut_the_padding, "is not the bytes that the record names"),
        (Path.unlink, "which is not there"),
    ],
)
def test_a_damaged_output_is_a_breach(
    folder: Folder, index: Index, damage: Callable[[Path], None], message: str
) -> None:
    path = output_of(folder, 1)
    damage(path)
    [(error, _)] = integrity_errors(folder, index)
    assert error.startswith(f"{folder.store.url}/records/00001.json: ")
    assert path.name in error
    assert message in error
    assert "`sare verify --reopen` opens the shard again; then run sare caption for shard 1" in error


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": 3}, "3 images went in, 2 + 0 came out"),
        ({"ok": 1, "images": 1}, "holds 2 samples, the record says 1"),
        ({"fields": ["json", "reconstruction.png"]}, "lacks one of json, reconstruction.png"),
        ({"fingerprint": "another"}, "belongs to another shard or folder"),
        ({"output": None}, "names no output, which is not there"),
    ],
)
def test_a_record_that_promises_other_things_is_a_breach(
    folder: Folder, index: Index, changes: dict[str, Any], message: str
) -> None:
    do(folder, index, 0, **changes)
    [(error, _)] = integrity_errors(folder, index)
    assert message in error


def test_an_image_that_is_nowhere_is_a_breach(folder: Folder, index: Index) -> None:
    do(folder, index, 0, failed=1, failures=[], images=1)
    [(error, _)] = integrity_errors(folder, index)
    assert f"1 images of the index are lost or unknown here, the first is {ROWS[1]['image_id']}" in error


def test_a_foreign_record_is_reopened_under_its_own_name(folder: Folder, index: Index) -> None:
    """A copy of another shard's record must not take that shard down with it."""
    whole = folder.store.read("records/00001.json")
    folder.store.write("records/00000.json", whole)
    (error,) = integrity_errors(folder, index)
    assert (error.shard, "belongs to another shard" in error.text) == (0, True)
    assert reopen(folder, 0, "why")
    assert folder.store.read("records/00001.json") == whole
    record = folder.record(0)
    assert record is not None
    assert (record.shard, record.status, record.output) == (0, "failed", None)


def test_a_stale_shard_is_no_breach(folder: Folder, index: Index, tmp_path: Path) -> None:
    new = write_index(str(tmp_path / "manifests"), "it", index_frame(*ROWS[1:]), ABOUT)
    assert list(integrity_errors(folder, new)) == []
    assert summarize(folder, new).states[0].kind == "stale"


def test_an_unreadable_record_is_a_breach(folder: Folder, index: Index) -> None:
    path = folder.store.local("records/00000.json")
    path.write_bytes(path.read_bytes()[:99])
    [(error, _)] = integrity_errors(folder, index)
    assert error == f"{path}: not a readable record; delete it, run the stage again."


def test_a_failed_shard_promises_nothing(folder: Folder, index: Index) -> None:
    do(folder, index, 0, status="failed", error="9 of 10 images failed", output=None, ok=0)
    assert list(integrity_errors(folder, index)) == []


def test_damaged_checkpoints_are_breaches(tmp_path: Path, index: Index) -> None:
    folder = made(tmp_path / "work", "detectors", settings={"epochs": 3})
    facts: dict[str, Any] = {"step": 4, "epoch": 2, "finished": False, "history": [], "about": {}}
    for name in ("last", "best"):
        save_checkpoint(folder.store, name, {"w": torch.zeros(300)}, **facts)
    assert list(integrity_errors(folder, index)) == list(orphaned_files(folder, index, grace=0)) == []
    assert summarize(folder, index).note == "epoch 2 of 3, step 4"
    [path] = Path(folder.store.url).glob("best-*")
    flip_a_byte(path)
    [(error, _)] = integrity_errors(folder, index)
    assert f"{path}: not the bytes that its JSON names" in error
    folder.store.write("last-0123456789ab.safetensors", b"")
    assert list(orphaned_files(folder, index, grace=0)) == ["last-0123456789ab.safetensors"]


def test_a_summary_counts_shards_and_failures(folder: Folder, index: Index) -> None:
    summary = summarize(folder, index)
    assert summary.about.preset == "mini"
    assert {shard: str(state) for shard, state in summary.states.items()} == {0: "done", 1: "done"}
    assert summary.failures == {"too dark": 1}
    assert (summary.rate, summary.eta) == (0.5, 0.0)  # 4 images in 8 seconds
    assert not summary.reasons()


def test_a_summary_says_what_is_not_done(folder: Folder, index: Index) -> None:
    output_of(folder, 0).unlink()
    folder.store.delete("records/00001.json")
    claim(folder, 1, os.getpid())
    summary = summarize(folder, index)
    assert str(summary.states[0]) == "stale (its output is gone)"
    assert str(summary.states[1]) == f"running ({os.uname().nodename}, process {os.getpid()})"
    assert (summary.count("running"), summary.count("stale"), summary.count("done")) == (1, 1, 0)
    assert summary.reasons() == {str(state): 1 for state in summary.states.values()}
    assert (summary.rate, summary.eta) == (0.5, 8.0)  # 2 images in 4 seconds; 4 are left
    claim(folder, 1, NOBODY)
    assert summarize(folder, index).states[1].kind == "open"


def test_a_summary_before_the_first_shard(tmp_path: Path, index: Index) -> None:
    summary = summarize(made(tmp_path / "work"), index)
    assert (summary.count("open"), summary.rate, summary.eta) == (2, None, None)


@pytest.mark.parametrize(
    ("notes", "shards"),
    [
        ({"splits": ["test"]}, [0, 1]),
        ({"splits": ["train"], "train_subsets": ["adm"]}, [2]),
        ({"splits": ["train"], "train_subsets": ["glide"]}, []),
        ({"train_subsets": ["glide"]}, [0, 1]),  # the test split is not narrowed
        ({"train_subsets": None}, [0, 1, 2]),
    ],
)
def test_which_shards_a_folder_was_to_do(
    folder: Folder, index: Index, notes: dict[str, Any], shards: list[int]
) -> None:
    folder.describe(preset="mini", **notes)
    assert folder.expected(index) == shards


def test_all_folders_of_all_stages_are_found(folder: Folder, tmp_path: Path) -> None:
    work = str(tmp_path / "work")
    maps = made(tmp_path / "work", "reconstructions", strength=0.5)
    other = Folder(work, "other", "captions", {"stage": "captions"}, None)
    other.describe()
    Store(work).write("no-dataset/notes/about.json", b"{}")
    assert [found.store.url for found in folders(work)] == [folder.store.url, maps.store.url, other.store.url]
    assert [found.store.url for found in folders(work, "other")] == [other.store.url]
    assert list(folders(work, "none")) == []
    maps.store.write("about.json", b"{")
    with pytest.raises(ConfigError, match=r"about\.json: missing or unreadable"):
        list(folders(work))


def test_a_run_that_failed_before_its_first_result_leaves_nothing_for_ever(tmp_path: Path, index: Index) -> None:
    work = str(tmp_path / "work")
    left = made(tmp_path / "work")
    assert is_empty(left)
    assert list(orphaned_files(left, index)) == [], "it may have begun just now"
    about = Path(left.store.path("about.json"))
    os.utime(about, (about.stat().st_mtime - GRACE - 1,) * 2)
    claim(left, 0, os.getpid())
    assert not is_empty(left)
    assert list(orphaned_files(left, index)) == []
    claim(left, 0, NOBODY)
    os.utime(left.store.path("claims/00000.json"), (about.stat().st_mtime,) * 2)
    assert sorted(orphaned_files(left, index)) == ["about.json", "claims/00000.json"]
    left.store.delete_many(list(orphaned_files(left, index)))
    broken: list[str] = []
    assert list(folders(work, broken=broken)) == broken == []


def test_a_folder_with_a_result_is_not_empty(folder: Folder, index: Index, tmp_path: Path) -> None:
    assert not is_empty(folder)
    failed = made(tmp_path / "work", strength=0.5)
    do(failed, index, 0, status="failed", error="why", output=None)
    for path in Path(failed.store.url).glob("*.tar"):
        path.unlink()
    assert not is_empty(failed), "a failed shard is told"


def test_folders_differ_in_their_settings(tmp_path: Path, index: Index) -> None:
    one, two = (summarize(made(tmp_path / "work", strength=strength), index) for strength in (0.5, 0.7))
    assert others_differ(one, two) == ["strength 0.5 → 0.7"]


def described(work: Path, time: str, run: str | None, **settings: Any) -> Folder:
    """A folder that was last used at `time`."""
    folder = made(work, **settings)
    folder.describe(run, preset="my/mini.yaml", splits=["test"])
    about = json.loads(folder.store.read("about.json"))
    folder.store.write("about.json", json.dumps(about | {"described": time}).encode())
    return folder


def test_a_folder_is_older_only_than_others_of_its_run(tmp_path: Path, index: Index) -> None:
    long = {"weights": {"model": "sha256:" + 64 * "a"}, "strength": 0.5, "eta": 0.0, "steps": 4}
    first = described(tmp_path / "work", "2026-01-01", None, **long)
    other = described(tmp_path / "work", "2026-01-02", "uncaptioned", strength=0.6)
    assert superseded([summarize(folder, index) for folder in (first, other)]) == {}, "other runs are no news"
    changed = {"weights": {"model": "sha256:" + 64 * "b"}, "strength": 0.7, "eta": 1.0, "steps": 5}
    latest = described(tmp_path / "work", "2026-01-03", None, **changed)
    (line,) = superseded([summarize(folder, index) for folder in (first, other, latest)]).values()
    assert line == (f"older than {latest.fingerprint}, the latest of run mini: eta 0.0 → 1.0; steps 4 → 5 and 2 more")
    first.describe("kept", preset="mini")  # a run of its own, from now on
    assert superseded([summarize(folder, index) for folder in (first, other, latest)]) == {}


def test_a_folder_that_two_runs_share_is_the_latest_of_both(tmp_path: Path, index: Index) -> None:
    shared = described(tmp_path / "work", "2026-01-01", "a", strength=0.5)
    shared.describe("b", preset="mini", splits=["test"])
    described(tmp_path / "work", "2027-01-01", "a", strength=0.7)
    summaries = [summarize(folder, index) for folder in folders(str(tmp_path / "work"))]
    assert superseded(summaries) == {}, "it is still the one of run b"
