"""The one loop of every precompute stage and every launcher: plan, claim, compute, read back, put in place, record.

A shard is the unit of commit, and of work, unless a stage takes several together to fill its batches. Kill the process
anywhere: at most the shards in flight are done again, with the same bytes. Claims alone say who does what; ranks never
talk to each other. A shard that fails is recorded with the reason, and the others go on.
"""

import gc
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress

from rich.console import Console

from sare_core.engine.claims import Claims
from sare_core.engine.faults import point
from sare_core.engine.flow import crew_of
from sare_core.engine.folders import Folder, Record
from sare_core.engine.lot import Lot
from sare_core.engine.manifest import Index
from sare_core.engine.progress import bar
from sare_core.engine.ranks import Rank
from sare_core.engine.shardqueue import ShardQueue
from sare_core.engine.signals import check_stop, release_on_preemption, stop_cleanly, wait
from sare_core.engine.stage import Outcome, Stage
from sare_core.engine.terminal import console as terminal
from sare_core.errors import SareError, StageError

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

    def begin() -> None:
        """Claim the next shards, if there are any, and have their images read."""
        nonlocal device
        with ExitStack() as held:
            if claimed := claim(together, held):
                if not device:
                    device = rank.device()
                    stage.load(device)
                    gc.freeze()  # models stay: to look through their objects again and again stops every thread
                    ended.callback(gc.unfreeze)
                lots.append(Lot(stage, index, claimed, device, crew, advance, retry))
                held.pop_all()
                lots[-1].begin()

    def begin_ahead() -> None:
        try:
            begin()
        except (SareError, OSError) as error:
            postponed.append(error)  # the lot that is at the model is not to blame

    def one_by_one(lot: Lot) -> Iterator[tuple[int, Record | StageError]]:
        """Shards that failed together, so that it is known whose fault it is, and the others are done."""
        advance(-lot.counted)
        reason = str(lot.error).partition(" Mend the cause")[0].rstrip(".")
        terminal.print(f"{folder.stage}: {reason}. These {len(lot.claims)} shards are now done one by one.")
        for shard, claims in lot.claims.items():
            alone = Lot(stage, index, {shard: claims}, device, crew, advance, retry)
            with closing(alone):
                alone.begin()
                alone.run()
                yield from alone.finish() or []

    together = 1 if retry else stage.shards_together
    lots, postponed = deque[Lot](), list[Exception]()  # at most two: one at the model, one that is being read
    with (
        stop_cleanly(),
        ExitStack() as ended,
        bar(console, rank.title(folder.stage), sum(sizes[shard] for shard in todo), rank.first) as advance,
        crew_of(threads) as crew,
        _Finishing(done, failed_now, one_by_one) as finishing,
        _closing_all(lots),
    ):
        while queue or lots:
            check_stop()
            if postponed:
                raise postponed[0]
            for other, state in queue.look().items():
                outcome.by_another(other, state)
                advance(sizes[other])
            if not lots:
                begin()
            if not lots:
                finishing.settle()
                if queue:
                    advance(0, f"waits for {len(queue)} shards that others work on")
                    wait(POLL)
                    queue.ask_again()
                continue
            lots[0].run(begin_ahead)
            finishing.start(lots.popleft())
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


@contextmanager
def _closing_all(lots: deque[Lot]) -> Iterator[None]:
    """Whatever ends a run: nothing stays in the spool, and nothing claimed."""
    try:
        yield
    finally:
        with ExitStack() as left:
            for lot in lots:
                left.callback(lot.close)


Ended = Iterable[tuple[int, Record | StageError]]


class _Finishing:
    """The lot that is written, checked, put in place and recorded in a thread, while the next is computed.

    Its claims are held until then. At the end of a run, however it comes, it is waited for.
    """

    def __init__(
        self,
        done: Callable[[Record], None],
        failed: Callable[[int, StageError], None],
        one_by_one: Callable[[Lot], Ended],
    ) -> None:
        self._done, self._failed, self._one_by_one = done, failed, one_by_one
        self._thread = ThreadPoolExecutor(1)
        self._lot: tuple[Lot, Future[Ended | None]] | None = None

    def __enter__(self) -> "_Finishing":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        try:
            with suppress(*(() if kind is None else (Exception,))):  # else what has ended the run is what is raised
                if kind is not None:
                    self._one_by_one = lambda lot: []
                self.settle()
        finally:
            self._thread.shutdown()

    def start(self, lot: Lot) -> None:
        """Finish a lot, once the one before is; at once, if it may have failed. Raises as `settle`."""
        with ExitStack() as unless_started:
            unless_started.callback(lot.close)
            self.settle()
            self._lot = lot, self._thread.submit(lot.finish)
            unless_started.pop_all()
        if lot.doubtful:
            self.settle()

    def settle(self) -> None:
        """Wait for the lot that is being finished, and tell how each of its shards ended.

        Raises StageError: one too many failed. Errors that are no shard's own, such as a full disk, pass.
        """
        if self._lot is None:
            return
        (lot, finished), self._lot = self._lot, None
        with closing(lot):
            ended = finished.result()
            for shard, found in self._one_by_one(lot) if ended is None else ended:
                if isinstance(found, StageError):
                    self._failed(shard, found)
                else:
                    self._done(found)
