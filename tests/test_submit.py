"""`sare submit` without a cluster: what it makes of options and of a machine that is no login node."""

import pickle
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import typer

from sare_core.config import Settings, load_settings
from sare_core.engine import slurm as cluster
from sare_core.engine.signals import release_on_preemption
from sare_core.engine.slurm import Slurm, array_limit
from sare_core.errors import ConfigError, StageError
from sare_core.submission import Submission, Task
from stages import submit
from stages.app import app
from tests.conftest import STANDIN, standin_overrides
from tests.faults.whole import SMALL
from tests.pipeline import Pipeline
from tests.trees import generated, genimage_tree


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

    monkeypatch.setattr("stages.caption.caption", stage)
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
        return dict(Submission(pipeline.settings, index, pipeline.work, "test", per_task=2).steps_of_all())

    def of_one(stage: str) -> Any:
        return Submission(pipeline.settings, index, pipeline.work, "test", per_task=2).steps_of_one(stage)

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


class Queued(NamedTuple):
    """One array, as it was submitted."""

    tasks: list[Task]
    each_after: list[str]
    after: list[str]


@dataclass
class Queue:
    """In the place of a cluster: an array's job is its stage."""

    arrays: dict[str, Queued] = field(default_factory=dict)

    def __call__(self, folder: Path, options: dict[str, str], parallel: int) -> "Queue":
        return self

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        yield

    def submit(self, name: str, tasks: list[Task], each_after: Any = (), after: Any = ()) -> list[str]:
        stage = name.partition("-")[0]
        self.arrays[stage] = Queued(tasks, list(each_after), list(after))
        return [stage]

    def shards(self) -> dict[str, list[str | None]]:
        return {stage: [task.arguments.get("shard") for task in array.tasks] for stage, array in self.arrays.items()}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, standin_models: Path) -> tuple[Pipeline, Pipeline]:
    """`tree`, with a trained detector; and `pics`, three shards of a test split without labels. One work folder."""
    folder = tmp_path_factory.mktemp("world")
    settings = load_settings(STANDIN, [*standin_overrides(standin_models), *SMALL])
    tree = Pipeline(settings, str(folder / "manifests"), str(folder / "work"))
    tree.index(genimage_tree(folder / "tree", per_cell=6, subsets=["sdv1.4"]))
    tree.captions()
    tree.reconstructions()
    tree.detector()
    pics, rng = Pipeline(settings, tree.manifests, tree.work, dataset="pics"), np.random.default_rng(0)
    for number in range(6):
        generated(folder / "pics" / f"{number}.png", rng, side=32)
    pics.index(folder / "pics", "folder", shard_size=2)
    return tree, pics


@dataclass
class Command:
    """`sare submit` with the stand-ins on an empty queue."""

    models: Path
    capsys: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch
    queue: Queue = field(default_factory=Queue)

    def __call__(self, stage: str, pipeline: Pipeline, code: int = 0, **options: Any) -> str:
        """What it prints; `queue` then has what it submitted."""
        self.queue = Queue()
        self.monkeypatch.setattr(submit, "Slurm", self.queue)
        arguments = [pipeline.dataset, STANDIN, [*standin_overrides(self.models), *SMALL]]
        ended = 0
        try:
            submit.submit(stage, *arguments, pipeline.work, pipeline.manifests, shards_per_task=2, **options)
        except typer.Exit as end:
            ended = end.exit_code
        assert ended == code
        return self.capsys.readouterr().out


@pytest.fixture
def sare_submit(standin_models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    return Command(standin_models, capsys, monkeypatch)


def test_only_the_shards_that_are_asked_for(sare_submit: Command, world: tuple[Pipeline, Pipeline]) -> None:
    tree, pics = world
    first, _, third = pics.shards()
    sare_submit("caption", pics, shard=f"{third}")
    assert sare_submit.queue.shards() == {"caption": [f"{third}"]}
    sare_submit("evaluate", tree, shard=f"{tree.shards()[-1]}")
    assert sare_submit.queue.shards() == {"evaluate": [f"{tree.shards()[-1]}"]}
    assert "1 shards wait" in sare_submit("reconstruct", pics, shard=f"{first}", code=1)
    assert sare_submit.queue.arrays == {}
    with pytest.raises(ConfigError, match="has no shard 99"):
        sare_submit("caption", pics, shard="99")


@pytest.mark.parametrize(
    ("stage", "option"),
    [
        ("all", {"shard": "0"}),
        ("train", {"shard": "0"}),
        ("caption", {"trained_on": "tree"}),
        ("train", {"trained_on": "tree"}),
    ],
)
def test_an_option_that_a_stage_has_not_is_refused(stage: str, option: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=f"sare submit {stage} --.* goes with"):
        submit.submit(stage, "tree", **option)


def test_a_dataset_without_a_training_split_is_not_called_done(
    sare_submit: Command, world: tuple[Pipeline, Pipeline]
) -> None:
    _, pics = world
    said = sare_submit("all", pics, code=1)
    assert list(sare_submit.queue.arrays) == ["caption", "reconstruct"]
    assert "sare submit all --dataset pics --trained-on NAME" in said


def test_another_datasets_detector(sare_submit: Command, world: tuple[Pipeline, Pipeline]) -> None:
    tree, pics = world
    a, b, c = pics.shards()
    sare_submit("all", pics, trained_on="tree")
    both = [f"{a},{b}", f"{c}"]
    assert sare_submit.queue.shards() == {"caption": both, "reconstruct": both, "evaluate": both}
    arrays = sare_submit.queue.arrays
    assert [task.arguments.get("trained_on") for task in arrays["evaluate"].tasks] == ["tree", "tree"]
    assert "trained_on" not in arrays["caption"].tasks[0].arguments
    assert arrays["reconstruct"][1:] == (["caption"], [])
    assert arrays["evaluate"][1:] == ([], ["reconstruct"]), "there is no training to wait for"
    with pytest.raises(ConfigError, match="'pics' has no training split"):
        sare_submit("evaluate", tree, trained_on="pics")


def test_of_a_dataset_that_is_only_tested_the_test_split_is_worked_on(
    sare_submit: Command, world: tuple[Pipeline, Pipeline], tmp_path: Path
) -> None:
    tree, _ = world
    other = Pipeline(tree.settings, tree.manifests, tree.work, dataset="other")
    index = other.index(genimage_tree(tmp_path / "other", per_cell=3, seed=1, subsets=["sdv1.4"]))
    test = index.select(["test"])["shard"].to_list()
    assert 0 < len(test) < len(other.shards())
    sare_submit("all", other, trained_on="tree")
    asked = {shard for array in sare_submit.queue.shards().values() for task in array for shard in task.split(",")}
    assert asked == {str(shard) for shard in test}
    assert "train" not in sare_submit.queue.arrays


def test_once_all_of_it_is_predicted_nothing_is_submitted(
    sare_submit: Command, world: tuple[Pipeline, Pipeline], tmp_path: Path
) -> None:
    tree, _ = world
    small = Pipeline(tree.settings, tree.manifests, tree.work, dataset="small")
    generated(tmp_path / "small" / "1.png", np.random.default_rng(3), side=32)
    small.index(tmp_path / "small", "folder")
    sare_submit("all", small, trained_on="tree")
    for stage in ("caption", "reconstruct", "evaluate"):
        (task,) = sare_submit.queue.arrays[stage].tasks
        task()
    assert "all is done, nothing was submitted" in sare_submit("all", small, trained_on="tree")
    said = sare_submit("all", small, code=1)
    assert "captions and reconstructions are done, nothing was submitted" in said
    assert "--trained-on NAME" in said


def test_a_dry_run_prints_each_task_and_leaves_nothing(
    sare_submit: Command, world: tuple[Pipeline, Pipeline], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _, pics = world
    sare_submit("all", pics, trained_on="tree")
    tasks = [task for array in sare_submit.queue.arrays.values() for task in array.tasks]
    before = sorted(Path(pics.work).rglob("*"))
    monkeypatch.setattr(cluster.shutil, "which", without_programs)
    said = sare_submit("all", pics, trained_on="tree", dry_run=True, slurm=["time=60", "reservation=our lab"])
    assert sare_submit.queue.arrays == {}
    assert sorted(Path(pics.work).rglob("*")) == before
    assert "dry run: nothing was submitted" in said
    assert "time=60" in said
    assert "'reservation=our lab'" in said
    rows = [line.split() for line in said.splitlines()]
    assert ["caption", "2", "3", "–", "–"] in rows
    assert ["reconstruct", "2", "3", "–", "caption,", "task", "by", "task"] in rows
    assert ["evaluate", "2", "3", "–", "reconstruct,", "all", "of", "it"] in rows
    commands = [shlex.split(line) for line in said.splitlines() if line.startswith("  sare ")]
    assert [command[1] for command in commands] == [task.stage for task in tasks]
    for (_, stage, *words), task in zip(commands, tasks, strict=True):
        parsed = typer.main.get_command(app).commands[stage].make_context(stage, words).params  # type: ignore[attr-defined]
        given = {key: value for key, value in parsed.items() if value not in (None, False)}
        assert given.pop("shard").replace("-", ",") == task.arguments["shard"]
        assert given == {key: value for key, value in task.arguments.items() if key != "shard"}


def test_a_dry_run_refuses_what_a_submission_would(
    sare_submit: Command, world: tuple[Pipeline, Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster.shutil, "which", without_programs)
    with pytest.raises(ConfigError, match="time=4:00:00"):
        sare_submit("caption", world[1], dry_run=True, slurm=["time=4:00:00"])
