"""Two who work on the same shards: few are done twice, one result stands; what a dead one held is taken over."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.scale import race
from benchmarks.scale.made_up import make_index
from benchmarks.scale.sleeper import SleepStage, folder_of
from sare_core.engine import claims, runner
from sare_core.engine.audit import integrity_errors
from sare_core.engine.garbage import orphaned_files
from sare_core.engine.ranks import Rank
from sare_core.engine.runner import run

QUIET = Console(quiet=True)


def test_two_runners_compute_few_shards_twice(tmp_path: Path) -> None:
    [row] = race.rows(tmp_path, shards=60)
    assert row.holds, row
    assert int(row.figure) <= 2


def test_a_dead_hosts_claim_is_waited_for_and_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "LOST", 1.5)
    monkeypatch.setattr(runner, "POLL", 0.2)
    monkeypatch.setattr(Rank, "device", lambda self: "cpu")  # to ask torch takes longer, on a slow machine
    index, folder = make_index(str(tmp_path / "manifests"), 4, 4), folder_of(str(tmp_path / "work"))
    folder.store.write("claims/00001.json", json.dumps({"host": "node7", "pid": 1, "started": 0.0}).encode())
    start = time.monotonic()
    outcome = run(SleepStage(folder, 0.0), index, [0, 1, 2, 3], QUIET)
    assert time.monotonic() - start > 1, "the claim was fresh"
    assert outcome.done == [0, 2, 3, 1], "the others first"
    assert outcome.complete


def test_a_shard_that_another_finishes_is_not_done_again(tmp_path: Path) -> None:
    manifests, work = str(tmp_path / "manifests"), str(tmp_path / "work")
    index = make_index(manifests, 3, 4)
    command = [sys.executable, "-m", "benchmarks.scale.race", manifests, work]
    other = subprocess.Popen(command)
    outcome = run(SleepStage(folder_of(work), 0.3), index, [0, 1, 2], QUIET)
    assert other.wait() == 0
    assert sorted(outcome.done + outcome.others + outcome.before) == [0, 1, 2]


def test_a_runner_that_hangs_loses_its_shard_and_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped for longer than a heart may stand still, it comes back and finishes a shard that another did."""
    manifests, work = str(tmp_path / "manifests"), str(tmp_path / "work")
    index = make_index(manifests, 1, 400)
    folder = folder_of(work)
    hanging = subprocess.Popen([sys.executable, "-m", "benchmarks.scale.race", manifests, work])
    while not folder.store.exists("claims/00000.json"):
        time.sleep(0.05)
    os.kill(hanging.pid, signal.SIGSTOP)
    claim = json.loads(folder.store.read("claims/00000.json"))
    folder.store.write("claims/00000.json", json.dumps(claim | {"host": "far-away"}).encode())
    monkeypatch.setattr(claims, "LOST", 0.0)
    assert run(SleepStage(folder, race.SECONDS), index, [0], QUIET).done == [0]
    os.kill(hanging.pid, signal.SIGCONT)
    assert hanging.wait() == 0
    assert [state.kind for state in folder.states(index.digests).values()] == ["done"]
    assert list(integrity_errors(folder, index)) == []
    assert [name for name in orphaned_files(folder, index, grace=0) if name.endswith(".parquet")] == [], (
        "the same bytes, one file"
    )
