"""What is left to do of a dataset, as tasks of a cluster: only what is not done, behind what it waits for."""

import json
import shlex
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple

import typer
from rich.table import Table

from sare_core.config import Settings
from sare_core.detectors import detector_class
from sare_core.detectors.folder import open_detector, trained
from sare_core.detectors.parts import map_role
from sare_core.engine.folders import Folder
from sare_core.engine.manifest import Index
from sare_core.engine.selection import chosen_shards, ranges_text
from sare_core.engine.signals import abandon, signals_of_the_launcher
from sare_core.engine.slurm import Slurm, answers, job_options
from sare_core.engine.terminal import console
from sare_core.errors import ConfigError, StageError
from sare_core.graph import ALL_SPLITS, Graph

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
                getattr(import_module(f"stages.{self.stage}"), self.stage)(**self.arguments)
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


def steps_of_all(
    settings: Settings,
    index: Index,
    work: str,
    preset: str,
    per_task: int,
    source: Index | None = None,
    detector: str | None = None,
) -> list[Step]:
    """What is to be done of the four stages; captions and reconstructions in the same ranges.

    source: the dataset whose detector is used; detector: the path, URL or fingerprint of one. With either nothing is
    trained, and of this dataset the test split is worked on.
    """
    given = source is not None or detector is not None
    graph = Graph(settings, index.about["dataset"], work)
    splits = ["test"] if given else list(ALL_SPLITS)
    shards = chosen_shards(index, splits, settings.train_subsets, None)
    _refuse_missing_maps(graph, index, shards)
    maps = graph.maps.get("reconstructions")  # None: the detector reads images alone
    captions = maps.upstream.get("captions") if maps else None  # None: the method reads none
    uncaptioned, _ = open_shards(captions, index, shards) if captions else ([], [])
    ready, waiting = open_shards(maps, index, shards) if maps else ([], [])
    ranges = _ranges(sorted({*uncaptioned, *ready, *waiting}), per_task)
    steps = [Step("caption", ranges)] if uncaptioned else []
    steps += [Step("reconstruct", ranges)] if ranges else []
    if not given and not trains(settings, index):
        return steps
    untrained = not given and (bool(ranges) or _untrained(settings, index, work))
    steps += [Step("train", [None])] if untrained else []
    if given or chosen_shards(index, ["test"], settings.train_subsets, None):
        unpredicted = graph.tested_shards(index)
        if not untrained:
            ready, waiting = _unpredicted(settings, index, source or index, work, preset, detector)
            unpredicted = sorted([*ready, *waiting])  # its reconstructions are submitted with it
        steps += [Step("evaluate", _ranges(unpredicted, per_task))]
    return [step for step in steps if step.ranges]


def _refuse_missing_maps(graph: Graph, index: Index, shards: list[int]) -> None:
    """Raises ConfigError: the detector reads further maps, of other settings, which are not done."""
    kind = detector_class(graph.settings.detector.detector)
    for name, changes in kind.maps.items():
        if changes and any(open_shards(graph.maps[map_role(name)], index, shards)):
            sets = " ".join(f"--set {key}={json.dumps(value)}" for key, value in changes.items())
            raise ConfigError(
                f"The detector {graph.settings.detector.detector} also reads maps that are not all done. Run first, "
                f"with the same other arguments: sare submit caption {sets}, then sare submit reconstruct {sets}."
            )


def steps_of_one(
    stage: str,
    settings: Settings,
    index: Index,
    work: str,
    preset: str,
    per_task: int,
    source: Index | None = None,
    wanted: str | None = None,
    detector: str | None = None,
) -> tuple[list[Step], list[int]]:
    """What is to be done of one stage now, and the shards that wait for the stage before. wanted: as --shard has it."""
    if stage == "train":
        return [Step("train", [None])] if _untrained(settings, index, work) else [], []
    if stage == "evaluate":
        ready, waiting = _unpredicted(settings, index, source or index, work, preset, detector, wanted)
    else:
        graph = Graph(settings, index.about["dataset"], work)
        shards = chosen_shards(index, ALL_SPLITS, settings.train_subsets, wanted)
        ready, waiting = open_shards(graph.captions if stage == "caption" else graph.reconstructions, index, shards)
    return [Step(stage, _ranges(ready, per_task))] if ready else [], waiting


def trains(settings: Settings, index: Index) -> bool:
    """Whether a dataset has images to train a detector on."""
    subsets = settings.train_subsets
    return not index.select(["train"], None if subsets is None else list(subsets)).is_empty()


def _untrained(settings: Settings, index: Index, work: str) -> bool:
    return trained(Graph(settings, index.about["dataset"], work).detector_of(index)) is None


def _unpredicted(
    settings: Settings,
    index: Index,
    source: Index,
    work: str,
    preset: str,
    detector: str | None,
    wanted: str | None = None,
) -> tuple[list[int], list[int]]:
    graph = Graph(settings, index.about["dataset"], work)
    shards = graph.tested_shards(index, wanted)
    if detector is not None:
        found = open_detector(detector, work)
    else:
        found = Graph(settings, source.about["dataset"], work).trained_detector(source, preset)
    folder = graph.predictions(found.best)
    ready, waiting = open_shards(folder, index, shards)
    # All predicted but no tables: whoever did the last shard was killed before it wrote them.
    complete = bool(ready or waiting or wanted) or folder.store.exists("tables.md")
    return ready if complete else shards[-1:], waiting


def tasks_of(step: Step, arguments: dict[str, Any], trained_on: str | None) -> list[Task]:
    if step.stage == "evaluate" and trained_on:
        arguments = arguments | {"trained_on": trained_on}
    return [
        Task(step.stage, arguments if shards is None else arguments | {"shard": ",".join(map(str, shards))})
        for shards in step.ranges
    ]


def queue(steps: list[Step], tasks: dict[str, list[Task]], cluster: Slurm | None) -> Table:
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


def print_dry_run(steps: list[Step], tasks: dict[str, list[Task]], options: dict[str, str], gpus: int) -> None:
    on_cluster = answers()
    asked = job_options(options, ask=on_cluster)
    asked |= asked.pop("additional_parameters")
    words = [f"{key}={one}" for key, value in asked.items() for one in (value if isinstance(value, list) else [value])]
    console.print(queue(steps, tasks, None))
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
