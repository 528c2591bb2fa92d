"""`sare submit` on a real Slurm: whatever happens to its tasks, what lies there in the end is that of a local run."""

import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from sare_core.engine.audit import folders, integrity_errors, summarize
from sare_core.engine.manifest import read_index
from sare_core.engine.slurm import Slurm
from sare_core.errors import ConfigError
from tests.conftest import STANDIN, standin_overrides
from tests.faults.whole import SMALL
from tests.pipeline import Pipeline, outputs
from tests.slurm.cluster import Cluster
from tests.slurm.conftest import REPOSITORY, Submit
from tests.slurm.gate import Gate
from tests.trees import generated

DONE, DONE_AGAIN = ("COMPLETED", 0), ("COMPLETED", 1)


def check_whole(pipeline: Pipeline, local: Pipeline) -> None:
    """Of every stage that was run here, the files that the local run left, and no error."""
    found, stages = outputs(pipeline.work), {path.name for path in (Path(pipeline.work) / "tree").iterdir()}
    assert found == {name: data for name, data in outputs(local.work).items() if name.split("/")[1] in stages}
    assert "reconstructions" in stages
    index = read_index(pipeline.manifests, "tree")
    assert [error for folder in folders(pipeline.work) for error in integrity_errors(folder, index)] == []


def running_shards(pipeline: Pipeline) -> int:
    """What `sare status` shows as running."""
    index = read_index(pipeline.manifests, "tree")
    return sum(summarize(folder, index).count("running") for folder in folders(pipeline.work))


def claims(pipeline: Pipeline) -> list[Path]:
    return list(Path(pipeline.work).rglob("claims/*.json"))


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


def test_a_cancelled_task_is_all_that_the_next_run_does(
    sare_submit: Submit, cluster: Cluster, captioned: Pipeline, local: Pipeline, tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    [job] = sare_submit("reconstruct", captioned, gate, shards_per_task=3)["reconstruct"]
    cluster.until(lambda: gate.reached("0-0", "1-0"), "both tasks to be at work")
    assert running_shards(captioned) == 2
    cluster("scancel", f"{job}_0")
    cluster.until(lambda: not cluster("squeue", "-h", "-j", f"{job}_0"), "the task to be killed")
    gate.open()
    assert cluster.until_over(job)[job] == {"0": ("CANCELLED", 0), "1": DONE}
    [again] = sare_submit("reconstruct", captioned)["reconstruct"]
    assert cluster.until_over(again)[again] == {"": DONE}
    check_whole(captioned, local)


def test_a_preempted_task_gives_its_shard_up_and_comes_back(
    sare_submit: Submit, cluster: Cluster, captioned: Pipeline, local: Pipeline, tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    [job] = sare_submit("reconstruct", captioned, gate, slurm=["partition=low"])["reconstruct"]
    cluster.until(lambda: gate.reached("0-0"), "the task to be at work")
    assert len(claims(captioned)) == len(list((tmp_path / "spool").iterdir())) == 1
    high = cluster("sbatch", "--parsable", "--partition=high", "--ntasks=4", "--output=/dev/null", "--wrap=sleep 600")
    cluster.until(lambda: cluster.states(high)[""][0] == "RUNNING", "the other job to take its place")
    assert cluster.states(job) == {"": ("PENDING", 1)}
    log = (Path(captioned.work) / "slurm" / f"{job}_0_log.err").read_text()
    assert "this job is preempted" in log, "submitit's hook had the signal"
    assert claims(captioned) == list((tmp_path / "spool").iterdir()) == []
    gate.open()
    cluster("scancel", high)
    assert cluster.until_over(job)[job] == {"": DONE_AGAIN}
    check_whole(captioned, local)


def test_a_task_whose_time_is_over_goes_on_in_the_queue(
    sare_submit: Submit, cluster: Cluster, captioned: Pipeline, local: Pipeline, tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    [job] = sare_submit("reconstruct", captioned, gate, slurm=["time=5"])["reconstruct"]
    cluster.until(lambda: cluster.states(job)[""][0] == "RUNNING", "the task to start")
    cluster("scancel", "--signal=USR2", job)  # before anybody could listen: it must not end the task
    cluster.until(lambda: gate.reached("0-0"), "the task to be at work")
    cluster("scancel", "--signal=USR2", job)
    cluster.until(lambda: cluster.states(job)[""][1] == 1, "the task to be queued again")
    log = (Path(captioned.work) / "slurm" / f"{job}_0_log.err").read_text()
    assert "this job is timed-out" in log
    gate.open()
    assert cluster.until_over(job)[job] == {"": DONE_AGAIN}
    check_whole(captioned, local)


def test_daemons_and_a_node_that_die(
    sare_submit: Submit, cluster: Cluster, captioned: Pipeline, local: Pipeline, tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    [job] = sare_submit("reconstruct", captioned, gate)["reconstruct"]
    cluster.until(lambda: gate.reached("0-0"), "the task to be at work")
    cluster.kill("slurmd")
    cluster.start_node()
    cluster.kill("slurmctld")
    cluster.start_controller()
    cluster.until(lambda: cluster.states(job) == {"": ("RUNNING", 0)}, "the task to be at work still")
    cluster.kill("slurmd", "slurmstepd")  # and the task itself: as if the node had lost its power
    # What the controller does by itself once it has missed the node for long enough.
    cluster("scontrol", "update", f"nodename={socket.gethostname()}", "state=down", "reason=dead")
    cluster.start_node()
    cluster.until(lambda: gate.reached("0-1"), "the task to start again")
    assert running_shards(captioned) == 1, "a dead process's claim does not count"
    gate.open()
    assert cluster.until_over(job)[job] == {"": DONE_AGAIN}
    check_whole(captioned, local)


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
    marks = Path(captioned.work) / "tree" / "reconstructions"
    cluster.until(lambda: len(list(marks.glob("*/claims/*.json"))) == 2, "both tasks to be at work")
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
