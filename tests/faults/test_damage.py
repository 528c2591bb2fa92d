"""What breaks on a disk after it was written: verify finds it, `--reopen` and the same command make it whole again."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from sare_core.audit import folders, integrity_errors, reopen
from sare_core.errors import StageError
from sare_core.manifest import read_index
from tests.faults.whole import check_whole
from tests.faults.worker import finish
from tests.pipeline import Pipeline, outputs

Damage = Callable[[Path], None]


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x10
    path.write_bytes(data)


def climb_out(path: Path) -> None:
    """One more member, whose name leads out of the folder it would be unpacked in."""
    with tarfile.open(path, "a") as tar:
        member = tarfile.TarInfo("../../climbed.json")
        member.size = 2
        tar.addfile(member, io.BytesIO(b"{}"))


DAMAGES: dict[str, Damage] = {
    "a byte flipped": lambda path: flip(path, path.stat().st_size // 2),
    "the last block cut": lambda path: path.write_bytes(path.read_bytes()[:-512]),
    "cut in half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "emptied": lambda path: path.write_bytes(b""),
    "gone": Path.unlink,
    "a member that climbs out": climb_out,
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_shard_is_found_and_made_whole(name: str, done: Pipeline, undisturbed: dict[str, bytes]) -> None:
    index = read_index(done.manifests, "tree")
    damaged = min(Path(done.work).rglob("reconstructions/**/*.tar"))
    DAMAGES[name](damaged)
    found = [(folder, error) for folder in folders(done.work) for error in integrity_errors(folder, index)]
    assert [error.shard for _, error in found] == [int(damaged.name[:5])]
    assert damaged.name in found[0][1].text
    assert "sare verify --reopen" in found[0][1].text
    for folder, error in found:
        assert error.shard is not None
        reopen(folder, error.shard, error.text)
    outcome = done.reconstructions()
    assert outcome.done == [int(damaged.name[:5])]
    assert finish(done, "predictions") == 0
    check_whole(done, undisturbed)
    assert not (damaged.parent.parent / "climbed.json").exists()


def test_a_tar_cut_at_every_border_is_found(done: Pipeline) -> None:
    index = read_index(done.manifests, "tree")
    [folder] = [folder for folder in folders(done.work) if folder.stage == "reconstructions"]
    tar = min(Path(folder.store.url).glob("*.tar"), key=lambda path: path.stat().st_size)
    whole = tar.read_bytes()
    for size in range(0, len(whole), 512):
        tar.write_bytes(whole[:size])
        assert [error.shard for error in integrity_errors(folder, index)] == [int(tar.name[:5])], f"cut at {size}"
    tar.write_bytes(whole)
    assert list(integrity_errors(folder, index)) == []


def test_training_on_a_damaged_tar_stops_by_name(done: Pipeline) -> None:
    """Between `verify` and training nobody looks at all bytes; a tar that cannot be read stops it all the same."""
    from sare_core.data.pairs import _reader

    damaged = min(Path(done.work).rglob("reconstructions/**/*.tar"))
    climb_out(damaged)
    for checkpoint in Path(done.work).rglob("detectors/*/*.json"):
        checkpoint.unlink()
    _reader.cache_clear()
    with pytest.raises(StageError, match=f"{damaged.name}: member '../../climbed.json'"):
        done.detector()


@pytest.mark.parametrize("stage", ["captions", "reconstructions", "predictions"])
def test_a_record_cut_in_half_is_done_again(stage: str, done: Pipeline, undisturbed: dict[str, bytes]) -> None:
    index = read_index(done.manifests, "tree")
    record = min(Path(done.work).rglob(f"{stage}/*/records/*.json"))
    record.write_bytes(record.read_bytes()[: record.stat().st_size // 2])
    found = [error.text for folder in folders(done.work) for error in integrity_errors(folder, index)]
    assert len(found) == 1
    assert str(record) in found[0]
    assert "delete it, run the stage again" in found[0]
    assert finish(done, stage) == 0
    assert json.loads(record.read_text())["status"] == "done"
    check_whole(done, undisturbed)


def test_a_broken_description_does_not_hide_the_others(done: Pipeline) -> None:
    [folder] = [folder for folder in folders(done.work) if folder.stage == "predictions"]
    folder.store.write("about.json", b"{")
    broken: list[str] = []
    assert {folder.stage for folder in folders(done.work, broken=broken)} == {
        "captions",
        "reconstructions",
        "detectors",
    }
    assert len(broken) == 1
    assert folder.store.path("about.json") in broken[0]
    before = outputs(done.work)
    assert finish(done, "predictions") == 0  # which writes it anew
    assert outputs(done.work) == before
    assert len(list(folders(done.work))) == 4
