"""What the runner asks of a precompute stage, and what it says of a run."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from sare_core.engine.flow import Row, Work
from sare_core.engine.folders import Folder, State
from sare_core.engine.shardfiles import ShardWriter


class Stage(Work, Protocol):
    """A precompute stage. Everything that is the same for all of them is the runner's."""

    folder: Folder
    suffix: str  # of a shard's output: .parquet or .tar
    fields: tuple[str, ...]  # that each sample of the output has
    shards_together: int  # at most so many are computed together, so that batches are filled from all of them

    def load(self, device: str) -> None:
        """Load models. Called once, and only when there is a shard to do."""

    def begin(self, sources: dict[int, dict[str, Path]]) -> None:
        """Called before shards are computed together, mostly one: with the outputs that each is made from, by the roles
        of `Folder.upstream`. Others, begun before, may still be at work."""

    def end(self, shards: list[int]) -> None:
        """What `begin` was given of these is not needed any more. Called from another thread."""

    def ran(self) -> dict[str, int]:
        """What a record is to say of the batches that were run since this was last asked (`Record.batches`)."""

    def open(self, path: Path) -> ShardWriter:
        """A writer of this stage's kind of file."""

    def keeps(self, row: Row, sample: dict[str, Any]) -> bool:
        """Whether a sample that was made before is what this stage would make now. Called after `begin`."""


@dataclass
class Outcome:
    """What a run did with the shards that it was asked for."""

    done: list[int] = field(default_factory=list)  # by this process
    others: list[int] = field(default_factory=list)  # by other processes, meanwhile
    before: list[int] = field(default_factory=list)  # done already
    waiting: dict[int, str] = field(default_factory=dict)  # not begun, and why
    failed: dict[int, str] = field(default_factory=dict)  # by this process or another, and why
    failures: int = 0  # images that failed in this process's shards
    seconds: float = 0.0  # that this process took

    @property
    def complete(self) -> bool:
        return not self.waiting and not self.failed

    def by_another(self, shard: int, state: State) -> None:
        """Take note of a shard that another process did, or failed at."""
        if state.kind == "failed":
            self.failed[shard] = state.why
        else:
            self.others.append(shard)
