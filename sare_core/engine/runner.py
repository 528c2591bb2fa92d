"""The one loop of every precompute stage and every launcher: plan, claim, compute, read back, put in place, record.

A shard is the unit of commit, and of work, unless a stage takes several together to fill its batches. Kill the process
anywhere: at most the shards in flight are done again, with the same bytes. Claims alone say who does what; ranks never
talk to each other. A shard that fails is recorded with the reason, and the others go on.
"""

import gc
import os
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from functools import partial
from typing import NamedTuple

from rich.console import Console

from sare_core.engine.claims import Claims
from sare_core.engine.faults import point
from sare_core.engine.folders import Folder, Record
from sare_core.engine.manifest import Index
from sare_core.engine.progress import bar
from sare_core.engine.ranks import Rank
from sare_core.engine.shard import compute_shards, finish_shard
from sare_core.engine.shardqueue import ShardQueue
from sare_core.engine.signals import check_stop, release_on_preemption, stop_cleanly, wait
from sare_core.engine.stage import Outcome, Stage
from sare_core.errors import StageError

# So many shards that fail one after the other, far from each other, have one cause: a disk is away, a setting is wrong.
# The run stops then, since it would only mark all the others as failed; not before half as many failed as were done,
# so that the shards of one folder of images that is gone do not keep the last of the others from being done.
IN_A_ROW = 3
# That read, and as many that encode. More than there are cores would keep the model waiting for its turn.
THREADS = min(4, os.cpu_count() or 1)
POLL = 5.0  # seconds between two looks at shards that others work on


def run(
    stage: Stage, index: Index, shards: list[int], console: Console, threads: int = THREADS, retry: bool = False
) -> Outcome:
    """Bring every shard of `shards` up to date, together with whatever other processes were given the same ones.

    A shard that another process works on is left to it, and looked at again at the end: done by then, or taken over.
    One that fails is recorded as failed, told in `Outcome.failed`, and comes last in the next run.
    retry: do the images that shards lack which are done (`Folder.shards_with_failures`), and no others.

    Raises StageError when shards fail one after the other (IN_A_ROW), Stopped on SIGTERM or SIGINT, ConfigError from
    loading models, a full disk or an unwritable folder.
    """
    started, rank, outcome, folder = time.monotonic(), Rank(), Outcome(), stage.folder
    digests = {shard: index.digests[shard] for shard in shards}
    failed: list[int] = []
    if retry:
        todo = folder.shards_with_failures(digests)
        known = folder.records(todo)
    else:
        states = folder.states(digests)
        todo = [shard for shard, state in states.items() if state.kind != "done" and not state.waiting]
        failed = [shard for shard in todo if states[shard].kind == "failed"]
        known = folder.records(failed)
        outcome.before = [shard for shard, state in states.items() if state.kind == "done"]
        outcome.waiting = {shard: str(state) for shard, state in states.items() if state.waiting}
    if not todo:
        if rank.first and not outcome.waiting:
            _compact(folder, index)  # a kill may have been in the way
        return outcome
    queue = ShardQueue(folder, digests, todo, failed, known, rank.number / rank.world)
    device, in_a_row = "", list[int]()
    sizes = dict(zip(index.shards["shard"], index.shards["images"], strict=True))

    def done(record: Record) -> None:
        in_a_row.clear()
        outcome.done.append(record.shard)
        outcome.failures += len(record.failures)

    def failed_now(shard: int, error: StageError) -> None:
        outcome.failed[shard] = str(error)
        if shard not in queue.failed_before:
            in_a_row.append(shard)
        queue.jump()
        if len(in_a_row) >= max(IN_A_ROW, len(outcome.done) / 2):
            raise StageError(
                f"{len(in_a_row)} shards failed one after the other, so the cause is hardly in them: "
                f"{', '.join(map(str, in_a_row))}. {len(outcome.failed)} failed in this run, "
                f"{len(outcome.done)} are done, {len(queue)} were not tried. The last: {error}"
            ) from error

    def claim(count: int, held: ExitStack) -> dict[int, ExitStack]:
        """At most so many shards that nobody else works on, each with what gives it up."""
        claimed = dict[int, ExitStack]()
        while len(claimed) < count and (shard := queue.next()) is not None:
            check_stop()
            claims = Claims(folder.store)
            if not claims.take(shard):
                queue.elsewhere.append(shard)
                continue
            own = held.enter_context(ExitStack())
            own.callback(claims.free)
            own.enter_context(release_on_preemption(claims.free))
            point("claimed")
            if left := queue.finished(shard):  # since the plan was made
                own.close()
                outcome.by_another(shard, left)
                advance(sizes[shard])
                continue
            claimed[shard] = own
        return claimed

    together = 1 if retry else stage.shards_together
    with (
        stop_cleanly(),
        ExitStack() as ended,
        bar(console, rank.title(folder.stage), sum(sizes[shard] for shard in todo), rank.first) as advance,
        _Finishing(done, failed_now, together) as finishing,
    ):
        while queue:
            check_stop()
            for other, state in queue.look().items():
                outcome.by_another(other, state)
                advance(sizes[other])
            with ExitStack() as held:
                claimed = claim(together, held)
                if not claimed:
                    finishing.settle()
                    if queue:
                        advance(0, f"waits for {len(queue)} shards that others work on")
                        wait(POLL)
                        queue.ask_again()
                    continue
                if not device:
                    device = rank.device()
                    stage.load(device)
                    gc.freeze()  # models stay: to look through their objects again and again stops every thread
                    ended.callback(gc.unfreeze)
                made = compute_shards(stage, index, list(claimed), device, threads, advance, retry)
                with closing(made):
                    for shard, computed in made:
                        if isinstance(computed, StageError):
                            finishing.settle()  # so that shards are told of in their order
                            failed_now(shard, computed)
                        else:
                            finish = partial(finish_shard, folder, computed)
                            finishing.start(shard, claimed[shard].pop_all(), finish)
    if rank.first or outcome.done:
        _compact(folder, index)
    outcome.seconds = time.monotonic() - started
    return outcome


def _compact(folder: Folder, index: Index) -> None:
    """Whoever finds a stage complete gathers its records; what they would gather is the same."""
    try:
        shards = folder.expected(index)
    except FileNotFoundError:  # not described: a stage that somebody else drives
        return
    if folder.ledger.complete(shards):
        folder.ledger.compact(index.digests.keys())


class _Shard(NamedTuple):
    number: int
    held: ExitStack  # its claim
    record: Future[Record]


class _Finishing:
    """Shards that are checked, put in place and recorded in a thread, while the next are computed; at most so many.

    Their claims are held until then. At the end of a run, however it comes, they are waited for.
    """

    def __init__(self, done: Callable[[Record], None], failed: Callable[[int, StageError], None], most: int) -> None:
        self._done, self._failed, self._most = done, failed, most
        self._thread = ThreadPoolExecutor(1)
        self._shards: deque[_Shard] = deque()

    def __enter__(self) -> "_Finishing":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        try:
            while self._shards:
                with suppress(*(() if kind is None else (Exception,))):  # else what has ended the run is what is raised
                    self.settle()
        finally:
            self._thread.shutdown()
            for shard in self._shards:
                shard.held.close()

    def start(self, shard: int, held: ExitStack, finish: Callable[[], Record]) -> None:
        """Finish a shard, once there is room. Raises as `settle`, of those before it."""
        try:
            self.settle(self._most - 1)
        finally:
            self._shards.append(_Shard(shard, held, self._thread.submit(finish)))

    def settle(self, left: int = 0) -> None:
        """Wait for the shards that are being finished, all but so many, and tell how each ended.

        Raises StageError: one too many failed. Errors that are no shard's own, such as a full disk, pass.
        """
        while len(self._shards) > left:
            shard = self._shards.popleft()
            with shard.held:
                try:
                    record = shard.record.result()
                except StageError as error:
                    self._failed(shard.number, error)
                else:
                    self._done(record)
