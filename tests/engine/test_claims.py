import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from sare_core.engine import claims
from sare_core.engine.claims import FOLDER, LOST, Claims, claimed_folder, claimed_shards, read_claim
from sare_core.engine.owner import Owner, this_process
from sare_core.store.storage import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


@pytest.fixture
def other_process() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def claims_in(store: Store) -> list[str]:
    return [name for name in store.names("claims") if name.endswith(".json")]


HERE, MACHINE = os.uname().nodename, this_process().machine


def put(
    store: Store, host: str, pid: int, started: float, age: float = 0.0, shard: int = 3, machine: str = MACHINE
) -> None:
    """A claim whose last heartbeat is `age` seconds ago by the clock of the disk."""
    facts = {"host": host, "pid": pid, "started": started, "machine": machine}
    store.write(f"claims/{shard:05d}.json", json.dumps(facts).encode())
    path = store.local(f"claims/{shard:05d}.json")
    os.utime(path, (path.stat().st_mtime - age,) * 2)


def started(pid: int) -> float:
    return psutil.Process(pid).create_time()


def test_a_claim_is_taken_and_given_up(store: Store) -> None:
    mine = Claims(store)
    assert mine.take(3)
    claim = read_claim(store, 3)
    assert claim is not None
    assert (claim.host, claim.pid) == (os.uname().nodename, os.getpid())
    assert claim.holder() == f"{os.uname().nodename}, process {os.getpid()}"
    assert mine.take(3)  # one's own
    assert read_claim(store, 4) is None
    mine.free()
    mine.free()
    assert claims_in(store) == []
    assert mine.take(4)
    mine.free()


def test_a_living_process_keeps_its_claim(store: Store, other_process: subprocess.Popen[bytes]) -> None:
    put(store, HERE, other_process.pid, started(other_process.pid), age=LOST - 30)
    assert not Claims(store).take(3)
    assert read_claim(store, 3) is not None
    assert json.loads(store.read("claims/00003.json"))["pid"] == other_process.pid


def test_a_living_process_without_a_heartbeat_loses_its_claim(
    store: Store, other_process: subprocess.Popen[bytes]
) -> None:
    """It is suspended, or the process became another program: its claim would block the shard for ever."""
    put(store, HERE, other_process.pid, started(other_process.pid), age=LOST + 1)
    assert read_claim(store, 3) is None
    mine = Claims(store)
    assert mine.take(3)
    mine.free()


@pytest.mark.parametrize(("age", "held"), [(0.0, True), (LOST + 1, False)])
def test_another_container_with_this_hosts_name_counts_by_its_heartbeat(
    store: Store, age: float, held: bool, other_process: subprocess.Popen[bytes]
) -> None:
    for pid in (2**22 + 1, other_process.pid, os.getpid()):  # none such here, another's here, our own number
        put(store, HERE, pid, started(os.getpid()), age, machine="another")
        assert (read_claim(store, 3) is not None) == held
        mine = Claims(store)
        assert mine.take(3) == (not held)
        mine.free()


def test_who_claims_the_folder_sees_earlier_claims_and_bars_later_ones(store: Store) -> None:
    early, late, gatherer = Claims(store), Claims(store), Claims(store)
    for number, claims_of in enumerate((early, late, gatherer)):  # three processes that live
        claims_of._owner = Owner(host=HERE, pid=os.getppid(), started=started(os.getppid()) + number, machine=MACHINE)
    assert early.take(3)
    assert gatherer.take(FOLDER)
    assert claimed_shards(store).keys() == {3}
    assert not late.take(4)
    assert not late.take(FOLDER)
    assert claims_in(store) == ["00003.json", "folder.json"]
    gatherer.free()
    assert late.take(4)
    late.free()
    early.free()
    with claimed_folder(store) as held:
        assert held
        assert not late.take(4)
    assert claims_in(store) == []


def test_a_dead_process_loses_its_claim(store: Store, other_process: subprocess.Popen[bytes]) -> None:
    put(store, HERE, other_process.pid, started(other_process.pid))
    other_process.kill()
    other_process.wait()
    assert read_claim(store, 3) is None
    mine = Claims(store)
    assert mine.take(3)
    assert json.loads(store.read("claims/00003.json"))["pid"] == os.getpid()
    mine.free()


def test_a_zombie_is_dead(store: Store, other_process: subprocess.Popen[bytes]) -> None:
    put(store, HERE, other_process.pid, started(other_process.pid))
    os.kill(other_process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, other_process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has asked for it
    assert psutil.Process(other_process.pid).status() == psutil.STATUS_ZOMBIE
    assert read_claim(store, 3) is None


def test_another_process_with_the_same_number_is_not_the_holder(
    store: Store, other_process: subprocess.Popen[bytes]
) -> None:
    put(store, HERE, other_process.pid, started(other_process.pid) - 1000)
    assert read_claim(store, 3) is None


@pytest.mark.parametrize(("age", "held"), [(0.0, True), (LOST - 30, True), (LOST + 1, False)])
def test_another_host_counts_by_its_heartbeat(store: Store, age: float, held: bool) -> None:
    put(store, "another-host", os.getpid(), 0.0, age)
    assert (read_claim(store, 3) is not None) == held
    assert (3 in claimed_shards(store)) == held
    mine = Claims(store)
    assert mine.take(3) == (not held)
    mine.free()


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"{",
        b"[1, 2]",
        b"null",
        b"\xff\xfe\x00",
        b"\x00" * 40,
        b'{"host": "x"}',
        b'{"host": "HERE", "pid": 1, "started": null}',
        b'{"host": "HERE", "pid": "one", "started": 0}',
        b'{"host": "HERE", "pid": -1, "started": 0}',
        b'{"host": "HERE", "pid": 1, "started": 0, "more": 1}',
    ],
)
def test_a_claim_that_cannot_be_read_counts_as_none(store: Store, garbage: bytes) -> None:
    store.write("claims/00003.json", garbage.replace(b"HERE", os.uname().nodename.encode()))
    assert read_claim(store, 3) is None
    mine = Claims(store)
    assert mine.take(3)
    assert read_claim(store, 3) is not None
    mine.free()


def test_the_heart_beats_until_the_claim_is_given_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "HEARTBEAT", 0.01)
    mine = Claims(store)
    assert mine.take(3)
    first = store.modified("claims/00003.json")
    deadline = time.monotonic() + 60
    while store.modified("claims/00003.json") == first:
        assert time.monotonic() < deadline, "no second beat"
        time.sleep(0.01)
    mine.free()
    time.sleep(0.05)
    assert claims_in(store) == []


@pytest.mark.parametrize("wrong", [-3600.0, 3600.0])
def test_a_host_whose_clock_is_an_hour_off_judges_rightly(
    store: Store, monkeypatch: pytest.MonkeyPatch, wrong: float
) -> None:
    true = time.time
    monkeypatch.setattr(time, "time", lambda: true() + wrong)
    put(store, "another-host", 1, 0.0, age=5)
    put(store, "another-host", 1, 0.0, age=LOST + 5, shard=4)
    assert list(claimed_shards(store)) == [3]


def test_a_heartbeat_outlives_a_fault_of_the_disk(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "HEARTBEAT", 0.01)
    mine, write, fail = Claims(store), store.write, threading.Event()

    def sometimes(name: str, data: bytes) -> None:
        if fail.is_set():
            raise OSError(errno.EIO, "passing")
        write(name, data)

    monkeypatch.setattr(store, "write", sometimes)
    assert mine.take(3)
    fail.set()
    time.sleep(0.1)
    fail.clear()
    before = store.modified("claims/00003.json")
    deadline = time.monotonic() + 60
    while store.modified("claims/00003.json") == before:
        assert time.monotonic() < deadline, "the heart has stopped"
        time.sleep(0.01)
    mine.free()


def test_a_claim_that_was_taken_over_is_left_alone(store: Store, other_process: subprocess.Popen[bytes]) -> None:
    mine = Claims(store)
    assert mine.take(3)
    put(store, HERE, other_process.pid, started(other_process.pid))
    mine.free()
    assert read_claim(store, 3) is not None


def test_two_who_find_a_dead_claim_do_not_both_get_it(store: Store) -> None:
    put(store, "another-host", 1, 0.0, age=LOST + 5)
    script = (
        "import sys, time; from sare_core.engine.claims import Claims; from sare_core.store.storage import Store;"
        "time.sleep(max(0, float(sys.argv[2]) - time.time()));"
        "print(Claims(Store(sys.argv[1])).take(3)); sys.stdout.flush(); time.sleep(3)"
    )
    at = str(time.time() + 3)
    runs = [
        subprocess.Popen([sys.executable, "-c", script, store.url, at], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert sorted(run.communicate()[0].strip() for run in runs) == ["False", "True"]


def test_a_dead_hosts_claim_is_waited_for(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "LOST", 1.0)
    put(store, "far-away", 1, 0.0)
    mine, start = Claims(store), time.monotonic()
    assert mine.take_over(3, poll=0.1)
    assert time.monotonic() - start > 0.8
    mine.free()


def test_a_living_holder_is_not_waited_for(store: Store, other_process: subprocess.Popen[bytes]) -> None:
    """One on this host is asked for; one on another is known by its next heartbeat."""
    put(store, HERE, other_process.pid, started(other_process.pid))
    assert not Claims(store).take_over(3, poll=0.1)

    put(store, "far-away", 1, 0.0, shard=4)
    beats = threading.Timer(0.6, put, (store, "far-away", 1, 0.0), {"shard": 4})
    beats.start()
    assert not Claims(store).take_over(4, poll=0.1)
    beats.join()
