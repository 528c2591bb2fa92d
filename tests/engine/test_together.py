"""Several shards computed together: batches of all their images, and each shard's file as if it were alone."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.scale.made_up import make_index
from benchmarks.scale.sleeper import SleepStage, folder_of
from sare_core.engine import shard as shards
from sare_core.engine.claims import claimed_shards
from sare_core.engine.manifest import Index
from sare_core.engine.ranks import Rank
from sare_core.engine.runner import run
from sare_core.errors import ImageError, StageError, Stopped
from tests.pipeline import QUIET

SHARDS = [0, 1, 2, 3, 4]


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    monkeypatch.setattr(Rank, "device", lambda self: "cpu")
    monkeypatch.setenv("SARE_SPOOL", str(tmp_path / "spool"))
    return make_index(str(tmp_path / "manifests"), len(SHARDS), 6)


class Together(SleepStage):
    """Two shards of 6 images a time, in batches of 4. batch_sizes: of the batches that it was given."""

    shards_together = 2

    def __init__(self, work: Path, errors: dict[int, Exception] | None = None) -> None:
        super().__init__(folder_of(str(work)), seconds=0.0)
        self.errors, self.batch_sizes, self.batches_since = errors or {}, list[int](), 0

    def read(self, row: dict[str, Any]) -> str:
        if row["shard"] in self.errors:
            raise self.errors[row["shard"]]
        return super().read(row)

    def process(self, items: list[Any]) -> list[Any]:
        self.batch_sizes.append(len(items))
        self.batches_since += 1
        return super().process(items)

    def ran(self) -> dict[str, int]:
        found, self.batches_since = {"batches": self.batches_since}, 0
        return found


def alone(work: Path) -> Together:
    stage = Together(work)
    stage.shards_together = 1
    return stage


def outputs(stage: SleepStage, index: Index) -> dict[int, str]:
    return {record.shard: record.output.name for record in stage.folder.records(SHARDS).values() if record.output}


def spooled(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "spool").rglob("*") if path.is_file()]


def test_batches_are_filled_from_all_of_them_and_each_file_is_as_if_alone(index: Index, tmp_path: Path) -> None:
    one, two = alone(tmp_path / "one"), Together(tmp_path / "two")
    assert run(one, index, SHARDS, QUIET).done == run(two, index, SHARDS, QUIET).done == SHARDS
    assert one.batch_sizes == [4, 2] * 5
    assert two.batch_sizes == [4, 4, 4] * 2 + [4, 2]
    assert len(outputs(two, index)) == len(SHARDS)
    assert outputs(one, index) == outputs(two, index), "names hold digests of the bytes"
    records = two.folder.records(SHARDS)
    assert [records[shard].together for shard in SHARDS] == [[0, 1], [0, 1], [2, 3], [2, 3], []]
    assert [record.together for record in one.folder.records(SHARDS).values()] == [[]] * 5
    assert [records[shard].batches["batches"] for shard in SHARDS] == [3, 3, 3, 3, 2]
    assert claimed_shards(two.folder.store) == {}


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), ImageError("no image")])
def test_one_that_fails_does_not_take_the_others_along(index: Index, tmp_path: Path, error: Exception) -> None:
    stage = Together(tmp_path / "work", {2: error})
    outcome = run(stage, index, SHARDS, QUIET)
    assert sorted(outcome.done) == [0, 1, 3, 4] and list(outcome.failed) == [2]
    assert str(error) in outcome.failed[2]
    records = stage.folder.records(SHARDS)
    assert records[2].status == "failed" and records[2].together == []
    assert records[0].together == [0, 1] and records[3].together == [], "done by itself once its neighbour had failed"
    assert records[3].batches == {"batches": 2}, "not those that its neighbour's failure made vain"
    assert claimed_shards(stage.folder.store) == {}


def test_a_retry_of_one_image_leaves_what_is_said_of_the_others(index: Index, tmp_path: Path) -> None:
    class Gone(Together):
        gone = index.rows(0)[0]["image_id"]

        def read(self, row: dict[str, Any]) -> str:
            if row["image_id"] == self.gone:
                raise ImageError("is gone")
            return super().read(row)

    stage = Gone(tmp_path / "work")
    run(stage, index, [0, 1], QUIET)
    before = stage.folder.records([0])[0]
    stage.gone = ""
    assert run(stage, index, [0, 1], QUIET, retry=True).done == [0]
    after = stage.folder.records([0])[0]
    assert (before.ok, after.ok) == (5, 6)
    assert (after.batches, after.together) == (before.batches, before.together) == ({"batches": 3}, [0, 1])


def test_progress_counts_each_image_once(index: Index, tmp_path: Path) -> None:
    stage = Together(tmp_path / "work", {2: ImageError("no image")})
    with (tmp_path / "log").open("w") as log:
        run(stage, index, SHARDS, Console(file=log))
    assert "30 of 30 images" in (tmp_path / "log").read_text().splitlines()[-1]


def test_a_stop_leaves_nothing_behind_and_the_next_run_makes_the_same(index: Index, tmp_path: Path) -> None:
    class Stopping(Together):
        def process(self, items: list[Any]) -> list[Any]:
            if len(self.batch_sizes) == 4:  # within the second two
                os.kill(os.getpid(), signal.SIGTERM)
            return super().process(items)

    work = tmp_path / "work"
    stage = Stopping(work)
    with pytest.raises(Stopped):
        run(stage, index, SHARDS, QUIET)
    assert sorted(outputs(stage, index)) == [0, 1]
    assert claimed_shards(stage.folder.store) == {}
    assert spooled(tmp_path) == []
    assert run(Together(work), index, SHARDS, QUIET).done == [2, 3, 4]
    whole = alone(tmp_path / "whole")
    run(whole, index, SHARDS, QUIET)
    assert outputs(stage, index) == outputs(whole, index)


def test_the_seconds_of_several_are_shared_out(index: Index, tmp_path: Path) -> None:
    stage, started = Together(tmp_path / "work"), time.monotonic()
    stage.seconds = 0.05
    run(stage, index, [0, 1], QUIET)
    took = time.monotonic() - started
    seconds = [record.seconds for record in stage.folder.records([0, 1]).values()]
    assert min(seconds) > 0.07, "three batches, shared by two"
    assert sum(seconds) <= took


def test_one_that_is_left_when_a_run_ends_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def digest(path: Path) -> str:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Rank, "device", lambda self: "cpu")
    monkeypatch.setattr(shards, "sha256_file", digest)
    monkeypatch.setenv("SARE_SPOOL", str(tmp_path / "spool"))
    stage = Together(tmp_path / "work")
    stage.shards_together = 4
    index = make_index(str(tmp_path / "eight"), 8, 2)
    with pytest.raises(StageError, match="3 shards failed one after the other"):
        run(stage, index, list(range(8)), QUIET)  # the third fails when the seventh is handed over
    assert spooled(tmp_path) == [] and claimed_shards(stage.folder.store) == {}


def test_too_many_that_fail_end_the_run_and_leave_no_file(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def digest(path: Path) -> str:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(shards, "sha256_file", digest)
    stage = Together(tmp_path / "work")
    with pytest.raises(StageError, match="3 shards failed one after the other"):
        run(stage, index, SHARDS, QUIET)
    assert claimed_shards(stage.folder.store) == {}
    assert spooled(tmp_path) == []
