"""What is left to do of a dataset, as tasks of a cluster: only what is not done, behind what it waits for."""

import shlex
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from itertools import chain
from typing import Any, NamedTuple

import typer
from rich.table import Table

from sare_core.config import Settings
from sare_core.detectors.folder import open_detector, trained
from sare_core.engine.flow import in_batches
from sare_core.engine.folders import Folder
from sare_core.engine.manifest import Index
from sare_core.engine.selection import ranges_text
from sare_core.engine.signals import abandon, signals_of_the_launcher
from sare_core.engine.slurm import Slurm, answers, job_options
from sare_core.engine.terminal import console
from sare_core.errors import StageError
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
    left = folder.undone(index, shards)
    return [s for s, state in left.items() if not state.waiting], [s for s, state in left.items() if state.waiting]


@dataclass(frozen=True)
class Submission:
    """What is left to do of a dataset, in tasks of `per_task` shards.

    source: the dataset whose detector is used; detector: the path, URL or fingerprint of one. With either nothing is
    trained, and of this dataset the test split is worked on.
    """

    settings: Settings
    index: Index
    work: str
    preset: str
    per_task: int
    source: Index | None = None
    detector: str | None = None

    @cached_property
    def graph(self) -> Graph:
        return Graph(self.settings, self.index.about["dataset"], self.work)

    @property
    def given(self) -> bool:
        """Whether the detector is another dataset's, or somebody's."""
        return self.source is not None or self.detector is not None

    def trains(self) -> bool:
        """Whether the dataset has images to train a detector on."""
        subsets = self.settings.train_subsets
        return not self.index.select(["train"], None if subsets is None else list(subsets)).is_empty()

    def steps_of_all(self) -> list[Step]:
        """What is to be done of the four stages; captions and reconstructions in the same ranges."""
        graph, index = self.graph, self.index
        shards = graph.shards(index, ["test"] if self.given else ALL_SPLITS)
        maps = (graph.maps_to_score if self.given else graph.maps).values()  # none: it reads images alone
        captions = [folder.upstream["captions"] for folder in maps if "captions" in folder.upstream]
        uncaptioned = {shard for folder in captions for shard in open_shards(folder, index, shards)[0]}
        ranges = self._ranges(sorted(uncaptioned.union(*(folder.undone(index, shards) for folder in maps))))
        steps = [Step("caption", ranges)] if uncaptioned else []
        steps += [Step("reconstruct", ranges)] if ranges else []
        if not self.given and not self.trains():
            return steps
        untrained = not self.given and (bool(ranges) or self._untrained())
        steps += [Step("train", [None])] if untrained else []
        if self.given or graph.shards(index, ["test"]):
            # Their reconstructions are submitted with them.
            unpredicted = graph.tested_shards(index) if untrained else sorted(chain(*self._unpredicted()))
            steps += [Step("evaluate", self._ranges(unpredicted))]
        return [step for step in steps if step.ranges]

    def steps_of_one(self, stage: str, wanted: str | None = None) -> tuple[list[Step], list[int]]:
        """What is to be done of one stage now, and the shards that wait for the stage before.

        wanted: as --shard has it.
        """
        if stage == "train":
            return [Step("train", [None])] if self._untrained() else [], []
        if stage == "evaluate":
            ready, waiting = self._unpredicted(wanted)
        else:
            graph, shards = self.graph, self.graph.shards(self.index, wanted=wanted)
            stages: Any = graph.caption_stages if stage == "caption" else graph.reconstruct_stages
            parts = [open_shards(each.folder, self.index, shards) for each in stages(self.index)]
            ready, waiting = (sorted({*chain(*found)}) for found in zip(*parts, strict=True))
            waiting = [shard for shard in waiting if shard not in ready]
        return [Step(stage, self._ranges(ready))] if ready else [], waiting

    def _ranges(self, shards: list[int]) -> list[list[int] | None]:
        return [list(part) for part in in_batches(shards, self.per_task)]

    def _untrained(self) -> bool:
        return trained(self.graph.detector_of(self.index)) is None

    def _unpredicted(self, wanted: str | None = None) -> tuple[list[int], list[int]]:
        shards, source = self.graph.tested_shards(self.index, wanted), self.source or self.index
        if self.detector is not None:
            found = open_detector(self.detector, self.work)
        else:
            found = Graph(self.settings, source.about["dataset"], self.work).trained_detector(source, self.preset)
        folder = self.graph.predictions(found.best)
        ready, waiting = open_shards(folder, self.index, shards)
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
