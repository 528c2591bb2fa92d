"""One detector, whatever the number of processes: the losses of one process at the same effective batch."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sare_core.config import load_settings
from sare_core.engine.audit import folders
from sare_core.engine.checkpoints import load_tensors, read_checkpoint
from sare_core.engine.folders import Folder
from tests.conftest import STANDIN, standin_overrides
from tests.pipeline import Pipeline
from tests.processes.launching import Launch
from tests.trees import genimage_tree

# Four micro-batches a step, four steps an epoch and a part of one that is dropped.
SMALL = [
    "reconstruct.longer_side=32",
    "reconstruct.steps=4",
    "train.epochs=2",
    "train.batch_size=16",
    "train.micro_batch_size=4",
    "train.learning_rate=1e-4",
    "train.checkpoint_steps=1",
    "train.max_grad_norm=0.5",
    "train.warmup_steps=3",
]
STEPS = 8
# In double precision; TensorBoard keeps single. Another micro-batch, seed or running statistic shows at 1e-3 and more.
TOLERANCE = 1e-6
DOUBLE = (0, "none", 0, 0, "self")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, standin_models: Path) -> Launch:
    """Everything before the training. CLIP is trained along, with dropout, so that seeds have something to do."""
    folder = tmp_path_factory.mktemp("world")
    tree = genimage_tree(folder / "tree", per_cell=40, subsets=["sdv1.4"])
    models = shutil.copytree(standin_models, folder / "models")
    config = models / "image-encoder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"attention_dropout": 0.2}))
    settings = [*standin_overrides(models), *SMALL, "detector.tune_image_encoder=true"]
    pipeline = Pipeline(load_settings(STANDIN, settings), str(folder / "manifests"), str(folder / "work"))
    trained_on = pipeline.index(tree, shard_size=24).select(["train", "val"])["shard"].to_list()
    assert pipeline.captions(trained_on).complete
    assert pipeline.reconstructions(trained_on).complete
    return Launch(settings, pipeline.manifests, Path(pipeline.work))


def beside(done: Launch, work: Path) -> Launch:
    """The same with a work folder of its own."""
    shutil.copytree(done.work, work)
    return Launch(done.settings, done.manifests, work)


@pytest.fixture(scope="module")
def alone(done: Launch, tmp_path_factory: pytest.TempPathFactory) -> Launch:
    """Trained by one process."""
    launch = beside(done, tmp_path_factory.mktemp("alone") / "work")
    (done,) = launch.forked("train", changed=DOUBLE)
    assert done.returncode == 0, done.stderr
    assert len(losses(launch)) == STEPS
    return launch


def detector(launch: Launch) -> Folder:
    (folder,) = [folder for folder in folders(str(launch.work)) if folder.stage == "detectors"]
    return folder


def losses(launch: Launch) -> dict[int, float]:
    """The training loss of each step, as TensorBoard shows it; of a step that was done twice, the last."""
    found: dict[int, float] = {}
    for path in sorted(launch.work.rglob("events.out.tfevents.*"), key=lambda path: path.stat().st_mtime):
        events = EventAccumulator(str(path), {"scalars": 0}).Reload()
        if "train/loss" in events.Tags()["scalars"]:
            found |= {event.step: event.value for event in events.Scalars("train/loss")}
    return found


def history(launch: Launch) -> list[dict[str, float]]:
    last = read_checkpoint(detector(launch).store, "last")
    assert last is not None
    assert last.finished
    return last.history  # type: ignore[return-value]


def statistics(launch: Launch) -> np.ndarray:
    """BatchNorm's running means and variances, one behind the other."""
    store = detector(launch).store
    last = read_checkpoint(store, "last")
    assert last is not None
    tensors: dict[str, Any] = load_tensors(store, last)
    names = [name for name in sorted(tensors) if name.endswith(("running_mean", "running_var"))]
    assert len(names) > 20
    assert {int(tensors[name]) for name in tensors if name.endswith("num_batches_tracked")} == {4 * STEPS}
    return np.concatenate([tensors[name].numpy() for name in names])


def assert_same_training(launch: Launch, alone: Launch) -> None:
    assert detector(launch).fingerprint == detector(alone).fingerprint
    found, expected = losses(launch), losses(alone)
    assert found.keys() == expected.keys() == set(range(1, STEPS + 1))
    np.testing.assert_allclose(
        [found[step] for step in expected], list(expected.values()), rtol=TOLERANCE, atol=TOLERANCE
    )
    for ours, theirs in zip(history(launch), history(alone), strict=True):
        assert ours.keys() == theirs.keys()
        np.testing.assert_allclose([ours[key] for key in theirs], list(theirs.values()), rtol=TOLERANCE, atol=TOLERANCE)
    np.testing.assert_allclose(statistics(launch), statistics(alone), rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("processes", [4])  # two, with two micro-batches each, are in the tests below
def test_losses_are_those_of_one_process(processes: int, done: Launch, alone: Launch, tmp_path: Path) -> None:
    launch = beside(done, tmp_path / "work")
    ranks = launch.forked("train", processes, changed=DOUBLE)
    assert [rank.returncode for rank in ranks] == [0] * processes, ranks
    assert ["best epoch" in rank.stdout for rank in ranks] == [True] + [False] * (processes - 1)
    assert_same_training(launch, alone)


def test_a_killed_run_goes_on_with_another_number_of_processes(done: Launch, alone: Launch, tmp_path: Path) -> None:
    """Of two processes one is killed in the middle of the second epoch; one process alone ends the work."""
    launch = beside(done, tmp_path / "work")
    code, said = launch.run("train", "GPUS=2", changed=(0, "checkpoint-named", 7, int(signal.SIGKILL), "self"))
    assert code == 1, said
    last = read_checkpoint(detector(launch).store, "last")
    assert last is not None
    assert (last.step, last.finished) == (6, False), "six and the best of the first epoch are seven"
    (done_,) = launch.forked("train", changed=DOUBLE)
    assert done_.returncode == 0, done_.stderr
    assert_same_training(launch, alone)


def test_a_signal_to_the_launcher_stops_all_processes_after_the_same_step(
    done: Launch, alone: Launch, tmp_path: Path
) -> None:
    """No rank waits for one that has gone: each ends by itself, with a checkpoint of where they were."""
    launch = beside(done, tmp_path / "work")
    launch.settings = [*done.settings, "train.checkpoint_steps=100"]
    code, said = launch.run("train", "GPUS=2", changed=(0, "checkpoint-put", 1, int(signal.SIGTERM), "launcher"))
    assert code != 0, said
    assert said.count("stopped by signal 15") == 2, said
    last = read_checkpoint(detector(launch).store, "last")
    assert last is not None
    assert 4 < last.step < STEPS, "the signal came with the best checkpoint of the first epoch"
    ranks = launch.forked("train", 2, changed=DOUBLE)
    assert [rank.returncode for rank in ranks] == [0, 0], ranks
    assert_same_training(launch, alone)
