"""What gc may remove, and that it removes nothing that a stage is about to name."""

import os
from pathlib import Path

import psutil
import pytest

from sare_core.engine import garbage, ledger
from sare_core.engine.claims import FOLDER, Claims
from sare_core.engine.folders import Folder
from sare_core.engine.garbage import GRACE, dead_spools, orphaned_files, remove_orphans, replaced_indexes
from sare_core.engine.manifest import Index, read_index, write_index
from sare_core.engine.owner import Owner, this_process
from sare_core.engine.spool import shard_path
from sare_core.store.storage import Store
from tests.builders import ABOUT, index_frame
from tests.engine.test_audit import NOBODY, ROWS, claim, do, made, output_of

OLD = GRACE + 60


@pytest.fixture
def index(tmp_path: Path) -> Index:
    index = write_index(str(tmp_path / "manifests"), "it", index_frame(*ROWS), ABOUT)
    age(index.store, "index.json")
    return index


@pytest.fixture
def folder(tmp_path: Path, index: Index) -> Folder:
    """Shard 0 is done, in shard 1 an image failed, shard 2 is no part of the run."""
    folder = made(tmp_path / "work")
    do(folder, index, 0)
    do(folder, index, 1, failed=1)
    return folder


def age(store: Store, *names: str, seconds: float = OLD) -> None:
    for name in names:
        path = store.local(name)
        os.utime(path, (path.stat().st_mtime - seconds,) * 2)


def put_old(store: Store, *names: str) -> None:
    for name in names:
        store.write(name, b"x")
        age(store, name)


def age_all(folder: Folder) -> None:
    for path in Path(folder.store.url).rglob("*.*"):
        os.utime(path, (path.stat().st_mtime - OLD,) * 2)


def listed(folder: Folder, index: Index) -> list[str]:
    return sorted(orphaned_files(folder, index))


def test_what_nothing_vouches_for_is_an_orphan(folder: Folder, index: Index) -> None:
    replaced = output_of(folder, 0).name
    folder.store.delete(replaced)
    do(folder, index, 0, failed=1)
    left = [replaced, "00007-0123456789ab.tar", ".00001-0123.tar.host.7.tmp", "records/.00001.json.host.7.tmp"]
    left += ["records-0123456789ab.parquet", ".clock.host.7.7", "claims/.00001.json.host.7.7.tmp"]
    kept = ["metrics.csv", "tables.md", "events.out.tfevents.1", "my notes.txt", "00001-copy.tar"]
    for name in left + kept:
        folder.store.write(name, b"x")
    claim(folder, 1, NOBODY)
    assert listed(folder, index) == [], "all of it is new"
    age_all(folder)
    assert listed(folder, index) == sorted([*left, "claims/00001.json"])
    assert remove_orphans(folder, index, listed(folder, index))
    assert listed(folder, index) == []
    assert set(kept) < set(folder.store.names())
    assert {state.kind for state in folder.states({s: index.digests[s] for s in (0, 1)}).values()} == {"done"}


def test_what_a_living_process_writes_is_no_orphan(folder: Folder, index: Index) -> None:
    put_old(folder.store, "00001-0123456789ab.tar", ".00001-0123.tar.host.7.tmp", "00000-0123456789ab.tar")
    age_all(folder)
    claim(folder, 1, os.getpid())
    assert listed(folder, index) == ["00000-0123456789ab.tar"]


def test_an_output_stays_for_an_hour_after_it_was_replaced(folder: Folder, index: Index) -> None:
    """A reader that has read the old record still opens what it names."""
    age_all(folder)
    replaced = output_of(folder, 0).name
    do(folder, index, 0, failed=1)
    assert listed(folder, index) == []
    age_all(folder)
    assert listed(folder, index) == [replaced]


def test_gathered_records_stay_for_an_hour_after_they_were_gathered_anew(
    folder: Folder, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "COMPACT_FROM", 1)
    assert folder.ledger.compact(index.digests)
    before = folder.ledger.file()
    age_all(folder)
    do(folder, index, 0, seconds=5.0)
    assert folder.ledger.compact(index.digests)
    assert folder.ledger.file() != before
    assert listed(folder, index) == []
    age_all(folder)
    assert listed(folder, index) == [before]


def test_an_output_whose_record_cannot_be_read_stays(folder: Folder, index: Index) -> None:
    folder.store.write("records/00000.json", b"{")
    age_all(folder)
    assert listed(folder, index) == []


def test_what_left_the_index_stays_for_an_hour(folder: Folder, index: Index, tmp_path: Path) -> None:
    age_all(folder)
    output = output_of(folder, 1).name
    smaller = write_index(str(tmp_path / "manifests"), "it", index_frame(*ROWS[:2]), ABOUT)
    assert listed(folder, smaller) == []
    age(smaller.store, "index.json")
    assert listed(folder, smaller) == [output, "records/00001.json"]


def test_while_another_holds_the_folder_nothing_is_removed(folder: Folder, index: Index) -> None:
    put_old(folder.store, "00000-0123456789ab.tar")
    age_all(folder)
    found = listed(folder, index)
    other = Claims(folder.store)
    other._owner = Owner(**this_process().model_dump() | parent())
    assert other.take(FOLDER)
    assert not remove_orphans(folder, index, found)
    other.free()
    assert remove_orphans(folder, index, found)
    assert listed(folder, index) == []


def parent() -> dict[str, float]:
    return {"pid": os.getppid(), "started": psutil.Process(os.getppid()).create_time()}


def test_what_is_put_anew_between_two_looks_stays(folder: Folder, index: Index) -> None:
    put_old(folder.store, "00000-0123456789ab.tar", "00001-0123456789ab.tar")
    age_all(folder)
    found = listed(folder, index)
    folder.store.write("00001-0123456789ab.tar", b"x")
    assert remove_orphans(folder, index, found)
    assert folder.store.exists("00001-0123456789ab.tar")
    assert not folder.store.exists("00000-0123456789ab.tar")


def test_files_of_earlier_indexes_go_after_some_days(folder: Folder, index: Index, tmp_path: Path) -> None:
    manifests = Store(str(tmp_path / "manifests"))
    before = {f"it/{name}" for name in index.store.names() if name.endswith(".parquet")}
    write_index(manifests.url, "it", index_frame(*ROWS[:-1]), ABOUT)
    assert index.rows(2) == ROWS[4:], "a stage that began before reads on"
    index.store.write("images-mine.parquet", b"x")
    for name in index.store.names():
        age(index.store, name, seconds=garbage.INDEX_GRACE - 60)
    assert list(replaced_indexes(manifests, "it")) == []
    for name in index.store.names():
        age(index.store, name, seconds=120)
    assert set(replaced_indexes(manifests, "it")) == before
    manifests.delete_many(sorted(before))
    assert len(read_index(manifests.url, "it").frame()) == len(ROWS) - 1
    (tmp_path / "manifests/it/index.json").write_bytes(b"{")
    assert list(replaced_indexes(manifests, "it")) == list(replaced_indexes(manifests, "none")) == []


def test_spools_of_dead_processes(tmp_path: Path, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SARE_SPOOL", str(tmp_path / "spool"))
    assert list(dead_spools()) == []
    spool, me, owners = Store(str(tmp_path / "spool")), this_process(), "sare_core.engine.spool.this_process"

    def spooled(shard: int, dataset: str = "it", **changes: object) -> str:
        monkeypatch.setattr(owners, lambda: Owner(**me.model_dump() | changes))
        other = Folder(folder.work, dataset, "captions", folder.made_by, None)
        path = shard_path(other, shard, ".parquet")
        spool.write(path.name, b"x")
        return path.name

    living = [spooled(1), spooled(2, **parent())]
    others = [spooled(3, pid=NOBODY, host="node7.cluster"), spooled(4, pid=NOBODY, machine="0123abcd")]
    dead = [spooled(5, pid=NOBODY), spooled(6, started=me.started - 1000)]
    foreign = spooled(7, dataset="a-captions.2", pid=NOBODY)
    strangers = ["imagenet.2012999.tar", "notes.txt", f"it-captions-0123456789ab-00001.{NOBODY}.parquet"]
    put_old(spool, *strangers)
    assert sorted(dead_spools()) == sorted([*dead, foreign])
    assert sorted(dead_spools("it")) == sorted(dead)
    assert list(dead_spools("a-captions.2")) == [foreign]
    for name in [*others, *living, *strangers]:
        age(spool, name, seconds=86400 + 60)
    assert sorted(dead_spools()) == sorted([*dead, *others, foreign]), "of another host or container: after a day"
