"""Tasks of a real Slurm that are stopped, preempted or lose their node: what lies there in the end is a local run's."""

import socket
from pathlib import Path

from tests.pipeline import Pipeline
from tests.slurm.cluster import Cluster
from tests.slurm.conftest import Submit, check_whole, holders
from tests.slurm.gate import Gate

DONE, DONE_AGAIN = ("COMPLETED", 0), ("COMPLETED", 1)


def claims(pipeline: Pipeline) -> list[Path]:
    return list(Path(pipeline.work).rglob("claims/*.json"))


def test_a_cancelled_task_is_all_that_the_next_run_does(
    sare_submit: Submit, cluster: Cluster, captioned: Pipeline, local: Pipeline, tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    [job] = sare_submit("reconstruct", captioned, gate, shards_per_task=3)["reconstruct"]
    cluster.until(lambda: gate.reached("0-0", "1-0"), "both tasks to be at work")
    assert holders(captioned) == 2
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
    assert claims(captioned) and list((tmp_path / "spool").iterdir())
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
    assert holders(captioned) == 1, "a dead process's claim does not count"
    gate.open()
    assert cluster.until_over(job)[job] == {"": DONE_AGAIN}
    check_whole(captioned, local)
