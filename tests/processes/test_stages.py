"""The stages whose ranks are not met in the other files: captions and predictions of two, and the tables after them."""

import shutil
from pathlib import Path

import pytest

from sare_core.config import load_settings
from sare_core.engine.audit import folders, integrity_errors
from sare_core.engine.manifest import read_index
from tests.conftest import STANDIN, standin_overrides
from tests.pipeline import Pipeline, outputs
from tests.processes.launching import Launch
from tests.trees import genimage_tree

SMALL = ["reconstruct.longer_side=32", "reconstruct.steps=4", "train.epochs=1", "train.batch_size=8"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, standin_models: Path) -> Pipeline:
    """All stages, in one process."""
    folder = tmp_path_factory.mktemp("world")
    settings = load_settings(STANDIN, [*standin_overrides(standin_models), *SMALL])
    pipeline = Pipeline(settings, str(folder / "manifests"), str(folder / "work"))
    pipeline.index(genimage_tree(folder / "tree", per_cell=10, subsets=["sdv1.4"]), shard_size=4)
    assert pipeline.captions().complete
    assert pipeline.reconstructions().complete
    assert pipeline.predictions(pipeline.detector()).complete
    return pipeline


@pytest.mark.parametrize(("stage", "folder"), [("caption", "captions"), ("evaluate", "predictions")])
def test_two_ranks_give_the_bytes_of_one(
    stage: str, folder: str, alone: Pipeline, standin_models: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    shutil.copytree(alone.work, work)
    shutil.rmtree(work / "tree" / folder)
    launch = Launch([*standin_overrides(standin_models), *SMALL], alone.manifests, work)
    ranks = launch.forked(stage, 2)
    assert [rank.returncode for rank in ranks] == [0, 0], ranks
    for number, rank in enumerate(ranks):
        assert f"rank {number}: {folder}: " in rank.stdout
    assert outputs(work) == outputs(alone.work)
    index = read_index(alone.manifests, "tree")
    assert [error for each in folders(str(work)) for error in integrity_errors(each, index)] == []
    if stage == "evaluate":
        assert any("sare · standin" in rank.stdout for rank in ranks), "the tables are printed"
        (metrics,) = work.rglob("metrics.csv")
        assert metrics.read_text().count("\nsare · standin,") >= 2
