"""The store on S3, as moto has it, keeps the promises that it makes on a disk."""

import multiprocessing
import os
import time
from pathlib import Path

import pytest
import stamina

from sare_core.errors import ConfigError, StageError, TransientError
from sare_core.store.storage import Store
from tests.objectstore.proxy import Fault, Kind, Proxy

pytestmark = pytest.mark.usefixtures("no_waiting")


@pytest.fixture
def store(bucket: str) -> Store:
    return Store(f"{bucket}/work")


def test_read_and_write(store: Store, proxy: Proxy) -> None:
    assert not store.exists("a/b.json")
    assert store.names("a") == store.folders("a") == store.names() == []
    with pytest.raises(FileNotFoundError):
        store.read("a/b.json")
    store.write("a/b.json", b"one")
    store.write("a/b.json", b"zwei")
    store.write("a/deep/c.tar", b"")
    assert (store.read("a/b.json"), store.size("a/b.json"), store.read("a/deep/c.tar")) == (b"zwei", 4, b"")
    assert (store.names("a"), store.folders("a"), store.folders()) == (["b.json"], ["deep"], ["a"])
    assert store.local("a/b.json").read_bytes() == b"zwei"
    store.delete("a/b.json")
    store.delete("a/b.json")
    assert (store.names("a"), store.exists("a/b.json")) == ([], False)


def test_small_work_costs_few_requests(store: Store, proxy: Proxy) -> None:
    store.write("other/a", b"x")
    proxy.clear()
    assert store.read("other/a") == b"x"
    assert proxy.requests.total() == 1
    proxy.clear()
    assert store.names("empty") == []  # s3fs's own way looks at the folder above too, however much lies there
    assert proxy.requests.total() == 1
    names = [f"records/{number:05d}.json" for number in range(1100)]
    for name in names[:50]:
        store.write(name, name.encode())
    proxy.clear()
    assert store.read_many(names[:60]) == {name: name.encode() for name in names[:50]}
    assert proxy.requests == {"GET": 60}
    proxy.clear()
    store.delete_many(names)
    assert proxy.requests == {"POST": 2}
    assert store.names("records") == []


def test_a_listing_of_many_pages(store: Store, proxy: Proxy) -> None:
    names = sorted(f"{number}" for number in range(25))
    store._fs.pipe({f"{store._root}/x/{name}": b"" for name in names})
    proxy.clear()
    proxy.page = 10
    proxy.faults = [Fault("slow down", "GET", "list-type=2", times=2, after=1)]
    assert store.names("x") == names
    assert (proxy.faults[0].hits, proxy.requests.total()) == (2, 5)  # no page is asked for twice


def _create(url: str, who: bytes, start: float) -> bool:
    store = Store(url)
    store.exists("warm")
    time.sleep(max(0.0, start - time.time()))
    return store.create("claims/a.json", who)


def test_of_several_processes_that_create_one_wins(store: Store) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        pool.map(len, ["warm"] * 3)
        for round_ in range(5):
            url, start = f"{store.url}/{round_}", time.time() + 0.5
            won = pool.starmap(_create, [(url, str(n).encode() * 999, start) for n in range(3)], chunksize=1)
            assert won.count(True) == 1
            assert Store(url).read("claims/a.json") == str(won.index(True)).encode() * 999


def test_create_where_the_answer_is_lost(store: Store, proxy: Proxy) -> None:
    proxy.faults = [Fault("swallow", "PUT")]
    assert not store.create("a", b"mine")  # it cannot know; what lies there says whose it is
    assert store.read("a") == b"mine"


def test_the_clock_is_the_stores(store: Store, proxy: Proxy) -> None:
    store.write("a", b"x")
    assert abs(store.clock() - store.modified("a")) < 3
    assert store.names() == ["a"]
    proxy.clear()
    store.clock()
    assert proxy.requests.total() == 0
    with pytest.raises(FileNotFoundError):
        store.modified("gone")


PASSING: list[tuple[Kind, str]] = [
    ("slow down", ""),
    ("cut upload", "PUT"),
    ("lose half", "PUT"),
    ("swallow", ""),
    ("cut answer", "GET"),
]


@pytest.mark.parametrize(("kind", "method"), PASSING)
def test_passing_faults(store: Store, proxy: Proxy, tmp_path: Path, kind: Kind, method: str) -> None:
    data = os.urandom(300_000)
    (tmp_path / "source").write_bytes(data)
    proxy.faults = [Fault(kind, method, times=7)]  # more than one request is tried by itself
    store.write("small.json", data[:999])
    store.put(tmp_path / "source", "big.tar")
    assert store.read_many(["small.json", "gone"]) == {"small.json": data[:999]}
    assert store.local("big.tar").read_bytes() == data
    assert store.read("big.tar") == data
    assert store.names() == ["big.tar", "small.json"]
    store.delete("small.json")
    store.delete_many(["big.tar"])
    assert store.names() == []
    assert proxy.faults[0].hits == 7


def test_slow_answers_are_waited_for(store: Store, proxy: Proxy) -> None:
    proxy.faults = [Fault("late", seconds=1.0, times=2)]
    store.write("a", b"x")
    assert store.read("a") == b"x"


def test_an_answer_that_never_comes_is_asked_for_again(
    store: Store, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sare_core.store import remote
    from tests.objectstore.conftest import forget_connections

    assert 10 <= remote._S3["config_kwargs"]["read_timeout"] <= 120
    monkeypatch.setitem(remote._S3, "config_kwargs", {**remote._S3["config_kwargs"], "read_timeout": 1})
    forget_connections()
    proxy.faults = [Fault("late", "PUT", seconds=30, times=2)]
    started = time.monotonic()
    store.write("a", b"x")
    assert store.read("a") == b"x"
    assert time.monotonic() - started < 20


def test_a_fault_that_stays(store: Store, proxy: Proxy) -> None:
    proxy.faults = [Fault("slow down", times=10_000)]
    with (
        stamina.set_testing(True, attempts=4, cap=True),
        pytest.raises(TransientError, match=r"bucket.*still fails .*SlowDown.* Run the same command again"),
    ):
        store.write("a", b"x")
    assert proxy.faults[0].hits >= 4
    proxy.clear()
    assert store.names() == []


def test_the_user_hears_of_a_fault_that_lasts(
    store: Store, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sare_core.store.remote.TELL_AFTER", 0.5)
    proxy.faults = [Fault("slow down", times=12)]
    store.write("a", b"x")
    told = [record.message for record in caplog.records if record.name == "sare"]
    assert 1 <= len(told) <= 10
    assert "SlowDown" in told[0]
    assert "Trying again for" in told[0]


@pytest.mark.parametrize(
    ("kind", "words"), [("expired", "credentials have expired|access denied"), ("denied", "access denied")]
)
def test_refusals_are_told_at_once(store: Store, proxy: Proxy, tmp_path: Path, kind: Kind, words: str) -> None:
    store.write("a-0123456789ab.tar", b"x")
    (tmp_path / "source").write_bytes(b"y")
    proxy.clear()
    proxy.faults = [Fault(kind, times=10_000)]
    for call in (
        lambda: store.read("a"),
        lambda: store.write("a", b""),
        lambda: store.create("a", b""),
        lambda: store.put(tmp_path / "source", "a"),
        lambda: store.exists("a"),
        lambda: store.size("a"),
        lambda: store.names(),
        lambda: store.read_many(["a", "b"]),
        lambda: store.delete("a"),
        lambda: store.delete_many(["a", "b"]),
        lambda: store.local("a-0123456789ab.tar"),
        lambda: store.modified("a"),
    ):
        before = proxy.requests.total()
        with pytest.raises(ConfigError, match=f"s3://bucket.*({words}).* run the same command again"):
            call()
        assert proxy.requests.total() - before <= 2


def test_a_bucket_that_is_not_there(proxy: Proxy) -> None:
    store = Store("s3://no-such-bucket-anywhere/work")
    for call in (store.names, lambda: store.read("a"), lambda: store.write("a", b""), lambda: store.read_many(["a"])):
        with pytest.raises(ConfigError, match="s3://no-such-bucket-anywhere/work: there is no such bucket"):
            call()


def test_no_credentials(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(ConfigError, match=r"s3://bucket.*credentials.*AWS_ACCESS_KEY_ID"):
        Store(f"{bucket}/work").read("a")


def test_nobody_at_that_address(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(ConfigError, match=r"s3://bucket.*not reachable .*127\.0\.0\.1:9.*AWS_ENDPOINT_URL"):
        Store(f"{bucket}/work").read("a")


@pytest.mark.parametrize(("url", "package"), [("gs://bucket/x", "gcsfs"), ("abfs://x/y", "adlfs")])
def test_a_store_whose_package_is_not_installed(url: str, package: str) -> None:
    with pytest.raises(ConfigError, match=f"{url}: cannot be opened: .*{package}"):
        Store(url)


def test_no_such_protocol() -> None:
    with pytest.raises(ConfigError, match=r"nope://x: cannot be opened: .*nope"):
        Store("nope://x")


def test_a_big_file_in_parts(store: Store, proxy: Proxy, tmp_path: Path) -> None:
    """Above 100 MB a file goes in parts. It is there whole or not at all, also while it is being put."""
    data = os.urandom(1 << 20) * 105
    (tmp_path / "source").write_bytes(data)
    kinds: list[Kind] = ["slow down", "cut upload", "swallow"]
    proxy.faults = [Fault(kind, "PUT", "partNumber=2") for kind in kinds]
    store.put(tmp_path / "source", "big.tar")
    assert [fault.hits for fault in proxy.faults] == [1, 1, 1]
    assert store.local("big.tar").read_bytes() == data
    assert store.size("big.tar") == len(data)


def test_a_big_file_that_cannot_be_put_is_not_there(store: Store, proxy: Proxy, tmp_path: Path) -> None:
    with (tmp_path / "source").open("wb") as file:
        file.truncate(105 << 20)
    proxy.faults = [Fault("denied", "PUT", "partNumber=3", times=10_000)]
    with pytest.raises(ConfigError, match="access denied"):
        store.put(tmp_path / "source", "big.tar")
    proxy.clear()
    assert store.names() == []
    assert "Uploads" not in store._fs.call_s3("list_multipart_uploads", Bucket=store._root.split("/")[0])


def test_a_copy_is_what_was_asked_for(store: Store, tmp_path: Path) -> None:
    good = "x-2d711642b726.tar"  # of b"x"
    store.write(good, b"x")
    store.write("y-000000000000.tar", b"y")
    assert store.local(good).read_bytes() == b"x"
    with pytest.raises(StageError, match=r"y-000000000000\.tar: does not hold what its name says"):
        store.local("y-000000000000.tar")
    with pytest.raises(FileNotFoundError):
        store.local("z-000000000000.tar")
    kept = [path.name for path in (tmp_path / "spool").rglob("*") if path.is_file()]
    assert kept == [good]
