"""What a stage has behind it and before it, from the records of its folder alone."""

from typing import NamedTuple

from sare_core.engine.checkpoints import Checkpoint
from sare_core.engine.folders import Folder
from sare_core.engine.manifest import Index

KINDS = ("done", "open", "failed", "stale")


class Progress(NamedTuple):
    """states: kind to (shards, images). todo: the shards that are not done. rate: images a second of one process,
    measured where `device` says; None without a finished shard."""

    states: dict[str, tuple[int, int]]
    todo: list[int]
    rate: float | None = None
    device: str = ""


def progress(folder: Folder | None, index: Index, shards: list[int]) -> Progress:
    """The states of some shards. Without a folder, where none can be named yet, all are open."""
    images = dict(zip(index.shards["shard"], index.shards["images"], strict=True))
    if folder is None:
        return Progress(_tally({"open": shards}, images), shards)
    states, entries = folder.states_and_entries({shard: index.digests[shard] for shard in shards})
    by_kind: dict[str, list[int]] = {}
    for shard, state in states.items():
        by_kind.setdefault(state.kind, []).append(shard)
    done = by_kind.get("done", [])
    todo = sorted(set(shards) - set(done))
    seconds = sum(entries[shard].seconds for shard in done)
    record = folder.record(done[0]) if done else None
    if not seconds or record is None:
        return Progress(_tally(by_kind, images), todo)
    rate = sum(entries[shard].images for shard in done) / seconds
    return Progress(_tally(by_kind, images), todo, rate, record.device)


def training_progress(last: Checkpoint | None, epochs: int, index: Index, shards: list[int]) -> tuple[Progress, int]:
    """All shards are done with the last epoch; and how many epochs are still to come."""
    left = epochs - last.epoch if last is not None else epochs
    images = dict(zip(index.shards["shard"], index.shards["images"], strict=True))
    kind = "done" if last is not None and last.finished else "open"
    return Progress(_tally({kind: shards}, images), [] if kind == "done" else shards), left


def _tally(by_kind: dict[str, list[int]], images: dict[int, int]) -> dict[str, tuple[int, int]]:
    return {kind: (len(shards), sum(images[shard] for shard in shards)) for kind, shards in by_kind.items()}
