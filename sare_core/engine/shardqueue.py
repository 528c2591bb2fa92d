"""Which shard a process does next, and what other processes have done of the same shards meanwhile.

A shard belongs to nobody: whoever claims it does it, so that a fast GPU does part of a slow one's work.
"""

import time
from collections import deque
from collections.abc import Collection

from sare_core.engine.folders import Folder, Record, State

LOOK = 10.0  # seconds between two looks at what others have finished
LOOK_SHARE = 0.05  # of the time at most: where a hundred thousand records are listed, looks are rarer


class ShardQueue:
    """The shards that are still to be done, in this process's order; those that failed before come last.

    share: where in the list to begin, in [0, 1): processes that begin apart seldom want the same shard.
    known: the records that shards had when they were planned, of those that have one and are to be done all the same.
    """

    def __init__(
        self,
        folder: Folder,
        digests: dict[int, str],
        shards: list[int],
        failed: Collection[int],
        known: dict[int, Record],
        share: float,
    ) -> None:
        self._folder, self._digests, self._known = folder, digests, known
        self.failed_before = set(failed)
        self._fresh = deque(shard for shard in shards if shard not in self.failed_before)
        self._last = deque(shard for shard in shards if shard in self.failed_before)
        for part in (self._fresh, self._last):
            part.rotate(-int(len(part) * share))
        self.elsewhere: list[int] = []  # claimed by another process when this one asked
        self._recorded = folder.ledger.recorded()
        self._next_look = time.monotonic() + LOOK

    def __len__(self) -> int:
        return len(self._fresh) + len(self._last) + len(self.elsewhere)

    def next(self) -> int | None:
        """The next shard, or None: all that is left is in the hands of others."""
        part = self._fresh or self._last
        return part.popleft() if part else None

    def ask_again(self) -> None:
        """Put the shards that others had claimed back into the queue."""
        self._fresh.extend(self.elsewhere)
        self.elsewhere.clear()

    def jump(self) -> None:
        """Go on far from here: a folder of images that is gone makes neighbouring shards fail, and no others."""
        self._fresh.rotate(-(len(self._fresh) // 3))

    def finished(self, shard: int) -> State | None:
        """The state in which another process has left a shard since this run began: done, failed; None: neither."""
        state = self._folder.states({shard: self._digests[shard]})[shard]
        if state.kind not in ("done", "failed"):
            return None
        record = self._folder.records([shard]).get(shard)
        return state if record != self._known.get(shard) else None

    def look(self) -> dict[int, State]:
        """The shards that others have done, or failed at, since the last look; they leave the queue."""
        start = time.monotonic()
        if start < self._next_look:
            return {}
        left = {*self._fresh, *self._last, *self.elsewhere}
        new = (self._folder.ledger.recorded() - self._recorded) & left
        states = self._folder.states({shard: self._digests[shard] for shard in sorted(new)})
        found = {shard: state for shard, state in states.items() if state.kind in ("done", "failed")}
        for part in (self._fresh, self._last, self.elsewhere):
            kept = [shard for shard in part if shard not in found]
            part.clear()
            part.extend(kept)
        now = time.monotonic()
        self._next_look = now + max(LOOK, (now - start) / LOOK_SHARE)
        return found
