import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from sare_core import claims
from sare_core.claims import LOST, Claim, Claims, read_claim
from sare_core.storage import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


@pytest.fixture
def other_process() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def put(store: Store, claim: Claim, shard: int = 3) -> None:
    store.write(f"claims/{shard:05d}.json", json.dumps(vars(claim)).encode())


def claim_of(pid: int) -> Claim:
    return Claim(os.uname().nodename, pid, psutil.Process(pid).create_time(), time.time())


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
    assert store.names("claims") == []
    assert mine.take(4)
    mine.free()


def test_a_living_process_keeps_its_claim(store: Store, other_process: subprocess.Popen[bytes]) -> None:
    claim = claim_of(other_process.pid)
    put(store, Claim(claim.host, claim.pid, claim.started, beat=0.0))  # on one host the process itself counts
    assert not Claims(store).take(3)
    assert read_claim(store, 3) is not None
    assert json.loads(store.read("claims/00003.json"))["pid"] == other_process.pid


def test_a_dead_process_loses_its_claim(store: Store, other_process: subprocess.Popen[bytes]) -> None:
    put(store, claim_of(other_process.pid))
    other_process.kill()
    other_process.wait()
    assert read_claim(store, 3) is None
    mine = Claims(store)
    assert mine.take(3)
    assert json.loads(store.read("claims/00003.json"))["pid"] == os.getpid()
    mine.free()


def test_a_zombie_is_dead(store: Store, other_process: subprocess.Popen[bytes]) -> None:
    put(store, claim_of(other_process.pid))
    os.kill(other_process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, other_process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has asked for it
    assert psutil.Process(other_process.pid).status() == psutil.STATUS_ZOMBIE
    assert read_claim(store, 3) is None


def test_another_process_with_the_same_number_is_not_the_holder(
    store: Store, other_process: subprocess.Popen[bytes]
) -> None:
    claim = claim_of(other_process.pid)
    put(store, Claim(claim.host, claim.pid, claim.started - 1000, claim.beat))
    assert read_claim(store, 3) is None


@pytest.mark.parametrize(("age", "held"), [(0.0, True), (LOST - 30, True), (LOST + 1, False)])
def test_another_host_counts_by_its_heartbeat(store: Store, age: float, held: bool) -> None:
    put(store, Claim("another-host", os.getpid(), 0.0, time.time() - age))
    assert (read_claim(store, 3) is not None) == held
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
        b'{"host": "another-host", "pid": 1, "started": 0, "beat": null}',
        b'{"host": "HERE", "pid": "one", "started": 0, "beat": 0}',
        b'{"host": "HERE", "pid": -1, "started": 0, "beat": 0}',
        b'{"host": "HERE", "pid": 1, "started": 0, "beat": 0, "more": 1}',
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
    first = read_claim(store, 3)
    assert first is not None
    deadline = time.monotonic() + 10
    while (claim := read_claim(store, 3)) is not None and claim.beat == first.beat:
        assert time.monotonic() < deadline, "no second beat"
        time.sleep(0.01)
    assert claim is not None
    mine.free()
    time.sleep(0.05)
    assert store.names("claims") == []
