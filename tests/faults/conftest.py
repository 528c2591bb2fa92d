"""A small tree, a pipeline on it, and what a run leaves that nothing disturbs."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sare_core.config import Settings, load_settings
from tests.conftest import STANDIN, standin_overrides
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


@pytest.fixture(scope="module")
def whole(tree: Path, standin_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """All stages done, and nothing disturbed them. Not to be touched: `done` is a copy."""
    folder = tmp_path_factory.mktemp("whole")
    settings = load_settings(STANDIN, [*standin_overrides(standin_models), *SMALL])
    pipeline = Pipeline(settings, str(folder / "manifests"), str(folder / "work"))
    pipeline.index(tree)
    assert [finish(pipeline, stage) for stage in STAGES] == [0, 0, 0, 0]
    return pipeline


@pytest.fixture
def undisturbed(whole: Pipeline) -> dict[str, bytes]:
    """What a run that nothing disturbs leaves."""
    found = outputs(whole.work)
    assert {name.split("/")[1] for name in found} == {"captions", "reconstructions", "detectors", "predictions"}
    return found


@pytest.fixture
def done(whole: Pipeline, tmp_path: Path) -> Pipeline:
    """All stages done, to be damaged."""
    shutil.copytree(whole.work, tmp_path / "damaged")
    return Pipeline(whole.settings, whole.manifests, str(tmp_path / "damaged"))


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
