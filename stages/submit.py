"""Stages as Slurm jobs: an array a stage, a task a range of shards, one GPU a task. Only what is not done is submitted.

    sare submit all --dataset genimage --preset paper --work /scratch/sare
    sare submit reconstruct --dataset genimage --preset paper --gpus 64 --shards-per-task 20 \\
        --slurm partition=preemptible --slurm time=240

A task runs the stage's own function. When Slurm takes its node away, or its time is over, it gives up the shard in hand
and is queued again; records say where it goes on (docs/cluster.md).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from rich.table import Table

from sare_core.checkpoints import read_checkpoint
from sare_core.cluster import Slurm
from sare_core.config import Settings, load_settings
from sare_core.errors import ConfigError, StageError
from sare_core.manifest import Index, read_index
from sare_core.records import Folder
from sare_core.signals import abandon, signals_of_the_launcher
from sare_core.storage import Store
from stages import caption, evaluate, reconstruct, train
from stages.options import Dataset, Manifests, Preset, Set, Work, chosen_shards, console

STAGES: dict[str, Any] = {
    "caption": caption.caption,
    "reconstruct": reconstruct.reconstruct,
    "train": train.train,
    "evaluate": evaluate.evaluate,
}
_OTHER_NAMES = {"captions": "caption"}


@dataclass
class Task:
    """What one node does: a stage's function with its arguments. Pickled by submitit."""

    stage: str
    arguments: dict[str, Any]

    def __call__(self) -> None:
        with signals_of_the_launcher():
            try:
                STAGES[self.stage](**self.arguments)
            except typer.Exit as end:
                # Only an exception makes the Slurm task fail, and keeps those from starting that wait for it.
                if end.exit_code:
                    raise StageError(f"{self.stage}: not all is done; the reason stands above.") from None

    def checkpoint(self) -> Any:
        """Called by submitit in its signal handler: drop the shard in hand, then be queued again as it is."""
        from submitit.helpers import DelayedSubmission

        abandon()
        return DelayedSubmission(self)


class Step(NamedTuple):
    """One stage to submit. ranges: the shards of each task; None for the one task of a stage that is not sharded."""

    stage: str
    ranges: list[list[int] | None]


def open_shards(folder: Folder, index: Index, shards: list[int]) -> tuple[list[int], list[int]]:
    """Those of the shards that are not done and can be, and those that wait for the stage before."""
    states = folder.states({shard: index.digests[shard] for shard in shards})
    left = [shard for shard, state in states.items() if state.kind != "done"]
    return [s for s in left if not states[s].waiting], [s for s in left if states[s].waiting]


def _ranges(shards: list[int], per_task: int) -> list[list[int] | None]:
    return [shards[start : start + per_task] for start in range(0, len(shards), per_task)]


def steps_of_all(settings: Settings, index: Index, work: str, preset: str, per_task: int) -> list[Step]:
    """What is to be done of the four stages; captions and reconstructions in the same ranges."""
    dataset = index.about["dataset"]
    shards = chosen_shards(index, ["train", "val", "test"], settings.train_subsets, None)
    uncaptioned, _ = open_shards(caption.folder_of(settings, dataset, work), index, shards)
    ready, waiting = open_shards(reconstruct.folder_of(settings, dataset, work), index, shards)
    ranges = _ranges(sorted({*uncaptioned, *ready, *waiting}), per_task)
    steps = [Step("caption", ranges)] if uncaptioned else []
    steps += [Step("reconstruct", ranges)] if ranges else []
    if not chosen_shards(index, ["train"], settings.train_subsets, None):
        return steps
    untrained = bool(ranges) or _untrained(settings, index, work)
    steps += [Step("train", [None])] if untrained else []
    if chosen_shards(index, ["test"], settings.train_subsets, None):
        steps += [Step("evaluate", _ranges(_unpredicted(settings, index, work, preset, untrained)[0], per_task))]
    return [step for step in steps if step.ranges]


def steps_of_one(
    stage: str, settings: Settings, index: Index, work: str, preset: str, per_task: int
) -> tuple[list[Step], list[int]]:
    """What is to be done of one stage now, and the shards that wait for the stage before."""
    if stage == "train":
        return [Step("train", [None])] if _untrained(settings, index, work) else [], []
    if stage == "evaluate":
        ready, waiting = _unpredicted(settings, index, work, preset, untrained=False)
    else:
        module: Any = caption if stage == "caption" else reconstruct
        shards = chosen_shards(index, ["train", "val", "test"], settings.train_subsets, None)
        ready, waiting = open_shards(module.folder_of(settings, index.about["dataset"], work), index, shards)
    return [Step(stage, _ranges(ready, per_task))] if ready else [], waiting


def _untrained(settings: Settings, index: Index, work: str) -> bool:
    store = train.detector_folder(settings, index, work).store
    last = read_checkpoint(store, "last")
    return last is None or not last.finished or read_checkpoint(store, "best") is None


def _unpredicted(
    settings: Settings, index: Index, work: str, preset: str, untrained: bool
) -> tuple[list[int], list[int]]:
    shards = evaluate.tested_shards(settings, index)
    if untrained:
        return shards, []
    _, best = evaluate.trained_detector(settings, index, work, preset)
    folder = evaluate.folder_of(settings, index.about["dataset"], work, best)
    ready, waiting = open_shards(folder, index, shards)
    # All predicted but no tables: whoever did the last shard was killed before it wrote them.
    return ready if ready or waiting or folder.store.exists("tables.md") else shards[-1:], waiting


def submit(
    stage: Annotated[str, typer.Argument(help=f"{', '.join(STAGES)}, or all.")],
    dataset: Dataset,
    preset: Preset = "mini",
    set_: Set = None,
    work: Work = "work",
    manifests: Manifests = "manifests",
    gpus: Annotated[int, typer.Option("--gpus", min=1, help="Tasks of a stage that run at a time.")] = 64,
    shards_per_task: Annotated[int, typer.Option("--shards-per-task", min=1, help="Shards that a task does.")] = 20,
    slurm: Annotated[
        list[str] | None, typer.Option("--slurm", help="An option of sbatch, e.g. partition=gpu or time=240 (minutes).")
    ] = None,
) -> None:
    """Submit a stage, or all, as Slurm arrays: only what is not done, each task a range of shards on one GPU."""
    stage = _OTHER_NAMES.get(stage, stage)
    if stage not in (*STAGES, "all"):
        raise ConfigError(f"sare submit {stage}: one of {', '.join(STAGES)}, or all.")
    if odd := [option for option in slurm or [] if not option.partition("=")[2]]:
        raise ConfigError(f"--slurm {odd[0]}: write key=value, e.g. partition=gpu.")
    options = {key: value for key, _, value in (option.partition("=") for option in slurm or [])}
    index = read_index(manifests, dataset)
    settings = load_settings(preset, set_, index.about["layout"])
    waiting: list[int] = []
    if stage == "all":
        steps = steps_of_all(settings, index, work, preset, shards_per_task)
    else:
        steps, waiting = steps_of_one(stage, settings, index, work, preset, shards_per_task)
    if steps:
        arguments = {"dataset": dataset, "preset": preset, "set_": set_, "work": work, "manifests": manifests}
        store = Store(work)
        folder = Path(work if store.on_disk else ".").absolute() / "slurm"
        console.print(_submit(steps, arguments, Slurm(folder, options, gpus)))
        console.print(f"follow: sare status --work {work} --manifests {manifests}", soft_wrap=True)
        console.print(f"logs:   {folder}/<job>_*_log.out and .err", soft_wrap=True)
    elif not waiting:
        console.print(f"{stage}: all is done, nothing was submitted.")
    if waiting:
        console.print(
            f"{stage}: {len(waiting)} shards wait for the stage before, and were not submitted. "
            "sare submit all submits both.",
            soft_wrap=True,
        )
        raise typer.Exit(1)


def _submit(steps: list[Step], arguments: dict[str, Any], cluster: Slurm) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("stage", "tasks", "shards", "job", "waits for"):
        table.add_column(column)
    jobs: dict[str, list[str]] = {}
    with cluster.all_or_nothing():
        for stage, ranges in steps:
            tasks = [
                Task(stage, arguments if shards is None else arguments | {"shard": ",".join(map(str, shards))})
                for shards in ranges
            ]
            each = jobs.get("caption", []) if stage == "reconstruct" else []
            before = {"train": "reconstruct", "evaluate": "train"}.get(stage, "")
            after = jobs.get(before, [])
            jobs[stage] = cluster.submit(f"{stage}-{arguments['dataset']}", tasks, each, after)
            waits = f"caption {', '.join(each)}, task by task" if each else f"{before} {', '.join(after)}, all of it"
            shards = sum(len(shards) for shards in ranges if shards)
            table.add_row(
                stage, str(len(tasks)), str(shards or "–"), ", ".join(jobs[stage]), waits if each or after else "–"
            )
    return table
