"""Stages as Slurm jobs: an array a stage, a task a range of shards, one GPU a task. Only what is not done is submitted.

    sare submit all --dataset genimage --preset paper --work /scratch/sare
    sare submit reconstruct --dataset genimage --preset paper --gpus 64 --shards-per-task 20 \\
        --slurm partition=preemptible --slurm time=240
    sare submit all --dataset forensynths --trained-on genimage --preset paper --work /scratch/sare --dry-run

A task runs the stage's own function. When Slurm takes its node away, or its time is over, it gives up the shard in hand
and is queued again; records say where it goes on (docs/cluster.md).
"""

import shlex
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from sare_core.config import load_settings
from sare_core.engine.folders import check_run_name
from sare_core.engine.manifest import read_index
from sare_core.engine.selection import ranges_text
from sare_core.engine.signals import abandon, signals_of_the_launcher
from sare_core.engine.slurm import Slurm, answers, job_options
from sare_core.errors import ConfigError, StageError
from sare_core.open_work import Step, steps_of_all, steps_of_one, trains
from sare_core.store.storage import Store
from stages import caption, evaluate, reconstruct, train
from stages.options import Dataset, Manifests, Preset, RunName, Set, Shard, TrainedOn, Work, console

STAGES: dict[str, Any] = {
    "caption": caption.caption,
    "reconstruct": reconstruct.reconstruct,
    "train": train.train,
    "evaluate": evaluate.evaluate,
}
_OTHER_NAMES = {"captions": "caption"}
# What a stage waits for: the first of these that is submitted with it.
_BEFORE = {"reconstruct": ["caption"], "train": ["reconstruct"], "evaluate": ["train", "reconstruct"]}


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

    def command(self) -> str:
        """The same as a command line."""
        words = ["sare", self.stage]
        for key, value in self.arguments.items():
            if key == "shard":
                value = ranges_text([int(shard) for shard in value.split(",")])
            values = value if isinstance(value, list) else [value] if value is not None else []
            option = "--run" if key == "run_name" else f"--{key.strip('_').replace('_', '-')}"
            words += [word for one in values for word in (option, one)]
        return shlex.join(words)

    def checkpoint(self) -> Any:
        """Called by submitit in its signal handler: drop the shard in hand, then be queued again as it is."""
        from submitit.helpers import DelayedSubmission

        abandon()
        return DelayedSubmission(self)


def submit(
    stage: Annotated[str, typer.Argument(help=f"{', '.join(STAGES)}, or all.")],
    dataset: Dataset,
    preset: Preset = "mini",
    set_: Set = None,
    work: Work = "work",
    manifests: Manifests = "manifests",
    gpus: Annotated[int, typer.Option("--gpus", min=1, help="Tasks of a stage that run at a time.")] = 64,
    shards_per_task: Annotated[int, typer.Option("--shards-per-task", min=1, help="Shards that a task does.")] = 20,
    shard: Shard = None,
    trained_on: TrainedOn = None,
    run_name: RunName = None,
    slurm: Annotated[
        list[str] | None, typer.Option("--slurm", help="An option of sbatch, e.g. partition=gpu or time=240 (minutes).")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be submitted, and submit nothing.")
    ] = False,
) -> None:
    """Submit a stage, or all, as Slurm arrays: only what is not done, each task a range of shards on one GPU."""
    stage = _OTHER_NAMES.get(stage, stage)
    if stage not in (*STAGES, "all"):
        raise ConfigError(f"sare submit {stage}: one of {', '.join(STAGES)}, or all.")
    if shard is not None and stage in ("train", "all"):
        raise ConfigError(f"sare submit {stage} --shard {shard}: --shard goes with caption, reconstruct or evaluate.")
    if trained_on is not None and stage not in ("evaluate", "all"):
        raise ConfigError(f"sare submit {stage} --trained-on {trained_on}: --trained-on goes with evaluate or all.")
    if odd := [option for option in slurm or [] if not option.partition("=")[2]]:
        raise ConfigError(f"--slurm {odd[0]}: write key=value, e.g. partition=gpu.")
    options = {key: value for key, _, value in (option.partition("=") for option in slurm or [])}
    index = read_index(manifests, dataset)
    trained_on = trained_on if trained_on != dataset else None
    source = read_index(manifests, trained_on) if trained_on else None
    settings = load_settings(preset, set_, (source or index).about["layout"])
    waiting: list[int] = []
    if stage == "all":
        steps = steps_of_all(settings, index, work, preset, shards_per_task, source)
    else:
        steps, waiting = steps_of_one(stage, settings, index, work, preset, shards_per_task, source, shard)
    arguments = {"dataset": dataset, "preset": preset, "set_": set_, "work": work, "manifests": manifests}
    arguments |= {"run_name": check_run_name(run_name)} if run_name is not None else {}
    tasks = {step.stage: _tasks(step, arguments, trained_on) for step in steps}
    without_detector = stage == "all" and source is None and not trains(settings, index)
    if steps and dry_run:
        _print_dry_run(steps, tasks, options, gpus)
    elif steps:
        folder = Path(work if Store(work).on_disk else ".").absolute() / "slurm"
        console.print(_submit(steps, tasks, Slurm(folder, options, gpus)))
        console.print(f"follow: sare status --work {work} --manifests {manifests}", soft_wrap=True)
        console.print(f"logs:   {folder}/<job>_*_log.out and .err", soft_wrap=True)
    elif not waiting:
        done = "captions and reconstructions are" if without_detector else "all is"
        console.print(f"{stage}: {done} done, nothing was submitted.")
    if waiting:
        console.print(
            f"{stage}: {len(waiting)} shards wait for the stage before, and were not submitted. "
            "sare submit all submits both.",
            soft_wrap=True,
        )
    if without_detector:
        subsets = f" (train_subsets: {', '.join(settings.train_subsets)})" if settings.train_subsets else ""
        console.print(
            f"{dataset} has no images to train on{subsets}, so no detector is trained and nothing is predicted. "
            f"To use the detector of another dataset: sare submit all --dataset {dataset} --trained-on NAME",
            soft_wrap=True,
            markup=False,
        )
    if waiting or without_detector:
        raise typer.Exit(1)


def _tasks(step: Step, arguments: dict[str, Any], trained_on: str | None) -> list[Task]:
    if step.stage == "evaluate" and trained_on:
        arguments = arguments | {"trained_on": trained_on}
    return [
        Task(step.stage, arguments if shards is None else arguments | {"shard": ",".join(map(str, shards))})
        for shards in step.ranges
    ]


def _submit(steps: list[Step], tasks: dict[str, list[Task]], cluster: Slurm | None) -> Table:
    """Queue the steps, each behind the one that it waits for, and say so in a table; without a cluster only say so."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("stage", "tasks", "shards", "job", "waits for"):
        table.add_column(column)
    jobs: dict[str, list[str]] = {}
    with cluster.all_or_nothing() if cluster else nullcontext():
        for stage, ranges in steps:
            before = next((name for name in _BEFORE.get(stage, []) if name in jobs), "")
            after, jobs[stage] = jobs.get(before, []), []
            each, all_of, how = (after, [], "task by task") if stage == "reconstruct" else ([], after, "all of it")
            if cluster:
                name = f"{stage}-{tasks[stage][0].arguments['dataset']}"
                jobs[stage] = cluster.submit(name, tasks[stage], each, all_of)
            waits = f"{before} {', '.join(after)}".strip() + f", {how}" if before else "–"
            shards = sum(len(shards) for shards in ranges if shards)
            table.add_row(stage, str(len(ranges)), str(shards or "–"), ", ".join(jobs[stage]) or "–", waits)
    return table


def _print_dry_run(steps: list[Step], tasks: dict[str, list[Task]], options: dict[str, str], gpus: int) -> None:
    on_cluster = answers()
    asked = job_options(options, ask=on_cluster)
    asked |= asked.pop("additional_parameters")
    words = [f"{key}={one}" for key, value in asked.items() for one in (value if isinstance(value, list) else [value])]
    console.print(_submit(steps, tasks, None))
    console.print(f"options of each task: {shlex.join(words)}", soft_wrap=True)
    if not on_cluster:
        console.print(
            "No Slurm answers here. Where its nodes have GPUs, a task also asks for one (gpus_per_node=1).",
            soft_wrap=True,
        )
    for stage, of_stage in tasks.items():
        console.print(f"{stage}, at most {gpus} tasks at a time:")
        for task in of_stage:
            console.print(f"  {task.command()}", soft_wrap=True)
    console.print("dry run: nothing was submitted.")
