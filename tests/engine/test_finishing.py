"""A shard is checked, put in place and recorded while the next is computed; its claim is held until then."""

import gc
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from benchmarks.scale.made_up import make_index
from benchmarks.scale.sleeper import SleepStage, folder_of
from sare_core.engine import shard as shards
from sare_core.engine.claims import claimed_shards
from sare_core.engine.manifest import Index
from sare_core.engine.ranks import Rank
from sare_core.engine.runner import run
from sare_core.errors import StageError, Stopped
from sare_core.store.storage import sha256_file
from tests.pipeline import QUIET

SHARDS = [0, 1, 2, 3]


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    monkeypatch.setattr(Rank, "device", lambda self: "cpu")
    return make_index(str(tmp_path / "manifests"), len(SHARDS), 4)


class Watched(SleepStage):
    """Calls `at` with the number of each shard that begins."""

    def __init__(self, work: Path, at: Any) -> None:
        super().__init__(folder_of(str(work)), seconds=0.0)
        self.at = at

    def begin(self, sources: dict[int, dict[str, Path]]) -> None:
        [shard] = sources
        self.at(shard)


def test_the_next_shard_begins_before_the_last_is_in_place(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    next_began, seen = threading.Event(), list[set[int]]()

    def begins(shard: int) -> None:
        if shard == 1:
            seen.append(set(claimed_shards(stage.folder.store)))
            next_began.set()

    def digest(path: Path) -> str:
        assert next_began.wait(10), "the next shard waits for this one"
        return sha256_file(path)

    monkeypatch.setattr(shards, "sha256_file", digest)
    stage = Watched(tmp_path / "work", begins)
    outcome = run(stage, index, SHARDS, QUIET)
    assert outcome.done == SHARDS and outcome.complete
    assert seen == [{0, 1}], "both are claimed"
    assert claimed_shards(stage.folder.store) == {}


def test_the_garbage_collector_leaves_models_alone_while_they_work(index: Index, tmp_path: Path) -> None:
    before, frozen = gc.get_freeze_count(), list[int]()
    run(Watched(tmp_path / "work", lambda shard: frozen.append(gc.get_freeze_count())), index, SHARDS, QUIET)
    assert min(frozen) > before == gc.get_freeze_count()


def test_one_that_fails_there_is_told_and_the_others_go_on(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def digest(path: Path) -> str:
        if "-00001@" in path.name:
            raise OSError(5, "Input/output error")
        return sha256_file(path)

    monkeypatch.setattr(shards, "sha256_file", digest)
    stage = Watched(tmp_path / "work", lambda shard: None)
    outcome = run(stage, index, SHARDS, QUIET)
    assert outcome.done == [0, 2, 3] and list(outcome.failed) == [1]
    assert "Input/output error" in outcome.failed[1]
    states = stage.folder.states(index.digests)
    assert [states[shard].kind for shard in SHARDS] == ["done", "failed", "done", "done"]
    assert claimed_shards(stage.folder.store) == {}


def test_the_last_one_may_be_one_too_many(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def digest(path: Path) -> str:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(shards, "sha256_file", digest)
    stage = Watched(tmp_path / "work", lambda shard: None)
    with pytest.raises(StageError, match="3 shards failed one after the other"):
        run(stage, index, SHARDS[:3], QUIET)
    assert claimed_shards(stage.folder.store) == {}


def test_a_stop_waits_for_the_one_that_is_nearly_done(index: Index, tmp_path: Path) -> None:
    def begins(shard: int) -> None:
        if shard == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    stage = Watched(tmp_path / "work", begins)
    with pytest.raises(Stopped):
        run(stage, index, SHARDS, QUIET)
    states = stage.folder.states(index.digests)
    assert [states[shard].kind for shard in SHARDS] == ["done", "open", "open", "open"]
    assert claimed_shards(stage.folder.store) == {}
    stage.at = lambda shard: None
    assert run(stage, index, SHARDS, QUIET).done == [1, 2, 3]
