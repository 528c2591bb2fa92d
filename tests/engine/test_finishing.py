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
from sare_core.engine.claims import Claims, claimed_shards
from sare_core.engine.manifest import Index
from sare_core.engine.ranks import Rank
from sare_core.engine.runner import run
from sare_core.errors import ConfigError, StageError, Stopped, TransientError
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
        assert next_began.wait(60), "the next shard waits for this one"
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


class Meeting(SleepStage):
    """The model's last batch of shard 0 waits until shard 1 is read, and what it made until the model has shard 1."""

    def __init__(self, work: Path) -> None:
        super().__init__(folder_of(str(work)), seconds=0.0)
        self.next_read, self.next_at_the_model, self.met = threading.Event(), threading.Event(), list[bool]()
        self.known = set[int]()

    def begin(self, sources: dict[int, dict[str, Path]]) -> None:
        self.known |= sources.keys()

    def end(self, shards: list[int]) -> None:
        self.known -= set(shards)

    def read(self, row: dict[str, Any]) -> Any:
        assert row["shard"] in self.known, "`begin` comes before, and `end` after"
        if row["shard"] == 1:
            self.next_read.set()
        return row["shard"]

    def process(self, items: list[Any]) -> list[Any]:
        if items[0] == 0:
            self.met.append(self.next_read.wait(60))
        elif items[0] == 1:
            self.next_at_the_model.set()
        return super().process(items)

    def encode(self, row: dict[str, Any], item: Any, result: float) -> dict[str, Any]:
        if row["shard"] == 0:
            self.met.append(self.next_at_the_model.wait(60))
        assert row["shard"] in self.known
        return super().encode(row, row["image_id"], result)


def test_the_model_waits_neither_for_the_first_images_nor_for_the_last_results(index: Index, tmp_path: Path) -> None:
    stage = Meeting(tmp_path / "work")
    outcome = run(stage, index, SHARDS, QUIET)
    assert outcome.done == SHARDS
    assert stage.met == [True] * 5, "one batch, and four images"
    assert stage.known == set()


@pytest.mark.parametrize("error", [kind("does not answer") for kind in (TransientError, ConfigError, OSError)])
def test_a_shard_that_cannot_be_begun_early_costs_nothing_of_the_one_before(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    take = Claims.take

    def fails_for_1(self: Claims, shard: int | str) -> bool:
        if shard == 1:
            raise error
        return take(self, shard)

    monkeypatch.setattr(Claims, "take", fails_for_1)
    stage = Watched(tmp_path / "work", lambda shard: None)
    with pytest.raises(type(error), match="does not answer"):
        run(stage, index, SHARDS, QUIET)
    states = stage.folder.states(index.digests)
    assert [states[shard].kind for shard in SHARDS] == ["done", "open", "open", "open"]
    assert claimed_shards(stage.folder.store) == {}


def test_a_file_that_cannot_be_opened_ends_the_run(index: Index, tmp_path: Path) -> None:
    began = list[int]()

    class Full(SleepStage):
        def begin(self, sources: dict[int, dict[str, Path]]) -> None:
            began.extend(sources)

        def batches(self, rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
            return [[row] for row in rows]  # more than may wait to be written

        def open(self, path: Path) -> Any:
            raise OSError(28, "No space left on device", str(path))

    stage = Full(folder_of(str(tmp_path / "work")), seconds=0.0)
    with pytest.raises(ConfigError, match="no space left"):
        run(stage, index, SHARDS, QUIET)
    assert began == [0], "no further shard"
    assert claimed_shards(stage.folder.store) == {}
