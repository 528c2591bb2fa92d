"""One Slurm for all of these tests, and what a run on this machine alone leaves of a small tree."""

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sare_core import submission
from sare_core.config import load_settings
from sare_core.engine.audit import folders, integrity_errors
from sare_core.engine.claims import claimed_shards
from sare_core.engine.manifest import read_index
from stages import submit
from tests.conftest import STANDIN, standin_overrides
from tests.faults.whole import SMALL
from tests.pipeline import Pipeline, outputs
from tests.slurm.cluster import Cluster, missing, running
from tests.slurm.gate import Gate
from tests.trees import genimage_tree

ARRAY = 2  # the cluster's bound on an array's size
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A Slurm of four CPUs. Where none can be started, tests are skipped, or fail with SARE_REQUIRE_SLURM set."""
    if why := missing():
        (pytest.fail if os.environ.get("SARE_REQUIRE_SLURM") else pytest.skip)(why)
    # Not below pytest's folder: a socket's path must be short.
    folder = Path(tempfile.mkdtemp(prefix="sare-slurm-"))
    with running(folder, cpus=4, array=ARRAY) as cluster:
        yield cluster
    left = cluster.processes()
    shutil.rmtree(folder)
    assert left == []


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory, standin_models: Path) -> Pipeline:
    """The whole pipeline in this process. The tree has five shards, two of them of the test split."""
    folder = tmp_path_factory.mktemp("local")
    settings = load_settings(STANDIN, [*standin_overrides(standin_models), *SMALL])
    pipeline = Pipeline(settings, str(folder / "manifests"), str(folder / "work"))
    pipeline.index(genimage_tree(folder / "tree", per_cell=10, subsets=["sdv1.4"]), shard_size=10)
    assert pipeline.captions().complete
    assert pipeline.reconstructions().complete
    assert pipeline.predictions(pipeline.detector()).complete
    return pipeline


@pytest.fixture
def captioned(local: Pipeline, tmp_path: Path) -> Pipeline:
    """A work folder of its own, in which nothing but the captions is done."""
    shutil.copytree(Path(local.work) / "tree" / "captions", tmp_path / "work" / "tree" / "captions")
    return Pipeline(local.settings, local.manifests, str(tmp_path / "work"))


Submit = Callable[..., dict[str, list[str]]]


def check_whole(pipeline: Pipeline, local: Pipeline) -> None:
    """Of every stage that was run here, the files that the local run left, and no error."""
    found, stages = outputs(pipeline.work), {path.name for path in (Path(pipeline.work) / "tree").iterdir()}
    assert found == {name: data for name, data in outputs(local.work).items() if name.split("/")[1] in stages}
    assert "reconstructions" in stages
    index = read_index(pipeline.manifests, "tree")
    assert [error for folder in folders(pipeline.work) for error in integrity_errors(folder, index)] == []


def holders(pipeline: Pipeline) -> int:
    """The processes that hold shards and live. Each may hold three: written, at the model, and being read."""
    held = [claim for folder in folders(pipeline.work) for claim in claimed_shards(folder.store).values()]
    return len({claim.pid for claim in held})


@pytest.fixture
def sare_submit(
    cluster: Cluster,
    standin_models: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Iterator[Submit]:
    """`sare_submit("all", pipeline, gate, shards_per_task=2)`: the job ids of each stage, as the command prints."""
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "spool").mkdir()
    monkeypatch.setenv("SARE_SPOOL", str(tmp_path / "spool"))
    monkeypatch.chdir(REPOSITORY)

    def call(stage: str, pipeline: Pipeline, gate: Gate | None = None, **options: object) -> dict[str, list[str]]:
        monkeypatch.setattr(submission, "Task", gate.task if gate else submission.Task)
        submit.submit(
            stage,
            pipeline.dataset,
            STANDIN,
            [*standin_overrides(standin_models), *SMALL],
            pipeline.work,
            pipeline.manifests,
            **options,  # type: ignore[arg-type]
        )
        printed = capsys.readouterr().out
        rows = re.findall(r"^(caption|reconstruct|train|evaluate) +\d+ +\S+ +(\d+(?:, \d+)*)", printed, re.MULTILINE)
        return {name: jobs.split(", ") for name, jobs in rows}

    yield call
    cluster("scancel", "--user=root")
    cluster.until(lambda: not cluster("squeue", "-h"), "the queue to be empty")
