"""A full disk and a disk that may not be written stop a run with a message; with room it goes on where it was."""

import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from sare_core.errors import ConfigError
from sare_core.miniature.unpack import unpack_models
from tests.faults.disks import Disk
from tests.faults.whole import check_whole
from tests.faults.worker import STAGES, finish
from tests.pipeline import Pipeline


def test_every_stage_stops_on_a_full_disk_and_goes_on_with_room(
    begin: Callable[[str], Pipeline], undisturbed: dict[str, bytes], disk: Callable[[str], Disk]
) -> None:
    full = disk("64m")
    pipeline = begin(f"{full.path.name}/work")
    for stage in STAGES:
        for room in (0, 9000):  # nothing at all; a record or two
            ballast = full.fill(leave=room)
            assert finish(pipeline, stage) == 2, f"{stage} with {room} bytes"
            ballast.unlink()
        assert finish(pipeline, stage) == 0
    check_whole(pipeline, undisturbed)


def test_the_message_names_the_place_and_the_cure(
    begin: Callable[[str], Pipeline], disk: Callable[[str], Disk]
) -> None:
    full = disk("4m")
    pipeline = begin(f"{full.path.name}/work")
    ballast = full.fill(leave=0)
    with pytest.raises(ConfigError, match=f"{full.path}.*: no space left.*run the same command") as error:
        pipeline.captions()
    assert "about.json" in str(error.value) or "captions" in str(error.value)
    ballast.unlink()
    assert pipeline.captions().complete


def test_a_full_spool(
    begin: Callable[[str], Pipeline], disk: Callable[[str], Disk], monkeypatch: pytest.MonkeyPatch
) -> None:
    full = disk("1m")
    monkeypatch.setenv("SARE_SPOOL", str(full.path / "spool"))
    pipeline = begin("work")
    assert pipeline.captions().complete
    ballast = full.fill(leave=4096)
    with pytest.raises(ConfigError, match=f"{full.path}/spool: no space left.*SARE_SPOOL"):
        pipeline.reconstructions()
    assert list((full.path / "spool").iterdir()) == [], "the half shard is gone"
    assert not list(Path(pipeline.work).rglob("reconstructions/*/records/*"))
    ballast.unlink()
    assert pipeline.reconstructions().complete


def test_a_spool_that_is_no_folder(
    begin: Callable[[str], Pipeline], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SARE_SPOOL", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match=f"{tmp_path}/file: cannot be written .* set SARE_SPOOL to another"):
        begin("work").captions()


def test_files_that_may_not_grow(begin: Callable[[str], Pipeline]) -> None:
    """`ulimit -f`: the shard does not fit under it."""
    pipeline = begin("work")
    assert pipeline.captions().complete
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9000, limits[1]))
    try:
        with pytest.raises(ConfigError, match=r"cannot be written \(File too large\).* set SARE_SPOOL to another"):
            pipeline.reconstructions()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert pipeline.reconstructions().complete


def test_the_miniature_on_a_full_disk(disk: Callable[[str], Disk]) -> None:
    full = disk("2m")
    with pytest.raises(ConfigError, match=f"{full.path}/models: no space left"):
        unpack_models(full.path / "models")
    assert list(full.path.iterdir()) == []


@pytest.mark.parametrize("place", range(len(STAGES)))
def test_a_work_folder_that_may_not_be_written(
    place: int, begin: Callable[[str], Pipeline], undisturbed: dict[str, bytes], disk: Callable[[str], Disk]
) -> None:
    locked = disk("64m")
    pipeline = begin(f"{locked.path.name}/work")
    assert [finish(pipeline, stage) for stage in STAGES[:place]] == [0] * place
    locked.read_only(True)
    assert finish(pipeline, STAGES[place]) == 2
    locked.read_only(False)
    assert [finish(pipeline, stage) for stage in STAGES[place:]] == [0] * (4 - place)
    check_whole(pipeline, undisturbed)


def test_a_finished_stage_on_a_disk_that_may_only_be_read(
    begin: Callable[[str], Pipeline], disk: Callable[[str], Disk]
) -> None:
    """Status and verify are asked by people who may only look."""
    from sare_core.engine.audit import folders, integrity_errors, summarize
    from sare_core.engine.manifest import read_index

    locked = disk("64m")
    pipeline = begin(f"{locked.path.name}/work")
    assert pipeline.captions().complete
    index = read_index(pipeline.manifests, "tree")
    locked.read_only(True)
    [folder] = folders(pipeline.work)
    assert summarize(folder, index).count("done") == len(pipeline.shards())
    assert list(integrity_errors(folder, index)) == []
