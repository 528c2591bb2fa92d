"""What breaks on a disk after it was written: verify finds it, `--reopen` and the same command make it whole again."""

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from sare_core.engine import runner
from sare_core.engine.audit import folders, integrity_errors, reopen
from sare_core.engine.folders import Failure, Output
from sare_core.engine.manifest import read_index
from sare_core.engine.shardfiles import TarReader, TarWriter, read_rows
from sare_core.engine.stage import Outcome
from sare_core.errors import StageError
from sare_core.store.storage import sha256_file
from sare_core.training.samples import SampleKey, Samples
from tests.faults.whole import check_whole
from tests.faults.worker import finish
from tests.pipeline import QUIET, Pipeline, outputs

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


def swap_files(a: Path, b: Path) -> None:
    """Each whole, but under the other's name."""
    first, second = a.read_bytes(), b.read_bytes()
    a.write_bytes(second)
    b.write_bytes(first)


def swap_maps(path: Path) -> None:
    """Two images of one tar have each other's map; all else is as it was."""
    reader = TarReader(path)
    samples = [reader[key] for key in reader]
    samples[0]["sare.png"], samples[1]["sare.png"] = samples[1]["sare.png"], samples[0]["sare.png"]
    assert samples[0]["sare.png"] != samples[1]["sare.png"]
    writer = TarWriter(path)
    for sample in samples:
        writer.write(sample)
    writer.close()


def swap_captions(path: Path) -> None:
    rows = read_rows(path)
    rows[0]["caption"], rows[1]["caption"] = "an owl", "a ship"
    pq.write_table(pa.Table.from_pylist(rows, schema=pq.read_schema(path)), path)


def forget(pipeline: Pipeline, stage: str) -> None:
    """What a stage made, all of it."""
    for folder in Path(pipeline.work).glob(f"tree/{stage}"):
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("consumer", "wrong"),
    [
        ("reconstructions", "a caption changed"),
        ("detectors", "two tars swapped"),
        ("detectors", "two maps swapped"),
        ("predictions", "two tars swapped"),
        ("predictions", "two maps swapped"),
    ],
)
def test_nothing_is_made_from_wrong_bytes(
    consumer: str, wrong: str, done: Pipeline, undisturbed: dict[str, bytes]
) -> None:
    """A stage stops at them by name; verify opens the shards; the stages make everything as if nothing had been."""
    index = read_index(done.manifests, "tree")
    producer = "captions" if wrong == "a caption changed" else "reconstructions"
    shards = index.select(["train"] if consumer == "detectors" else ["test"])["shard"].to_list()
    files = [next(Path(done.work).glob(f"tree/{producer}/*/{shard:05d}-*")) for shard in shards]
    if wrong == "two tars swapped":
        swap_files(*files[:2])
    else:
        (swap_maps if wrong == "two maps swapped" else swap_captions)(files[0])
    damaged = shards[:2] if wrong == "two tars swapped" else shards[:1]
    forget(done, consumer)

    run = {"detectors": done.detector, "reconstructions": done.reconstructions, "predictions": partial(predict, done)}
    told = refusal(run[consumer])
    assert "not the bytes that its record names" in told
    assert any(str(file) in told for file in files[:2])
    assert "`sare verify --reopen` opens its shard again; then run the stage that made it" in told

    found = [(folder, error) for folder in folders(done.work) for error in integrity_errors(folder, index)]
    assert sorted(error.shard for _, error in found if error.shard is not None) == sorted(damaged)
    for folder, breach in found:
        assert breach.shard is not None
        reopen(folder, breach.shard, breach.text)
    assert (done.captions() if producer == "captions" else done.reconstructions()).done == sorted(damaged)
    run[consumer]()
    check_whole(done, undisturbed)


def refusal(run: Callable[[], Any]) -> str:
    """Why a training stopped, or shards failed. Raises AssertionError: neither."""
    try:
        outcome = run()
    except StageError as error:
        return str(error)
    assert outcome.failed
    return " ".join(outcome.failed.values())


def predict(pipeline: Pipeline) -> Outcome:
    return pipeline.predictions(pipeline.graph.detector_of(read_index(pipeline.manifests, "tree")))


def test_a_retry_keeps_no_sample_of_a_damaged_tar(done: Pipeline, undisturbed: dict[str, bytes]) -> None:
    """`retry-failed` copies what a shard holds; of one whose bytes are wrong it copies nothing."""
    index = read_index(done.manifests, "tree")
    [folder] = [folder for folder in folders(done.work) if folder.stage == "reconstructions"]
    shard = index.select(["test"])["shard"][0]
    record = folder.record(shard)
    assert record is not None and record.output is not None
    record.failures, record.ok = [Failure(image_id="0" * 20, path="x.png", reason="away")], record.ok - 1
    folder.commit(record)
    swap_maps(folder.store.local(record.output.name))
    stage = done.graph.reconstruct(index)
    told = refusal(lambda: runner.run(stage, index, [shard], QUIET, retry=True))
    assert f"{record.output.name}: not the bytes that its record names" in told
    assert folder.record(shard) == record
    for error in list(integrity_errors(folder, index)):
        reopen(folder, shard, error.text)
    done.reconstructions()
    check_whole(done, undisturbed)


def test_a_shard_that_is_made_anew_is_read_anew(done: Pipeline) -> None:
    """In the same process, too, though another file of the shard is still open there."""
    index = read_index(done.manifests, "tree")
    shards = index.select(["train"])["shard"].to_list()
    [folder] = [folder for folder in folders(done.work) if folder.stage == "reconstructions"]

    def maps() -> list[torch.Tensor]:
        maps = {"reconstructions": folder}
        samples = Samples(maps, index, shards[:1], done.settings.detector, done.settings.view)
        return [samples[SampleKey(0, position)]["sare"] for position in range(len(samples))]

    before = maps()
    record = folder.record(shards[0])
    assert record is not None and record.output is not None
    new = folder.store.local("new.tar")
    shutil.copy(folder.store.local(record.output.name), new)
    swap_maps(new)
    digest = sha256_file(new)
    record.output = Output(name=f"{shards[0]:05d}-{digest[:12]}.tar", bytes=record.output.bytes, sha256=digest)
    new.rename(new.with_name(record.output.name))
    folder.commit(record)
    changed = [not torch.equal(one, two) for one, two in zip(before, maps(), strict=True)]
    assert sum(changed) == 2


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
