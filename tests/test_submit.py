"""`sare submit` without a cluster: what it makes of options and of a machine that is no login node."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from sare_core import cluster
from sare_core.cluster import Slurm, array_limit
from sare_core.config import Settings
from sare_core.errors import ConfigError, StageError
from sare_core.signals import release_on_preemption
from stages import submit
from stages.submit import Task, steps_of_all, steps_of_one
from tests.faults.whole import SMALL
from tests.pipeline import Pipeline
from tests.trees import genimage_tree


def without_programs(*_: Any) -> None:
    return None


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Slurm]:
    """`slurm({"time": "60"}, gres="gpu:a100:8")`: on a cluster whose nodes have such generic resources."""

    def make(options: dict[str, str], gres: str = "(null)") -> Slurm:
        answers = {"sinfo": f"{gres}\n", "scontrol": "MaxArraySize            = 1001\n"}
        monkeypatch.setattr(cluster.shutil, "which", lambda name: f"/usr/bin/{name}")
        monkeypatch.setattr(cluster, "_ask", lambda program, *_: answers[program])
        return Slurm(tmp_path / "slurm", options, parallel=4)

    return make


def test_a_task_asks_for_a_gpu_where_there_are_some(slurm: Callable[..., Slurm]) -> None:
    assert "gpus_per_node" not in slurm({}).options
    assert slurm({}).options["cpus_per_task"] == 1
    asked = slurm({}, "gpu:a100:8").options
    assert (asked["gpus_per_node"], asked["cpus_per_task"]) == (1, cluster.CPUS_BESIDE_A_GPU)
    chosen = slurm({"gres": "gpu:h100:1", "cpus-per-task": "9"}, "gpu:a100:8").options
    assert "gpus_per_node" not in chosen
    assert (chosen["gres"], chosen["cpus_per_task"]) == ("gpu:h100:1", 9)


def test_options_of_submitit_and_of_sbatch(slurm: Callable[..., Slurm]) -> None:
    options = slurm({"time": "60", "exclusive": "true", "reservation": "lab", "setup": "module load cuda"}).options
    assert (options["time"], options["exclusive"]) == (60, True)
    assert options["setup"][-1] == "module load cuda"
    assert options["additional_parameters"]["reservation"] == "lab"
    for wrong in ({"time": "4:00:00"}, {"array_parallelism": "3"}, {"dependency": "afterok:1"}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            slurm(wrong)


def test_the_smaller_of_both_bounds_on_an_array() -> None:
    assert array_limit("MaxArraySize            = 1001\nMaxDBDMsgs = 20012\n") == 1001
    assert array_limit("MaxArraySize = 1001\nSchedulerParameters     = bf_interval=1,max_array_tasks=200\n") == 200


def test_a_task_that_is_not_complete_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def stage(code: int) -> None:
        raise typer.Exit(code)

    monkeypatch.setitem(submit.STAGES, "caption", stage)
    Task("caption", {"code": 0})()
    with pytest.raises(StageError, match="not all is done"):
        Task("caption", {"code": 1})()


def test_a_checkpoint_drops_what_is_in_hand_and_is_the_same_task() -> None:
    dropped: list[int] = []
    task = Task("train", {"dataset": "tree"})
    with release_on_preemption(lambda: dropped.append(1)):
        again = task.checkpoint()
    assert dropped == [1]
    assert pickle.loads(pickle.dumps(again.function)) == task


def test_only_what_is_open_is_submitted(tmp_path: Path, standin_settings: Callable[..., Settings]) -> None:
    pipeline = Pipeline(standin_settings(*SMALL), str(tmp_path / "manifests"), str(tmp_path / "work"))
    index = pipeline.index(genimage_tree(tmp_path / "tree", per_cell=10, subsets=["sdv1.4"]), shard_size=10)
    first, second, third, *rest = pipeline.shards()

    def of_all() -> dict[str, list[list[int] | None]]:
        return dict(steps_of_all(pipeline.settings, index, pipeline.work, "test", per_task=2))

    def of_one(stage: str) -> Any:
        return steps_of_one(stage, pipeline.settings, index, pipeline.work, "test", per_task=2)

    assert of_all()["caption"] == of_all()["reconstruct"] == [[first, second], [third, rest[0]], [rest[1]]]
    assert of_one("reconstruct") == ([], [first, second, third, *rest]), "all wait for captions"
    with pytest.raises(StageError):
        of_one("train")
    pipeline.captions([first, second, third])
    pipeline.reconstructions([second])
    assert of_one("caption") == ([("caption", [rest])], [])
    assert of_one("reconstruct") == ([("reconstruct", [[first, third]])], rest)
    # In the same ranges, so that each task of the second waits for its like in the first.
    assert of_all()["caption"] == of_all()["reconstruct"] == [[first, third], rest]
    pipeline.captions()
    assert "caption" not in of_all()
    pipeline.reconstructions()
    assert list(of_all()) == ["train", "evaluate"]
    pipeline.predictions(pipeline.detector())
    assert list(of_all()) == ["evaluate"], "there are no tables yet"


def test_no_login_node_is_said_with_the_cure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cluster.shutil, "which", without_programs)
    with pytest.raises(ConfigError, match=r"docs/sare\.sbatch"):
        Slurm(tmp_path, {}, parallel=1)


@pytest.mark.parametrize("wrong", [{"stage": "detect"}, {"stage": "caption", "slurm": ["partition"]}])
def test_wrong_words_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"detect|partition"):
        submit.submit(dataset="tree", **wrong)
