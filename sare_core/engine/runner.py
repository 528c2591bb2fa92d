"""The one loop of every precompute stage and every launcher: plan, claim, compute, read back, put in place, record.

A shard is the unit of work and of commit. Kill the process anywhere: at most the shard in flight is done again, with
the same bytes. Claims alone say who does what; ranks never talk to each other. A shard that fails is recorded with the
reason, and the others go on.
"""

import errno
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

from rich.console import Console

from sare_core.engine.claims import Claims
from sare_core.engine.faults import point
from sare_core.engine.flow import Row, samples
from sare_core.engine.folders import COMMANDS, Failure, Folder, Output, Record
from sare_core.engine.manifest import Index
from sare_core.engine.progress import bar
from sare_core.engine.ranks import Rank
from sare_core.engine.shardfiles import read_back, read_samples
from sare_core.engine.shardqueue import ShardQueue
from sare_core.engine.signals import check_stop, release_on_preemption, stop_cleanly, wait
from sare_core.engine.spool import shard_path
from sare_core.engine.stage import Outcome, Stage
from sare_core.errors import ConfigError, ImageError, NotReached, StageError, TransientError
from sare_core.store.storage import sha256_file

# A shard of which more than this share fails is not "a few bad images": a setting or a disk is wrong, so it fails.
MOST_FAIL = 0.5
FEW_FAIL = 2  # one or two bad images are never a wrong setting, however small the shard
# So many shards that fail one after the other, far from each other, have one cause: a disk is away, a setting is wrong.
# The run stops then, since it would only mark all the others as failed; not before half as many failed as were done,
# so that the shards of one folder of images that is gone do not keep the last of the others from being done.
IN_A_ROW = 3
POLL = 5.0  # seconds between two looks at shards that others work on
_OF_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # never of reading, though they name no file
_LIBRARIES = ("sare", "torch", "diffusers", "transformers", "timm", "numpy", "pillow", "webdataset", "pyarrow")

Sample = Callable[[], dict[str, Any]]


def run(
    stage: Stage, index: Index, shards: list[int], console: Console, threads: int = 4, retry: bool = False
) -> Outcome:
    """Bring every shard of `shards` up to date, together with whatever other processes were given the same ones.

    A shard that another process works on is left to it, and looked at again at the end: done by then, or taken over.
    One that fails is recorded as failed, told in `Outcome.failed`, and comes last in the next run.
    retry: do the images that shards lack which are done (`Folder.shards_with_failures`), and no others.

    Raises StageError when shards fail one after the other (IN_A_ROW), Stopped on SIGTERM or SIGINT, ConfigError from
    loading models, a full disk or an unwritable folder.
    """
    rank, outcome, folder = Rank(), Outcome(), stage.folder
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
    claims, device, in_a_row = Claims(folder.store), "", list[int]()
    sizes = dict(zip(index.shards["shard"], index.shards["images"], strict=True))
    with (
        stop_cleanly(),
        release_on_preemption(claims.free),
        bar(console, rank.title(folder.stage), sum(sizes[shard] for shard in todo), rank.first) as advance,
    ):
        while queue:
            check_stop()
            for other, state in queue.look().items():
                outcome.by_another(other, state)
                advance(sizes[other])
            shard = queue.next()
            if shard is None:
                advance(0, f"waits for {len(queue)} shards that others work on")
                wait(POLL if queue else 0)
                queue.ask_again()
                continue
            if not claims.take(shard):
                queue.elsewhere.append(shard)
                continue
            try:
                point("claimed")
                if left := queue.finished(shard):  # since the plan was made
                    outcome.by_another(shard, left)
                    advance(sizes[shard])
                    continue
                if not device:
                    device = rank.device()
                    stage.load(device)
                try:
                    record = _do_shard(stage, index, shard, device, threads, advance, retry)
                except StageError as error:
                    outcome.failed[shard] = str(error)
                    in_a_row += [shard] if shard not in queue.failed_before else []
                    queue.jump()
                    if len(in_a_row) >= max(IN_A_ROW, len(outcome.done) / 2):
                        raise StageError(
                            f"{len(in_a_row)} shards failed one after the other, so the cause is hardly in them: "
                            f"{', '.join(map(str, in_a_row))}. {len(outcome.failed)} failed in this run, "
                            f"{len(outcome.done)} are done, {len(queue)} were not tried. The last: {error}"
                        ) from error
                else:
                    in_a_row.clear()
                    outcome.done.append(shard)
                    outcome.failures += len(record.failures)
            finally:
                claims.free()
    if rank.first or outcome.done:
        _compact(folder, index)
    return outcome


def _compact(folder: Folder, index: Index) -> None:
    """Whoever finds a stage complete gathers its records; what they would gather is the same."""
    try:
        shards = folder.expected(index)
    except FileNotFoundError:  # not described: a stage that somebody else drives
        return
    if folder.ledger.complete(shards):
        folder.ledger.compact(index.digests.keys())


def _do_shard(stage: Stage, index: Index, shard: int, device: str, threads: int, advance: Any, retry: bool) -> Record:
    """Raises StageError: the shard failed, whether its images, its files or the disk under them are to blame."""
    folder, rows = stage.folder, index.rows(shard)
    upstream = {role: before.record(shard) for role, before in folder.upstream.items()}
    before = folder.record(shard) if retry else None
    started, clock = datetime.now(UTC), time.monotonic()
    record = Record(
        stage=folder.stage,
        fingerprint=folder.fingerprint,
        dataset=folder.dataset,
        shard=shard,
        subset=rows[0]["subset"],
        split=rows[0]["split"],
        status="done",
        settings=folder.made_by,
        inputs=folder.inputs(index.digests[shard], upstream),
        fields=sorted(stage.fields),
        images=len(rows),
        ok=0,
        failures=[],
        started=started.isoformat(timespec="seconds"),
        seconds=0.0,
        host=platform.node(),
        device=device,
        libraries={name: version(name) for name in _LIBRARIES},
    )
    try:
        sources = {role: folder.upstream[role].output(found) for role, found in upstream.items() if found}
        with _spool(folder, shard, stage.suffix) as path:
            stage.begin(shard, sources)
            kept = _kept(stage, rows, before) if before else {}
            written, record.failures = _compute(stage, rows, path, threads, advance, kept, upstream)
            point("spooled")
            _check(path, written, record)
            digest = sha256_file(path)
            name = f"{shard:05d}-{digest[:12]}{stage.suffix}"
            record.output = Output(name=name, bytes=path.stat().st_size, sha256=digest)
            point("verified")
            folder.store.put(path, name)
        point("output-put")
        # A retry's seconds count on top: images / seconds is what a stage's rate is read from.
        record.seconds = round(time.monotonic() - clock + (before.seconds if before else 0.0), 3)
        record.ok = len(written)
        folder.commit(record)
    except (StageError, TransientError, OSError) as error:
        cure = ". Mend the cause, then run the same command again." if isinstance(error, OSError) else ""
        if not retry:  # else what was done before still counts
            record.status, record.error, record.output, record.failures = "failed", f"{error}{cure}", None, []
            with suppress(TransientError, OSError):  # the same fault may hit the record: the shard then stays open
                folder.commit(record)
        raise StageError(f"{error}{cure}") from error
    point("record-put")
    return record


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


def _compute(
    stage: Stage,
    rows: list[Row],
    path: Path,
    threads: int,
    advance: Any,
    kept: dict[str, Sample],
    upstream: dict[str, Record | None],
) -> tuple[dict[str, set[str]], list[Failure]]:
    """Run the images through the stage into the file; what was written, by key, and what failed."""
    failed_before = {failure.image_id for record in upstream.values() if record for failure in record.failures}
    writer, written, failures, own = stage.open(path), {}, [], 0
    made = samples(stage, [row for row in rows if row["image_id"] not in kept], threads)
    try:
        # What is kept stands where it would have come: the order is that of one run over all rows.
        for planned in chain.from_iterable(stage.batches(rows)):
            check_stop()
            row, sample = (planned, kept[planned["image_id"]]()) if planned["image_id"] in kept else next(made)
            if isinstance(sample, NotReached) and upstream and row["image_id"] not in failed_before:
                before = " or ".join(upstream)
                stages = dict.fromkeys(folder.stage for folder in stage.folder.upstream.values())
                commands = " and ".join(f"`sare {COMMANDS.get(name, name)}`" for name in stages)
                raise StageError(
                    f"shard {rows[0]['shard']} of the {before} lacks {row['path']}, which its record counts as done: "
                    f"its file is cut, or another one. Run `sare verify --reopen`, then {commands}, then this stage "
                    "again."
                )
            if isinstance(sample, ImageError):
                own += not isinstance(sample, NotReached)
                failures.append(Failure(image_id=row["image_id"], path=row["path"], reason=str(sample)))
            else:
                writer.write(sample)
                written[row["image_id"]] = set(sample) - {"__key__"}
                point("sample-written")
            advance(1)
    finally:
        made.close()
        writer.close()
    if own > max(MOST_FAIL * len(rows), FEW_FAIL):
        raise StageError(
            f"{own} of {len(rows)} images failed, the first with: {failures[0].path}: "
            f"{failures[0].reason.rstrip('.')}. Mend the cause, then run the same command again."
        )
    failures.sort(key=lambda failure: failure.image_id)
    return written, failures


def _check(path: Path, written: dict[str, set[str]], record: Record) -> None:
    """Raises StageError unless the file reads back as what was written and every image is accounted for."""
    found = read_back(path)
    if found != written:
        odd = sorted(key for key in found.keys() | written.keys() if found.get(key) != written.get(key))
        raise StageError(f"{path}: does not read back as it was written; first difference at {odd[0]}")
    if short := [key for key, fields in written.items() if not fields >= set(record.fields)]:
        raise StageError(f"{path}: {short[0]} lacks one of its fields {record.fields}")
    if len(written) + len(record.failures) != record.images:
        raise StageError(f"{record.images} images went in, {len(written)} + {len(record.failures)} came out")


@contextmanager
def _spool(folder: Folder, shard: int, suffix: str) -> Iterator[Path]:
    """A local path to write a shard to; gone afterwards, whatever happens."""
    path = shard_path(folder, shard, suffix)
    spool = path.parent
    try:
        spool.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(spool, error) from error
    try:
        with release_on_preemption(partial(path.unlink, missing_ok=True)):
            yield path
    except OSError as error:
        if error.errno in _OF_WRITING or str(error.filename) == str(path):
            raise _unusable(spool, error) from error
        raise
    finally:
        path.unlink(missing_ok=True)


def _unusable(spool: Path, error: OSError) -> ConfigError:
    what = "no space left" if error.errno == errno.ENOSPC else f"cannot be written ({error.strerror})"
    return ConfigError(f"{spool}: {what}. Shards are written there first: mend it, or set SARE_SPOOL to another.")
