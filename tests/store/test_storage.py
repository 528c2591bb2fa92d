import errno
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import stamina
from fsspec.implementations.local import LocalFileSystem

from sare_core.errors import ConfigError
from sare_core.store.storage import Store, spool_folder


@pytest.fixture(autouse=True)
def no_waiting() -> Iterator[None]:
    """As many attempts as ever, without the pauses between them."""
    with stamina.set_testing(True, attempts=100, cap=True):
        yield


@pytest.fixture(params=["disk", "url", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    places = {"disk": str(tmp_path / "work"), "url": f"file://{tmp_path}/work", "memory": f"memory://{tmp_path}/work"}
    return Store(places[request.param])


def failing(code: int, times: int, calls: list[int], real: Callable[[int], None]) -> Callable[[int], None]:
    """A stand-in for a system call that fails so many times and then works."""

    def call(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) <= times:
            raise OSError(code, os.strerror(code))
        real(descriptor)

    return call


def in_child(action: Callable[[], None]) -> int:
    """Run something in a child process; what os.waitpid says of its end."""
    pid = os.fork()
    if pid == 0:
        try:
            action()
        finally:
            os._exit(77)  # the action was to end the process
    return os.waitpid(pid, 0)[1]


def test_read_and_write(store: Store, tmp_path: Path) -> None:
    assert not store.exists("a/b.json")
    assert store.names("a") == store.folders("a") == []
    with pytest.raises(FileNotFoundError):
        store.read("a/b.json")
    store.write("a/b.json", b"one")
    store.write("a/b.json", b"zwei")
    store.write("a/deep/c.tar", b"")
    assert store.exists("a/b.json")
    assert (store.read("a/b.json"), store.size("a/b.json")) == (b"zwei", 4)
    assert (store.names("a"), store.folders("a"), store.folders()) == (["b.json"], ["deep"], ["a"])
    assert store.at("a").names() == ["b.json"]
    assert store.at("a/deep").path("c.tar") == f"{store.url}/a/deep/c.tar"
    assert store.local("a/b.json").read_bytes() == b"zwei"
    store.delete("a/b.json")
    store.delete("a/b.json")
    assert (store.names("a"), store.exists("a/b.json")) == ([], False)


def test_a_relative_path_is_of_the_present_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        Store(".").write("name.txt", name.encode())
    assert [(tmp_path / name / "name.txt").read_text() for name in ("one", "two")] == ["one", "two"]


def test_put_takes_a_file_over_whole(store: Store, tmp_path: Path) -> None:
    data = os.urandom((1 << 22) + 7)  # more than is copied at a time
    (tmp_path / "source").write_bytes(data)
    store.put(tmp_path / "source", "x/copy.tar")
    assert store.read("x/copy.tar") == data
    assert (tmp_path / "source").exists()
    with pytest.raises(FileNotFoundError):
        store.put(tmp_path / "gone", "x/other.tar")
    assert store.names("x") == ["copy.tar"]


def test_create_takes_a_name_that_nobody_has(store: Store) -> None:
    assert store.create("claims/a.json", b"one")
    assert not store.create("claims/a.json", b"two")
    assert (store.read("claims/a.json"), store.names("claims")) == (b"one", ["a.json"])
    store.delete("claims/a.json")
    assert store.create("claims/a.json", b"two")


def test_of_many_who_create_one_wins(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for round_ in range(20):
        with ThreadPoolExecutor(8) as threads:
            won = list(threads.map(lambda who, r=round_: store.create(f"{r}", bytes([who]) * 9_000), range(8)))
        assert won.count(True) == 1
        assert store.read(f"{round_}") == bytes([won.index(True)]) * 9_000
    assert len(store.names()) == 20


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP])
def test_create_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def link(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", link)
    store = Store(str(tmp_path))
    assert (store.create("a", b"x"), store.create("a", b"y")) == (True, False)
    assert (store.read("a"), store.names()) == (b"x", ["a"])


def test_a_lost_answer_of_a_network_disk_is_no_defeat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.link

    def link(*places: Path) -> None:
        real(*places)
        raise FileExistsError(errno.EEXIST, "exists")  # as NFS says when it was asked twice

    monkeypatch.setattr(os, "link", link)
    assert Store(str(tmp_path)).create("a", b"x")
    assert Store(str(tmp_path)).names() == ["a"]


def test_the_clock_is_the_one_that_stamps_files(store: Store) -> None:
    store.write("a", b"x")
    assert abs(store.clock() - store.modified("a")) < 2
    assert store.names() == ["a"]
    with pytest.raises(FileNotFoundError):
        store.modified("gone")


def test_a_clock_that_is_an_hour_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, real = Store(str(tmp_path)), Store.modified
    monkeypatch.setattr(Store, "modified", lambda self, name: real(self, name) + 3600)
    store.write("a", b"x")
    assert abs(store.clock() - time.time() - 3600) < 5
    assert 0 <= store.clock() - store.modified("a") < 5
    monkeypatch.setattr(Store, "write", None)  # what was found is remembered
    assert abs(store.clock() - time.time() - 3600) < 5


def test_the_clock_where_nothing_can_be_written() -> None:
    assert abs(Store("/proc/sare").clock() - time.time()) < 5


def test_many_files_at_once(store: Store) -> None:
    files = {f"records/{number:05d}.json": str(number).encode() for number in range(700)}
    for name, data in files.items():
        store.write(name, data)
    wanted = [*reversed(files), "records/gone.json"]
    assert store.read_many(wanted) == files
    assert list(store.read_many(wanted)) == list(reversed(files))
    assert store.read_many([]) == store.read_many(["gone", "gone too"]) == {}
    store.delete_many([*list(files)[:-1], "records/gone.json"])
    store.delete_many([])
    assert store.names("records") == ["00699.json"]


def test_listings_are_never_old(store: Store) -> None:
    assert store.names("a") == []
    for number in range(3):
        Store(store.url).write(f"a/{number}", b"")
        assert store.names("a") == [str(n) for n in range(number + 1)]
    assert store.names() == []


def test_files_lie_where_their_names_say(tmp_path: Path) -> None:
    Store(f"{tmp_path}/").write("a/b", b"x")
    assert (tmp_path / "a" / "b").read_bytes() == b"x"
    assert Store(str(tmp_path)).local("a/b") == tmp_path / "a" / "b"


def test_a_copy_of_a_remote_file_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SARE_SPOOL", str(tmp_path / "spool"))
    stores = [Store(f"memory://{tmp_path}/{name}") for name in ("one", "two")]
    for store in stores:
        store.write("x-abc.tar", store.url.encode())
    paths = [store.local("x-abc.tar") for store in stores]
    assert spool_folder() in paths[0].parents
    stores[0].delete("x-abc.tar")
    assert [path.read_bytes() for path in paths] == [store.url.encode() for store in stores]
    assert stores[0].local("x-abc.tar") == paths[0]


def test_copies_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk seems to have 1,000 bytes free beside the copies, of which these may take half."""

    def usage(folder: Path) -> Any:
        used = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        return shutil._ntuple_diskusage(2000, used, 1000 - used)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    monkeypatch.setenv("SARE_SPOOL", str(tmp_path / "spool"))
    store = Store(f"memory://{tmp_path}/bounded")
    for number in range(6):
        store.write(f"{number}.tar", bytes(200))

    def kept() -> list[str]:
        return sorted(path.name for path in (tmp_path / "spool").rglob("*") if path.is_file())

    for number, hours in ((0, 2), (1, 4)):
        os.utime(store.local(f"{number}.tar"), (time.time() - 3600 * hours,) * 2)
    store.local("2.tar")
    assert kept() == ["0.tar", "2.tar"]  # the one that was not used for longest went
    store.local("0.tar")
    store.local("3.tar")
    assert kept() == ["0.tar", "2.tar", "3.tar"]  # all are in use


def test_a_fetch_that_is_killed_leaves_no_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SARE_SPOOL", str(tmp_path / "spool"))
    store = Store(f"memory://{tmp_path}/killed")
    store.write("x-2d711642b726.tar", b"x")

    def half(_: Store, name: str, place: Path) -> None:
        place.write_bytes(b"")
        os.kill(os.getpid(), signal.SIGKILL)

    def killed() -> None:
        monkeypatch.setattr(Store, "_get", half)
        store.local("x-2d711642b726.tar")

    assert in_child(killed) == signal.SIGKILL
    assert store.local("x-2d711642b726.tar").read_bytes() == b"x"


@pytest.mark.parametrize(("place", "name"), [(os, "fsync"), (Path, "replace")])
def test_a_writer_killed_on_the_way_leaves_the_old_content(tmp_path: Path, place: Any, name: str) -> None:
    store = Store(str(tmp_path))
    store.write("a.json", b"old")

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def killed() -> None:
        setattr(place, name, die)
        store.write("a.json", b"new")

    assert in_child(killed) == signal.SIGKILL
    assert store.read("a.json") == b"old"
    assert all(left == "a.json" or left.endswith(".tmp") for left in store.names())
    store.write("a.json", b"new")
    assert store.read("a.json") == b"new"


def test_readers_never_see_half_a_file(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    versions = [bytes([letter]) * 300_000 for letter in b"ab"]
    store.write("a", versions[0])

    def rewrite() -> None:
        for turn in range(30):
            store.write("a", versions[turn % 2])
        os._exit(0)

    pid = os.fork()
    if pid == 0:
        rewrite()
    seen = set()
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        seen.add(store.read("a"))
    assert seen <= set(versions)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    store, calls = Store(str(tmp_path)), list[int]()
    store.write("a.json", b"old")
    monkeypatch.setattr(os, "fsync", failing(code, 100, calls, os.fsync))
    with pytest.raises(ConfigError, match=r"a\.json: no space left. Free some"):
        store.write("a.json", b"new")
    assert len(calls) == 1
    assert (store.names(), store.read("a.json")) == (["a.json"], b"old")


@pytest.mark.parametrize("name", ["file/a.json", "file/deep/a.json", "folder", "x" * 300])
def test_a_place_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"a file")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match=r"cannot be written .*Choose another folder"):
        Store(str(tmp_path)).write(name, b"x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_file_system_that_takes_no_folder() -> None:
    with pytest.raises(ConfigError, match="/proc/sare/a: cannot be written"):
        Store("/proc/sare").write("a", b"x")


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ECONNRESET])
def test_a_passing_fault_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    calls = list[int]()
    monkeypatch.setattr(os, "fsync", failing(code, 2, calls, os.fsync))
    store = Store(str(tmp_path))
    store.write("a", b"x")
    assert (len(calls), store.names(), store.read("a")) == (3, ["a"], b"x")


def test_a_fault_that_stays_is_not_tried_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = list[int]()
    monkeypatch.setattr(os, "fsync", failing(errno.EIO, 100, calls, os.fsync))
    with pytest.raises(OSError, match="Input/output error"):
        Store(str(tmp_path)).write("a", b"x")
    assert (len(calls), list(tmp_path.iterdir())) == (4, [])


def test_reading_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path))
    store.write("a", b"x")
    real, calls = LocalFileSystem.cat_file, list[str]()

    def stale_once(disk: LocalFileSystem, path: str) -> bytes:
        calls.append(path)
        if len(calls) == 1:
            raise OSError(errno.ESTALE, "stale")
        return bytes(real(disk, path))

    monkeypatch.setattr(LocalFileSystem, "cat_file", stale_once)
    assert (store.read("a"), len(calls)) == (b"x", 2)
    with pytest.raises(FileNotFoundError):
        store.read("gone")
    assert len(calls) == 3


def test_a_fault_of_the_source_spoils_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path / "work"))
    store.write("a", b"old")
    (tmp_path / "source").mkdir()  # opens as no file does
    with pytest.raises(ConfigError, match=f"{tmp_path}/source: Is a directory"):
        store.put(tmp_path / "source", "a")
    assert (store.names(), store.read("a")) == (["a"], b"old")


def test_the_spool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SARE_SPOOL", raising=False)
    assert spool_folder().name == f"sare-{os.getuid()}"
    monkeypatch.setenv("SARE_SPOOL", str(tmp_path))
    assert spool_folder() == tmp_path


@pytest.mark.parametrize("crosses", [False, True])
def test_a_file_is_moved_within_a_disk_and_copied_to_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crosses: bool
) -> None:
    store, source, replace = Store(str(tmp_path / "work")), tmp_path / "source", Path.replace

    def between_disks(self: Path, target: Path) -> Path:
        if self == source and crosses:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", between_disks)
    source.write_bytes(b"shard")
    store.move(source, "x/a.tar")
    assert store.read("x/a.tar") == b"shard" and not source.exists()
    with pytest.raises(OSError, match="No such file"):
        store.move(tmp_path / "gone", "x/other.tar")
