"""All stages on an object store, through every fault: the same files as on a disk, under the same names."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sare_core.config import Settings
from sare_core.engine.folders import Folder
from tests.faults import worker
from tests.objectstore.proxy import Fault, Kind, Proxy
from tests.objectstore.test_sources import upload
from tests.objectstore.worker import Remote, holds_what_it_names
from tests.pipeline import Pipeline, outputs
from tests.trees import genimage_tree

SMALL = ("reconstruct.longer_side=32", "reconstruct.steps=4", "train.epochs=2", "train.batch_size=8")
Make = Callable[..., Settings]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return genimage_tree(tmp_path_factory.mktemp("tree"), per_cell=10, subsets=["sdv1.4"])


_made: dict[str, dict[str, bytes]] = {}


@pytest.fixture
def on_disk(tree: Path, standin_settings: Make, tmp_path: Path) -> dict[str, bytes]:
    """What all stages leave on a disk."""
    if not _made:
        work = tmp_path / "work"
        pipeline = Pipeline(standin_settings(*SMALL), str(tmp_path / "manifests"), str(work))
        pipeline.index(tree, shard_size=20)
        assert [worker.finish(pipeline, stage) for stage in worker.STAGES] == [0, 0, 0, 0]
        _made["all"] = outputs(work)
    return _made["all"]


@pytest.fixture
def remote(tree: Path, bucket: str, standin_settings: Make) -> Remote:
    names = ("AWS_", "SARE_SPOOL")
    environment = {name: value for name, value in os.environ.items() if name.startswith(names)}
    work = f"{bucket}/lab/work"
    pipeline = Remote(standin_settings(*SMALL), f"{bucket}/lab/manifests", work, environment=environment)
    pipeline.index(upload(tree, f"{bucket}/GenImage"))
    return pipeline


def of_stage(files: dict[str, bytes], *stages: str) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if name.split("/")[1] in stages}


def folders(remote: Remote) -> list[Folder]:
    return [
        remote.graph.captions,
        remote.graph.reconstructions,
    ]


def test_a_run_and_a_rerun(remote: Remote, on_disk: dict[str, bytes], proxy: Proxy, tmp_path: Path) -> None:
    proxy.clear()
    assert [remote.finish(stage) for stage in worker.STAGES] == [0, 0, 0, 0]
    assert remote.outputs() == on_disk
    assert all(holds_what_it_names(folder) for folder in folders(remote))
    assert not any(path.is_file() for path in (tmp_path / "spool").glob("*.tar"))
    for stage in ("captions", "reconstructions"):
        proxy.clear()
        assert remote.finish(stage) == 0
        assert proxy.requests.total() <= 20, proxy.paths
        assert not [path for path in proxy.paths if "GenImage" in path or path.endswith((".tar", ".png", ".JPEG"))]


PASSING: list[Kind] = ["slow down", "cut upload", "lose half", "swallow", "cut answer", "late"]


def test_through_every_passing_fault(remote: Remote, on_disk: dict[str, bytes], proxy: Proxy) -> None:
    for stage in worker.STAGES:
        proxy.clear()
        # Of each kind some at the start, some among the images, and one at each kind of file that is put.
        early = [Fault(kind, "PUT" if "upload" in kind or "half" in kind else "", seconds=0.5) for kind in PASSING]
        later = [Fault(kind, "GET", "GenImage", times=3, after=3 * n) for n, kind in enumerate(PASSING[3:])]
        puts = [
            Fault(kind, "PUT", part)
            for kind in ("swallow", "cut upload", "lose half", "slow down")
            for part in (".tar", "captions/", "records/", ".safetensors", "predictions/")
        ]
        proxy.faults = [*puts, *later, *early]
        assert remote.finish(stage) == 0
        assert sum(fault.hits for fault in proxy.faults) >= 8
    proxy.clear()
    assert remote.outputs() == on_disk


def test_credentials_that_expire(remote: Remote, on_disk: dict[str, bytes], proxy: Proxy) -> None:
    """At the first request, an image, an output or a record: exit code 2, nothing half done; then it goes on."""
    captions, _ = folders(remote)
    for place in (("", ""), ("GET", "GenImage"), ("PUT", ".parquet"), ("PUT", "records/")):
        proxy.faults = [Fault("expired", *place, times=100_000)]
        assert remote.finish("captions") == 2
        assert proxy.faults[0].hits > 0
        proxy.clear()
        assert holds_what_it_names(captions)
        assert not captions.records()
    assert remote.finish("captions") == 0
    assert remote.outputs() == of_stage(on_disk, "captions")


def test_killed_in_the_middle_of_an_upload(remote: Remote, on_disk: dict[str, bytes], proxy: Proxy) -> None:
    """stall: half of the file is on its way. late: all of it is, and will lie there without a record."""
    _, reconstructions = folders(remote)
    assert remote.finish("captions") == 0
    kinds: list[tuple[Kind, str]] = [("stall", ".tar"), ("late", ".tar"), ("stall", "records/")]
    for kind, part in kinds:
        proxy.faults = [Fault(kind, "PUT", part, seconds=1.0)]
        process = remote.start("reconstructions")
        while not proxy.faults[0].hits:
            assert process.is_alive()
            time.sleep(0.01)
        time.sleep(0.1)
        process.kill()
        process.join()
        time.sleep(1.0)  # what was late arrives
        proxy.clear()
        assert holds_what_it_names(reconstructions)
    assert remote.finish("reconstructions") == 0
    assert remote.outputs() == of_stage(on_disk, "captions", "reconstructions")


def test_killed_between_output_and_record(remote: Remote, on_disk: dict[str, bytes]) -> None:
    for point in ("verified", "output-put", "record-put", "compacted", "compacted-named"):
        assert remote.finish("captions", points=(point,)) == -9
        assert holds_what_it_names(folders(remote)[0])
    assert remote.finish("captions") == 0
    assert remote.outputs() == of_stage(on_disk, "captions")
