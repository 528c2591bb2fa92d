"""A shard that fails is recorded with its reason and comes last; the others go on, unless everything fails alike."""

import errno
import io
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import typer
from rich.console import Console

from benchmarks.scale.made_up import make_index
from benchmarks.scale.sleeper import SleepStage, folder_of
from sare_core.engine.audit import folders
from sare_core.engine.checkpoints import read_checkpoint
from sare_core.engine.folders import Failure, Folder
from sare_core.engine.manifest import Index, read_index
from sare_core.engine.runner import run
from sare_core.errors import ConfigError, ImageError, StageError, TransientError
from sare_core.store.storage import sha256_file
from sare_core.training.samples import _reader
from stages.exits import finish
from tests.pipeline import Pipeline

QUIET = Console(quiet=True)
EIO = OSError(errno.EIO, os.strerror(errno.EIO), "/data/3.png")


class Failing(SleepStage):
    """Raises an error for the images of some shards. began: the shards it was given, in order."""

    def __init__(self, folder: Folder, errors: dict[int, Exception]) -> None:
        super().__init__(folder, 0.0)
        self.errors, self.began = errors, list[int]()

    def begin(self, sources: dict[int, dict[str, Path]]) -> None:
        self.began.extend(sources)

    def read(self, row: dict[str, Any]) -> str:
        if row["shard"] in self.errors:
            raise self.errors[row["shard"]]
        return super().read(row)


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return make_index(str(tmp_path / "manifests"), 40, 4)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return folder_of(str(tmp_path / "work"))


def kinds(folder: Folder, index: Index) -> dict[int, str]:
    return {shard: state.kind for shard, state in folder.states(index.digests).items()}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (EIO, "Input/output error: '/data/3.png'. Mend the cause, then run the same command again."),
        (TransientError("/data/3.png: reading failed. Look after the disk."), "reading failed. Look after the disk."),
        (ImageError("is gone"), "4 of 4 images failed"),
    ],
)
def test_one_shard_fails_and_the_others_are_done(folder: Folder, index: Index, error: Exception, reason: str) -> None:
    stage = Failing(folder, {3: error})
    outcome = run(stage, index, list(range(6)), QUIET)
    assert sorted(outcome.done) == [0, 1, 2, 4, 5]
    assert list(outcome.failed) == [3]
    assert reason in outcome.failed[3]
    assert not outcome.complete
    record = folder.record(3)
    assert record is not None
    assert (record.status, record.error, record.output) == ("failed", outcome.failed[3], None)
    assert not list(Path(folder.store.url).rglob("claims/*.json"))

    again = Failing(folder, {})
    assert run(again, index, list(range(8)), QUIET).complete
    assert again.began == [6, 7, 3], "what failed comes last"
    assert set(kinds(folder, index).values()) == {"done", "open"}


def test_a_run_ends_with_1_and_names_the_failed_shards_and_the_cure(
    folder: Folder, index: Index, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = run(Failing(folder, {3: EIO, 9: EIO}), index, list(range(12)), QUIET)
    with pytest.raises(typer.Exit) as ended:
        finish(outcome, "captions", "work")
    assert ended.value.exit_code == 1
    *_, three, nine, cure = capsys.readouterr().out.splitlines()
    assert "shard 3 failed: [Errno 5] Input/output error: '/data/3.png'" in three
    assert "shard 9 failed" in nine
    assert cure.startswith("Failed shards: 3,9. Fix what is named above, then run the same command again")


@pytest.mark.parametrize("gone", [range(12), range(10, 22), range(28, 40)])
def test_a_folder_of_images_that_is_gone_does_not_keep_the_others_from_being_done(
    folder: Folder, index: Index, gone: range
) -> None:
    """Its shards are neighbours: the run goes on elsewhere first."""
    stage = Failing(folder, {shard: ImageError("is gone") for shard in gone})
    outcome = run(stage, index, list(range(40)), QUIET)
    assert sorted(outcome.failed) == list(gone)
    assert set(outcome.done) == set(range(40)) - set(gone)
    assert len(stage.began) == 40, "none twice"


def test_a_run_stops_when_everything_fails(folder: Folder, index: Index) -> None:
    stage = Failing(folder, dict.fromkeys(range(40), EIO))
    with pytest.raises(StageError, match="3 shards failed one after the other") as error:
        run(stage, index, list(range(40)), QUIET)
    assert "Mend the cause, then run the same command again." in str(error.value)
    assert len(stage.began) == 3
    assert max(stage.began) > 10, "far from each other"


def test_shards_that_failed_before_do_not_stop_a_run(folder: Folder, index: Index) -> None:
    """Each is tried: the fourth may be mended when the first three are not."""
    for shards in ([0, 1], [2, 3], [4]):
        run(Failing(folder, dict.fromkeys(range(5), EIO)), index, shards, QUIET)
    outcome = run(Failing(folder, dict.fromkeys(range(4), EIO)), index, list(range(5)), QUIET)
    assert outcome.done == [4]
    assert sorted(outcome.failed) == [0, 1, 2, 3]


@pytest.mark.parametrize("error", [ConfigError("no space left"), ZeroDivisionError()])
def test_what_concerns_all_shards_stops_at_once(folder: Folder, index: Index, error: Exception) -> None:
    stage = Failing(folder, {3: error})
    with pytest.raises(type(error)):
        run(stage, index, list(range(6)), QUIET)
    assert stage.began == [0, 1, 2, 3]
    assert kinds(folder, index)[3] == "open", "nothing is wrong with the shard"


def test_a_record_that_cannot_be_written_leaves_the_shard_open(
    folder: Folder, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = Folder.commit

    def fails_for_3(self: Folder, record: Any) -> None:
        if record.shard == 3:
            raise EIO
        commit(self, record)

    monkeypatch.setattr(Folder, "commit", fails_for_3)
    outcome = run(Failing(folder, {}), index, list(range(6)), QUIET)
    assert sorted(outcome.done) == [0, 1, 2, 4, 5]
    assert "Input/output error" in outcome.failed[3]
    assert kinds(folder, index)[3] == "open"


def swap(folder: Folder, first: int, second: int) -> None:
    """Each of two shards' files under the other's name."""
    a, b = (folder.store.local(folder.record(shard).output.name) for shard in (first, second))  # type: ignore[union-attr]
    data = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(data)


def cut(tar: Path, keep: int) -> None:
    """All samples but the first few gone, and the tar whole."""
    with tarfile.open(tar) as whole:
        members = [(member, whole.extractfile(member).read()) for member in whole]  # type: ignore[union-attr]
    keys = list(dict.fromkeys(member.name.partition(".")[0] for member, _ in members))[:keep]
    with tarfile.open(tar, "w") as short:
        for member, data in members:
            if member.name.partition(".")[0] in keys:
                short.addfile(member, io.BytesIO(data))


def only(work: str, stage: str) -> Folder:
    (folder,) = [folder for folder in folders(work) if folder.stage == stage]
    return folder


def test_captions_of_another_shard_are_damage(done: Pipeline) -> None:
    captions = only(done.work, "captions")
    swap(captions, 0, 1)
    shutil.rmtree(only(done.work, "reconstructions").store.url)
    outcome = done.reconstructions()
    assert sorted(outcome.failed) == [0, 1]
    for reason in outcome.failed.values():
        assert "captions" in reason
        assert "sare verify --reopen" in reason


def test_a_tar_that_lost_samples_is_damage(done: Pipeline) -> None:
    reconstructions, predictions = only(done.work, "reconstructions"), only(done.work, "predictions")
    index = read_index(done.manifests, "tree")
    shard = index.select(["test"])["shard"].to_list()[0]
    record = reconstructions.record(shard)
    assert record is not None
    assert record.output is not None
    best = read_checkpoint(only(done.work, "detectors").store, "best")
    assert best is not None
    shutil.rmtree(predictions.store.url)
    cut(reconstructions.store.local(record.output.name), keep=1)
    _reader.cache_clear()
    outcome = done.predictions(only(done.work, "detectors"))
    assert list(outcome.failed) == [shard]
    assert "sare verify --reopen" in outcome.failed[shard]


def test_images_that_failed_before_are_no_damage(done: Pipeline) -> None:
    """What the record of the stage before lists as failed is missed by nobody."""
    captions = only(done.work, "captions")
    record = captions.record(0)
    assert record is not None
    assert record.output is not None
    path = captions.store.local(record.output.name)
    table = pq.read_table(path)
    lost = table["image_id"][0].as_py()
    pq.write_table(table.slice(1), path)
    record.output.sha256 = sha256_file(path)
    record.failures, record.ok = [Failure(image_id=lost, path="x", reason="no caption")], record.ok - 1
    captions.commit(record)
    outcome = done.reconstructions()
    assert outcome.complete
    assert outcome.done == [0]
    assert outcome.failures == 1
