"""Stages as Slurm jobs: an array a stage, a task a range of shards, one GPU a task. Only what is not done is submitted.

    sare submit all --dataset genimage --preset paper --work /scratch/sare
    sare submit reconstruct --dataset genimage --preset paper --gpus 64 --shards-per-task 20 \\
        --slurm partition=preemptible --slurm time=240
    sare submit all --dataset forensynths --trained-on genimage --preset paper --work /scratch/sare --dry-run
    sare submit all --dataset photos --detector /shared/my-detector --work /scratch/sare

A task runs the stage's own function. When Slurm takes its node away, or its time is over, it gives up the shard in hand
and is queued again; records say where it goes on (docs/cluster.md).
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from sare_core.engine.folders import COMMANDS, check_run_name
from sare_core.engine.manifest import read_index
from sare_core.engine.slurm import Slurm
from sare_core.engine.terminal import console
from sare_core.errors import ConfigError
from sare_core.graph import run_settings
from sare_core.store.storage import Store
from sare_core.submission import Submission, print_dry_run, queue, tasks_of
from stages.options import Dataset, Detector, Manifests, OtherPreset, RunName, Set, Shard, TrainedOn, View, Work

STAGES = tuple(COMMANDS.values())


def submit(
    stage: Annotated[str, typer.Argument(help=f"{', '.join(STAGES)}, or all.")],
    dataset: Dataset,
    preset: OtherPreset = None,
    set_: Set = None,
    work: Work = "work",
    manifests: Manifests = "manifests",
    gpus: Annotated[int, typer.Option("--gpus", min=1, help="Tasks of a stage that run at a time.")] = 64,
    shards_per_task: Annotated[int, typer.Option("--shards-per-task", min=1, help="Shards that a task does.")] = 20,
    shard: Shard = None,
    trained_on: TrainedOn = None,
    detector: Detector = None,
    view: View = None,
    run_name: RunName = None,
    slurm: Annotated[
        list[str] | None, typer.Option("--slurm", help="An option of sbatch, e.g. partition=gpu or time=240 (minutes).")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be submitted, and submit nothing.")
    ] = False,
) -> None:
    """Submit a stage, or all, as Slurm arrays: only what is not done, each task a range of shards on one GPU."""
    stage = "caption" if stage == "captions" else stage
    if stage not in (*STAGES, "all"):
        raise ConfigError(f"sare submit {stage}: one of {', '.join(STAGES)}, or all.")
    if shard is not None and stage in ("train", "all"):
        raise ConfigError(f"sare submit {stage} --shard {shard}: --shard goes with caption, reconstruct or evaluate.")
    if trained_on is not None and stage not in ("evaluate", "all"):
        raise ConfigError(f"sare submit {stage} --trained-on {trained_on}: --trained-on goes with evaluate or all.")
    if stage == "train" and (detector or view):
        raise ConfigError("sare submit train: --detector and --view go with the other stages.")
    if odd := [option for option in slurm or [] if not option.partition("=")[2]]:
        raise ConfigError(f"--slurm {odd[0]}: write key=value, e.g. partition=gpu.")
    options = {key: value for key, _, value in (option.partition("=") for option in slurm or [])}
    index = read_index(manifests, dataset)
    trained_on = trained_on if trained_on != dataset else None
    source = read_index(manifests, trained_on) if trained_on else None
    settings = run_settings(source or index, preset, set_, detector, view, work)
    left = Submission(settings, index, work, preset or "mini", shards_per_task, source, detector)
    steps, waiting = (left.steps_of_all(), []) if stage == "all" else left.steps_of_one(stage, shard)
    arguments: dict[str, Any] = {"dataset": dataset, "preset": preset if detector else preset or "mini", "set_": set_}
    arguments |= {"work": work, "manifests": manifests}
    more = {"detector": detector, "view": view, "run_name": run_name and check_run_name(run_name)}
    arguments |= {key: value for key, value in more.items() if value is not None}
    tasks = {step.stage: tasks_of(step, arguments, trained_on) for step in steps}
    without_detector = stage == "all" and not left.given and not left.trains()
    if steps and dry_run:
        print_dry_run(steps, tasks, options, gpus)
    elif steps:
        folder = Path(work if Store(work).on_disk else ".").absolute() / "slurm"
        console.print(queue(steps, tasks, Slurm(folder, options, gpus)))
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
