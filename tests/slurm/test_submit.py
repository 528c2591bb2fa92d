"""`sare submit` on a real Slurm: whatever happens to its tasks, what lies there in the end is that of a local run."""

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from sare_core.engine.manifest import read_index
from sare_core.engine.slurm import Slurm
from sare_core.errors import ConfigError
from tests.conftest import STANDIN, standin_overrides
from tests.faults.whole import SMALL
from tests.pipeline import Pipeline
from tests.slurm.cluster import Cluster
from tests.slurm.conftest import REPOSITORY, Submit, check_whole, holders
from tests.trees import generated

DONE, DONE_AGAIN = ("COMPLETED", 0), ("COMPLETED", 1)


def test_all_stages_as_arrays_that_wait_for_each_other(
    sare_submit: Submit, cluster: Cluster, local: Pipeline, tmp_path: Path
) -> None:
    pipeline = Pipeline(local.settings, local.manifests, str(tmp_path / "work"))
    jobs = sare_submit("all", pipeline, shards_per_task=2, gpus=4)
    assert {stage: len(ids) for stage, ids in jobs.items()} == {
        "caption": 2,  # three tasks, of which two go into one array
        "reconstruct": 2,
        "train": 1,
        "evaluate": 1,
    }
    ended = cluster.until_over(*(job for ids in jobs.values() for job in ids))
    assert {state for job in ended.values() for state in job.values()} == {DONE}
    assert [len(ended[job]) for job in jobs["reconstruct"]] == [2, 1]
    check_whole(pipeline, local)
    assert sare_submit("all", pipeline) == {}, "nothing is left to submit"


def test_another_datasets_detector(sare_submit: Submit, cluster: Cluster, local: Pipeline, tmp_path: Path) -> None:
    shutil.copytree(local.work, tmp_path / "work")
    pics = Pipeline(local.settings, local.manifests, str(tmp_path / "work"), dataset="pics")
    for number in range(3):
        generated(tmp_path / "pics" / f"{number}.png", np.random.default_rng(number))
    pics.index(tmp_path / "pics", "folder", shard_size=1)
    before = cluster("squeue", "-h")
    assert sare_submit("all", pics, trained_on="tree", dry_run=True) == {}
    assert cluster("squeue", "-h") == before
    jobs = sare_submit("all", pics, trained_on="tree")
    assert {stage: len(ids) for stage, ids in jobs.items()} == {"caption": 1, "reconstruct": 1, "evaluate": 1}
    ended = cluster.until_over(*(job for ids in jobs.values() for job in ids))
    assert {state for job in ended.values() for state in job.values()} == {DONE}
    found = sorted((tmp_path / "work" / "pics" / "predictions").glob("*/*.parquet"))
    assert sum(pq.read_metadata(path).num_rows for path in found) == 3
    assert sare_submit("all", pics, trained_on="tree") == {}, "nothing is left to submit"


def test_a_stage_that_fails_starts_nothing_that_waits_for_it(
    sare_submit: Submit, cluster: Cluster, local: Pipeline, tmp_path: Path
) -> None:
    pipeline = Pipeline(local.settings, local.manifests, str(tmp_path / "work"))
    index = read_index(local.manifests, "tree")
    root, shards = Path(index.about["root"]), local.shards()
    moved = [root / row["path"] for row in index.rows(shards[-1])]
    for path in moved:
        path.rename(path.with_name(path.name + ".away"))
    try:
        jobs = sare_submit("all", pipeline, shards_per_task=4)
        ended = cluster.until_over(*(job for ids in jobs.values() for job in ids))
    finally:
        for path in moved:
            path.with_name(path.name + ".away").rename(path)
    states = {stage: {task: state for task, (state, _) in ended[jobs[stage][0]].items()} for stage in jobs}
    assert states["caption"] == {"0": "COMPLETED", "1": "FAILED"}
    assert states["reconstruct"] == {"0": "COMPLETED", "1": "CANCELLED"}, "the other range went on"
    assert set(states["train"].values()) | set(states["evaluate"].values()) == {"CANCELLED"}
    folder = pipeline.graph.reconstructions
    assert sorted(folder.records()) == shards[:4]


def test_the_script_for_those_without_submitit(
    cluster: Cluster,
    captioned: Pipeline,
    local: Pipeline,
    standin_models: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    arguments = ["--dataset", "tree", "--preset", STANDIN, "--work", captioned.work, "--manifests", captioned.manifests]
    arguments += [word for setting in [*standin_overrides(standin_models), *SMALL] for word in ("--set", setting)]
    log = f"--output={tmp_path}/%a.log"
    script = str(REPOSITORY / "docs" / "sare.sbatch")
    monkeypatch.setenv("SARE", str(Path(sys.executable).with_name("sare")))
    options = ["--parsable", "--array=0-1", "--gpus-per-node=0", "--cpus-per-task=1", log]
    job = cluster("sbatch", *options, script, "reconstruct", *arguments)
    cluster.until(lambda: holders(captioned) == 2, "both tasks to be at work")
    cluster("scancel", "--signal=USR1", "--batch", f"{job}_0")
    ended = cluster.until_over(job)[job]
    assert ended == {"0": DONE_AGAIN, "1": DONE}, "".join(p.read_text() for p in tmp_path.glob("*.log"))
    check_whole(captioned, local)


def test_what_slurm_refuses_leaves_nothing_in_the_queue(
    sare_submit: Submit, cluster: Cluster, local: Pipeline, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pipeline, submitted = Pipeline(local.settings, local.manifests, str(tmp_path / "work")), Slurm.submit

    def then_the_partition_is_gone(slurm: Slurm, name: str, *args: Any) -> list[str]:
        if name.startswith("train"):
            assert len(cluster("squeue", "-h", "-r").splitlines()) == 6, "captions and reconstructions wait"
            slurm.options["partition"] = "nowhere"
        return submitted(slurm, name, *args)

    monkeypatch.setattr(Slurm, "submit", then_the_partition_is_gone)
    with pytest.raises(ConfigError, match="invalid partition"):
        sare_submit("all", pipeline, shards_per_task=2, slurm=["hold=true"])
    assert cluster("squeue", "-h") == ""
