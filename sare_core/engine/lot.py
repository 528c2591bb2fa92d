"""Some shards computed together, mostly one: their images are read, run through the model and written, a file a shard.

The next lot is begun before the model gets the last batch of this one, and this one is written and put in place in
threads while the model is at the next: so the model hardly waits between two lots.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from sare_core.engine.faults import point
from sare_core.engine.flow import Crew, Flow, Row
from sare_core.engine.folders import COMMANDS, Failure, Folder, Record
from sare_core.engine.manifest import Index
from sare_core.engine.shard import Computed, Sample, begun, finish_shard, make_spool, recorded, written
from sare_core.engine.shardfiles import ShardWriter, read_samples
from sare_core.engine.signals import check_stop, release_on_preemption
from sare_core.engine.stage import Stage
from sare_core.errors import ImageError, NotReached, StageError, TransientError

# A shard of which more than this share fails is not "a few bad images": a setting or a disk is wrong, so it fails.
MOST_FAIL = 0.5
FEW_FAIL = 2  # one or two bad images are never a wrong setting, however small the shard


class Lot:
    """`begin` and `run` belong to the model's thread, `finish` to another. What images, files or the disk under them
    are to blame for ends the lot, and is told by `finish`; any other error is raised where it happens.

    claims: of each shard, what gives it up. advance: called with the number of images that are through.
    """

    def __init__(
        self,
        stage: Stage,
        index: Index,
        claims: dict[int, ExitStack],
        device: str,
        crew: Crew,
        advance: Callable[[int], None],
        retry: bool = False,
    ) -> None:
        self.claims, self.counted = claims, 0  # images that are through
        self.error: Exception | None = None
        self._stage, self._crew, self._advance = stage, crew, advance
        self._shards = {shard: begun(stage, index, shard, device, retry) for shard in claims}
        self._rows = [row for shard in self._shards.values() for row in shard.rows]
        self._files = ExitStack()  # closing it removes what lies in the spool
        self._started = time.monotonic()

    @property
    def doubtful(self) -> bool:
        """Whether it has failed already, or may yet: then nothing is begun beside it."""
        return self.error is not None or self._flow.dropped or self._flow.failed > FEW_FAIL

    def begin(self) -> None:
        """Its first images are read from now on. Called once the models are loaded."""
        folder = self._stage.folder
        with self._failing():
            for shard in self._shards.values():
                make_spool(shard.path.parent)
                remove = partial(shard.path.unlink, missing_ok=True)
                self._files.enter_context(release_on_preemption(remove))
                self._files.callback(remove)
            self._files.callback(self._stage.end, list(self._shards))
            self._stage.begin({number: _sources(folder, shard) for number, shard in self._shards.items()})
            for shard in self._shards.values():
                shard.kept = _kept(self._stage, shard.rows, shard.before) if shard.before else {}
            rows = [row for row in self._rows if row["image_id"] not in self._shards[row["shard"]].kept]
            self._flow = Flow(self._stage, rows, self._crew)
            self._files.callback(self._flow.close)

    def run(self, ahead: Callable[[], None] = lambda: None) -> None:
        """Run the model over all images. ahead: called before its last batch, unless the lot is doubtful.

        Raises Stopped.
        """

        def before_batch(last: bool) -> None:
            check_stop()
            if last and not self.doubtful:
                ahead()

        if self.error is not None:
            return
        self._started = time.monotonic()
        self._stage.ran()  # what was run in vain, of shards that failed, is not theirs
        writer = self._files.enter_context(ThreadPoolExecutor(1))
        with self._failing():
            self._writing: Future[None] = writer.submit(self._write)
            self._flow.run(before_batch)
        batches, together = self._stage.ran(), sorted(self._shards) if len(self._shards) > 1 else []
        for shard in self._shards.values():
            # A retry is of a few images: what is said stays that of the run which made the others.
            shard.record.batches = shard.before.batches if shard.before else batches
            shard.record.together = shard.before.together if shard.before else together

    def finish(self) -> list[tuple[int, Record | StageError]] | None:
        """Wait until all is written, then put each shard in place and record it; a shard that fails is recorded too.

        None: several failed together, and are to be computed one by one, so that it is known whose fault it is.
        """
        with self._files:
            if self.error is None:
                with self._failing():
                    self._writing.result()
                    self._check_failures()
            if self.error is not None and len(self._shards) > 1:
                return None
            seconds = (time.monotonic() - self._started) / len(self._rows)
            return [(number, self._finished(number, seconds)) for number in self._shards]

    def close(self) -> None:
        """Drop what is not finished, and give up what is claimed."""
        with ExitStack() as claims:
            for claim in self.claims.values():
                claims.push(claim)
            self._files.close()

    def _finished(self, number: int, seconds: float) -> Record | StageError:
        shard = self._shards[number]
        shard.seconds = seconds * len(shard.rows)
        try:
            with recorded(self._stage.folder, shard.record, shard.before):
                if self.error is not None:
                    raise self.error
                return finish_shard(self._stage.folder, shard)
        except StageError as error:
            return error

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            with ExitStack() as writing:
                for shard in self._shards.values():
                    writing.enter_context(written(shard.path))
                yield
        except (StageError, TransientError, OSError) as error:
            self.error = error

    def _write(self) -> None:
        try:
            self._write_samples()
        except BaseException:
            self._flow.drop()
            raise

    def _write_samples(self) -> None:
        """What is made of each image to the file of its shard, or into its record why there is nothing."""
        failed_before = {
            failure.image_id
            for shard in self._shards.values()
            for record in shard.upstream.values()
            if record
            for failure in record.failures
        }
        made = self._flow.samples()
        with ExitStack() as writing:
            writers = dict[int, ShardWriter]()
            for number, shard in self._shards.items():
                writers[number] = self._stage.open(shard.path)
                writing.callback(writers[number].close)
            # What is kept stands where it would have come: the order is that of one run over all rows.
            for planned in chain.from_iterable(self._stage.batches(self._rows)):
                shard, image_id = self._shards[planned["shard"]], planned["image_id"]
                if image_id in shard.kept:
                    sample: dict[str, Any] | ImageError = shard.kept[image_id]()
                elif (next_made := next(made, None)) is not None:
                    sample = next_made[1]
                else:
                    return  # `run` has ended early, and says why
                if isinstance(sample, NotReached) and shard.upstream and image_id not in failed_before:
                    raise self._lacking(planned, list(shard.upstream))
                if isinstance(sample, ImageError):
                    shard.own += not isinstance(sample, NotReached)
                    shard.record.failures.append(Failure(image_id=image_id, path=planned["path"], reason=str(sample)))
                else:
                    writers[planned["shard"]].write(sample)
                    shard.written[image_id] = set(sample) - {"__key__"}
                    point("sample-written")
                self.counted += 1
                self._advance(1)

    def _check_failures(self) -> None:
        """Raises StageError: too many images of a shard failed."""
        for shard in self._shards.values():
            failures = shard.record.failures
            if shard.own > max(MOST_FAIL * len(shard.rows), FEW_FAIL):
                raise StageError(
                    f"{shard.own} of {len(shard.rows)} images failed, the first with: {failures[0].path}: "
                    f"{failures[0].reason.rstrip('.')}. Mend the cause, then run the same command again."
                )
            failures.sort(key=lambda failure: failure.image_id)
            point("spooled")

    def _lacking(self, row: Row, upstream: list[str]) -> StageError:
        stages = dict.fromkeys(folder.stage for folder in self._stage.folder.upstream.values())
        commands = " and ".join(f"`sare {COMMANDS.get(name, name)}`" for name in stages)
        return StageError(
            f"shard {row['shard']} of the {' or '.join(upstream)} lacks {row['path']}, which its record counts as "
            f"done: its file is cut, or another one. Run `sare verify --reopen`, then {commands}, then this stage "
            "again."
        )


def _sources(folder: Folder, shard: Computed) -> dict[str, Path]:
    """The outputs that a shard is made from, by role."""
    return {role: folder.upstream[role].output(found) for role, found in shard.upstream.items() if found}


def _kept(stage: Stage, rows: list[Row], record: Record) -> dict[str, Sample]:
    """By image_id, what lies in the shard's output already and still holds; its bytes are read when they are asked."""
    if record.output is None:
        return {}
    reader = read_samples(stage.folder.output(record))
    return {
        row["image_id"]: partial(reader.__getitem__, row["image_id"])
        for row in rows
        if row["image_id"] in reader and stage.keeps(row, reader[row["image_id"]])
    }
