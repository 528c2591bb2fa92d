"""Sources that cannot be read while a detector is trained that needs them, and what an epoch's record says."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sare_core.config import load_settings
from sare_core.engine.audit import folders
from sare_core.engine.checkpoints import Checkpoint, read_checkpoint
from sare_core.engine.folders import Folder
from sare_core.engine.manifest import read_index
from sare_core.errors import StageError, TransientError
from sare_core.training.samples import MicroBatches
from tests.conftest import STANDIN, standin_overrides
from tests.faults.worker import finish
from tests.pipeline import Pipeline
from tests.processes.launching import Launch
from tests.trees import genimage_tree

SMALL = [
    "reconstruct.longer_side=32",
    "reconstruct.steps=2",
    "reconstruct.keep_source=false",
    "reconstruct.keep_reconstruction=false",
    "caption.max_new_tokens=2",
    "train.epochs=2",
    "train.batch_size=8",
    "train.micro_batch_size=4",
    "train.checkpoint_steps=1",
    "train.workers=0",
    "train.augment.flip=0",
]
DOUBLE = (0, "none", 0, 0, "self")


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory, standin_models: Path) -> Launch:
    """All before the training; the maps' shards do not hold the sources."""
    folder = tmp_path_factory.mktemp("ready")
    root = genimage_tree(folder / "tree", per_cell=20, subsets=["sdv1.4"])
    settings = [*standin_overrides(standin_models), *SMALL]
    pipeline = Pipeline(load_settings(STANDIN, settings), str(folder / "manifests"), str(folder / "work"))
    shards = pipeline.index(root, shard_size=20).select(["train", "val"])["shard"].to_list()
    assert pipeline.captions(shards).complete
    assert pipeline.reconstructions(shards).complete
    return Launch(settings, pipeline.manifests, Path(pipeline.work))


def beside(ready: Launch, work: Path) -> tuple[Launch, Pipeline]:
    """The same with a work folder of its own."""
    shutil.copytree(ready.work, work)
    launch = Launch(ready.settings, ready.manifests, work)
    return launch, Pipeline(load_settings(STANDIN, launch.settings), launch.manifests, str(work))


def seen(pipeline: Pipeline) -> list[list[str]]:
    """The paths of the training images that each epoch takes."""
    part, _ = pipeline.graph.training_data(read_index(pipeline.manifests, "tree"))
    plan, paths = pipeline.settings.train, part._table["path"].to_pylist()
    steps = len(part) // plan.batch_size
    return [
        [
            paths[key.position]
            for batch in MicroBatches(part.shards, plan, plan.seed, range(e * steps, (e + 1) * steps), 4, 0, 1)
            for key in batch
        ]
        for e in range(plan.epochs)
    ]


def hide(pipeline: Pipeline, count: int) -> list[Path]:
    """Set aside the files of some images that both epochs take."""
    index = read_index(pipeline.manifests, "tree")
    first, second = seen(pipeline)
    common = [path for path in first if path in set(second)]
    files = [Path(index.about["root"]) / path for path in common[:count]]
    for file in files:
        file.rename(file.with_suffix(".away"))
    return files


def bring_back(files: list[Path]) -> None:
    for file in files:
        file.with_suffix(".away").rename(file)


def last_of(work: str | Path) -> tuple[Folder, Checkpoint]:
    (folder,) = [folder for folder in folders(str(work)) if folder.stage == "detectors"]
    last = read_checkpoint(folder.store, "last")
    assert last is not None
    return folder, last


def losses(folder: Folder) -> dict[int, float]:
    found: dict[int, float] = {}
    for path in sorted(Path(folder.store.url).rglob("events.out.tfevents.*"), key=lambda path: path.stat().st_mtime):
        events = EventAccumulator(str(path), {"scalars": 0}).Reload()
        if "train/loss" in events.Tags()["scalars"]:
            found |= {event.step: event.value for event in events.Scalars("train/loss")}
    return found


def test_an_image_that_is_gone_is_left_out_told_and_counted_and_a_resumed_run_is_the_same(
    ready: Launch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, whole = beside(ready, tmp_path / "whole")
    whole.detector()
    _, alone = beside(ready, tmp_path / "alone")
    [gone] = hide(alone, 1)
    try:
        capsys.readouterr()
        alone.detector()
        told = capsys.readouterr().out
        _, resumed = beside(ready, tmp_path / "resumed")
        assert finish(resumed, "detector", ("checkpoint-named",), hit=2) == -9
        folder, cut = last_of(resumed.work)
        assert not cut.finished
        assert cut.loss_sum == pytest.approx(sum(losses(folder).values()), rel=1e-5)
        assert finish(resumed, "detector") == 0
    finally:
        bring_back([gone])
    assert f"left out {gone.relative_to(read_index(alone.manifests, 'tree').about['root'])}" in told
    assert "is gone" in told
    _, last = last_of(alone.work)
    assert [entry["unreadable"] for entry in last.history] == [1, 1]
    assert [entry["unreadable"] for entry in last_of(whole.work)[1].history] == [0, 0]
    assert last.sha256 != last_of(whole.work)[1].sha256
    after = last_of(resumed.work)[1]
    assert (after.sha256, after.history) == (last.sha256, last.history)


def test_a_killed_run_under_clipping_and_warm_up_ends_as_an_undisturbed_one(ready: Launch, tmp_path: Path) -> None:
    """Killed in the middle of both."""
    extra = ["train.max_grad_norm=0.1", "train.warmup_steps=5", "train.tf32=true"]
    pipelines = []
    for name in ("alone", "killed"):
        launch, _ = beside(ready, tmp_path / name)
        settings = load_settings(STANDIN, [*launch.settings, *extra])
        pipelines.append(Pipeline(settings, launch.manifests, str(launch.work)))
    alone, killed = pipelines
    assert finish(alone, "detector") == 0
    assert finish(killed, "detector", ("checkpoint-named",), hit=2) == -9
    assert last_of(killed.work)[1].step == 2
    assert finish(killed, "detector") == 0
    ours, theirs = last_of(killed.work)[1], last_of(alone.work)[1]
    assert theirs.finished
    assert (ours.sha256, ours.history) == (theirs.sha256, theirs.history)


def test_the_training_loss_of_an_epoch_is_the_mean_over_its_steps(ready: Launch, tmp_path: Path) -> None:
    _, pipeline = beside(ready, tmp_path / "work")
    folder = pipeline.detector()
    found = losses(folder)
    steps = len(found) // 2
    assert steps > 2
    history = last_of(pipeline.work)[1].history
    for entry, start in zip(history, (0, steps), strict=True):
        assert entry["train_loss"] == pytest.approx(np.mean([found[start + n + 1] for n in range(steps)]), rel=1e-5)


def test_many_images_that_are_gone_stop_the_training(ready: Launch, tmp_path: Path) -> None:
    _, pipeline = beside(ready, tmp_path / "work")
    gone = hide(pipeline, 3)
    try:
        with pytest.raises(StageError, match=r"3 of \d+ images could not be read.*Bring the files back"):
            pipeline.detector()
    finally:
        bring_back(gone)
    pipeline.detector()
    assert last_of(pipeline.work)[1].finished


def test_a_passing_fault_is_tried_again(ready: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sare_core.detectors import parts
    from sare_core.training import samples

    _, pipeline = beside(ready, tmp_path / "work")
    part, _ = pipeline.graph.training_data(read_index(pipeline.manifests, "tree"))
    read, faults = parts.read_source, [TransientError("busy"), TransientError("busy")]

    def busy(root: str, row: dict[str, Any]) -> bytes:
        if faults:
            raise faults.pop()
        return read(root, row)

    monkeypatch.setattr(parts, "read_source", busy)
    item = part[samples.SampleKey(0, 0)]
    assert not isinstance(item, samples.Unreadable)
    assert not faults


def test_an_image_that_is_gone_is_left_out_alike_by_any_number_of_processes(ready: Launch, tmp_path: Path) -> None:
    first, pipeline = beside(ready, tmp_path / "alone" / "work")
    second, _ = beside(ready, tmp_path / "two" / "work")
    gone = hide(pipeline, 1)
    try:
        for launch, processes in ((first, 1), (second, 2)):
            ranks = launch.forked("train", processes, changed=DOUBLE)
            said = " ".join(rank.stdout for rank in ranks)
            assert {rank.returncode for rank in ranks} == {0}, ranks
            assert "left out" in said
            assert "best epoch 1," in said or "best epoch 2," in said
    finally:
        bring_back(gone)
    ours, theirs = (last_of(launch.work)[1].history for launch in (second, first))
    assert [entry["unreadable"] for entry in ours] == [1, 1]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine["train_loss"] == pytest.approx(other["train_loss"], rel=1e-6)
