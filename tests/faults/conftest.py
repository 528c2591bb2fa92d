"""A small tree, a pipeline on it, and what a run leaves that nothing disturbs."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sare_core.config import Settings
from tests.faults.disks import Disk
from tests.faults.whole import SMALL
from tests.faults.worker import STAGES, finish
from tests.pipeline import Pipeline, outputs
from tests.trees import genimage_tree


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    genimage_tree(root, per_cell=10, subsets=["sdv1.4"])
    return root


@pytest.fixture
def begin(tree: Path, tmp_path: Path, standin_settings: Callable[..., Settings]) -> Callable[[str], Pipeline]:
    """`begin("name")`: an indexed pipeline with a work folder of that name."""

    def make(name: str) -> Pipeline:
        pipeline = Pipeline(standin_settings(*SMALL), str(tmp_path / "manifests"), str(tmp_path / name))
        pipeline.index(tree)
        return pipeline

    return make


@pytest.fixture
def undisturbed(begin: Callable[[str], Pipeline]) -> dict[str, bytes]:
    """What a run that nothing disturbs leaves."""
    pipeline = begin("undisturbed")
    assert [finish(pipeline, stage) for stage in STAGES] == [0, 0, 0, 0]
    found = outputs(pipeline.work)
    assert {name.split("/")[1] for name in found} == {"captions", "reconstructions", "detectors", "predictions"}
    return found


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Disk]]:
    """`disk("4m")`: a file system of that size, of its own. Skips where none may be mounted."""
    made: list[Disk] = []

    def mount(size: str) -> Disk:
        made.append(Disk(tmp_path / f"disk-{len(made)}", size))
        return made[-1]

    yield mount
    for one in made:
        one.unmount()
