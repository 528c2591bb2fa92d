"""What is left to do of a dataset, as steps that a cluster can be given: only what is not done."""

from typing import NamedTuple

from sare_core.config import Settings
from sare_core.detectors.folder import trained
from sare_core.engine.folders import Folder
from sare_core.engine.manifest import Index
from sare_core.engine.selection import chosen_shards
from sare_core.graph import ALL_SPLITS, Graph


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
    settings: Settings, index: Index, work: str, preset: str, per_task: int, source: Index | None = None
) -> list[Step]:
    """What is to be done of the four stages; captions and reconstructions in the same ranges.

    source: the dataset whose detector is used. Then nothing is trained, and of this one the test split is worked on.
    """
    graph = Graph(settings, index.about["dataset"], work)
    splits = ["test"] if source else list(ALL_SPLITS)
    shards = chosen_shards(index, splits, settings.train_subsets, None)
    uncaptioned, _ = open_shards(graph.captions, index, shards)
    ready, waiting = open_shards(graph.reconstructions, index, shards)
    ranges = _ranges(sorted({*uncaptioned, *ready, *waiting}), per_task)
    steps = [Step("caption", ranges)] if uncaptioned else []
    steps += [Step("reconstruct", ranges)] if ranges else []
    if not source and not trains(settings, index):
        return steps
    untrained = not source and (bool(ranges) or _untrained(settings, index, work))
    steps += [Step("train", [None])] if untrained else []
    if source or chosen_shards(index, ["test"], settings.train_subsets, None):
        unpredicted = graph.tested_shards(index)
        if not untrained:
            ready, waiting = _unpredicted(settings, index, source or index, work, preset)
            unpredicted = sorted([*ready, *waiting])  # its reconstructions are submitted with it
        steps += [Step("evaluate", _ranges(unpredicted, per_task))]
    return [step for step in steps if step.ranges]


def steps_of_one(
    stage: str,
    settings: Settings,
    index: Index,
    work: str,
    preset: str,
    per_task: int,
    source: Index | None = None,
    wanted: str | None = None,
) -> tuple[list[Step], list[int]]:
    """What is to be done of one stage now, and the shards that wait for the stage before. wanted: as --shard has it."""
    if stage == "train":
        return [Step("train", [None])] if _untrained(settings, index, work) else [], []
    if stage == "evaluate":
        ready, waiting = _unpredicted(settings, index, source or index, work, preset, wanted)
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
    settings: Settings, index: Index, source: Index, work: str, preset: str, wanted: str | None = None
) -> tuple[list[int], list[int]]:
    graph = Graph(settings, index.about["dataset"], work)
    shards = graph.tested_shards(index, wanted)
    folder = graph.predictions(Graph(settings, source.about["dataset"], work).trained_detector(source, preset).best)
    ready, waiting = open_shards(folder, index, shards)
    # All predicted but no tables: whoever did the last shard was killed before it wrote them.
    complete = bool(ready or waiting or wanted) or folder.store.exists("tables.md")
    return ready if complete else shards[-1:], waiting
