"""One shard, or several together: computed into the spool, then read back, put in place and recorded, each by itself.

The second part works on the file alone, so that it can run in a thread while the model is at the next shard.
"""

import errno
import platform
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

from sare_core.engine.faults import point
from sare_core.engine.flow import Row, samples
from sare_core.engine.folders import COMMANDS, Failure, Folder, Output, Record
from sare_core.engine.manifest import Index
from sare_core.engine.shardfiles import ShardWriter, WriteBehind, read_back, read_samples
from sare_core.engine.signals import check_stop, release_on_preemption
from sare_core.engine.spool import shard_path
from sare_core.engine.stage import Stage
from sare_core.engine.terminal import console
from sare_core.errors import ConfigError, ImageError, NotReached, StageError, TransientError
from sare_core.store.storage import sha256_file

# A shard of which more than this share fails is not "a few bad images": a setting or a disk is wrong, so it fails.
MOST_FAIL = 0.5
FEW_FAIL = 2  # one or two bad images are never a wrong setting, however small the shard
_OF_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # never of reading, though they name no file
_LIBRARIES = ("sare", "torch", "diffusers", "transformers", "timm", "numpy", "pillow", "webdataset", "pyarrow")

Sample = Callable[[], dict[str, Any]]


@dataclass
class Computed:
    """A shard in the spool, or on its way there. Its record lacks what `finish_shard` adds.

    upstream: the records that it is made from. before: what a retry adds to, and kept: what stays of it, by image_id.
    written: the fields of each key. own: images that failed at this stage, not at one before. seconds: that it took.
    """

    record: Record
    path: Path
    rows: list[Row]
    upstream: dict[str, Record | None]
    before: Record | None
    spooled: ExitStack  # closing it removes the file
    kept: dict[str, Sample] = field(default_factory=dict)
    written: dict[str, set[str]] = field(default_factory=dict)
    own: int = 0
    seconds: float = 0.0


def compute_shards(
    stage: Stage, index: Index, shards: list[int], device: str, threads: int, advance: Any, retry: bool
) -> Generator[tuple[int, Computed | StageError]]:
    """Run the images of some shards through the stage into the spool, a file a shard. Gives each shard with its file,
    or with why it failed, whether its images, its files or the disk under them are to blame.

    Several are computed together, so that batches are filled from all of them. Where that fails, each is computed by
    itself: so it is known whose fault it is, and the others are done.
    """
    if len(shards) > 1:
        counted = 0

        def count(images: int) -> None:
            nonlocal counted
            counted += images
            advance(images)

        try:
            together = _compute([_begun(stage, index, shard, device, retry) for shard in shards], stage, threads, count)
        except (StageError, TransientError, OSError) as error:
            advance(-counted)
            reason = str(error).partition(" Mend the cause")[0].rstrip(".")
            console.print(f"{stage.folder.stage}: {reason}. These {len(shards)} shards are now done one by one.")
        else:
            yield from _handed_over(together)
            return
    for shard in shards:
        begun = _begun(stage, index, shard, device, retry)
        try:
            with _recorded(stage.folder, begun.record, begun.before):
                [computed] = _compute([begun], stage, threads, advance)
        except StageError as error:
            yield shard, error
        else:
            yield shard, computed


def _handed_over(computed: list[Computed]) -> Iterator[tuple[int, Computed]]:
    """Those that nobody takes any more are removed."""
    left = deque(computed)
    try:
        while left:
            each = left.popleft()
            yield each.record.shard, each
    finally:
        for each in left:
            each.spooled.close()


def _begun(stage: Stage, index: Index, shard: int, device: str, retry: bool) -> Computed:
    folder, rows = stage.folder, index.rows(shard)
    upstream = {role: before.record(shard) for role, before in folder.upstream.items()}
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
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=0.0,
        host=platform.node(),
        device=device,
        libraries={name: version(name) for name in _LIBRARIES},
    )
    before = folder.record(shard) if retry else None
    return Computed(record, shard_path(folder, shard, stage.suffix), rows, upstream, before, ExitStack())


def finish_shard(folder: Folder, computed: Computed) -> Record:
    """Read the file back, put it in place, and record it; the spool is empty afterwards. Raises StageError: failed."""
    record, path, before, started = computed.record, computed.path, computed.before, time.monotonic()
    with computed.spooled, _recorded(folder, record, before), _written(path):
        _check(path, computed.written, record)
        digest = sha256_file(path)
        name = f"{record.shard:05d}-{digest[:12]}{path.suffix}"
        record.output = Output(name=name, bytes=path.stat().st_size, sha256=digest)
        point("verified")
        folder.store.move(path, name)
        point("output-put")
        # A retry's seconds count on top: images / seconds is what a stage's rate is read from.
        seconds = computed.seconds + time.monotonic() - started
        record.seconds = round(seconds + (before.seconds if before else 0.0), 3)
        record.ok = len(computed.written)
        folder.commit(record)
    point("record-put")
    return record


@contextmanager
def _recorded(folder: Folder, record: Record, before: Record | None) -> Iterator[None]:
    """What fails here makes the shard a failed one, which its record says; before: unless it is a retry of that one.

    Raises StageError, for whatever failed.
    """
    try:
        yield
    except (StageError, TransientError, OSError) as error:
        cure = ". Mend the cause, then run the same command again." if isinstance(error, OSError) else ""
        if before is None:
            record.status, record.error, record.output, record.failures = "failed", f"{error}{cure}", None, []
            with suppress(TransientError, OSError):  # the same fault may hit the record: the shard then stays open
                folder.commit(record)
        raise StageError(f"{error}{cure}") from error


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


def _compute(shards: list[Computed], stage: Stage, threads: int, advance: Any) -> list[Computed]:
    """Run the images of all these shards through the stage, into their files. Raises StageError: one of them failed."""
    clock, folder = time.monotonic(), stage.folder
    by_number = {shard.record.shard: shard for shard in shards}
    with ExitStack() as spooled:
        for shard in shards:
            spooled.enter_context(_written(shard.path))
            _make_spool(shard.path.parent)
            remove = partial(shard.path.unlink, missing_ok=True)
            spooled.push(shard.spooled)
            shard.spooled.enter_context(release_on_preemption(remove))
            shard.spooled.callback(remove)
        stage.begin(
            {
                number: {role: folder.upstream[role].output(found) for role, found in shard.upstream.items() if found}
                for number, shard in by_number.items()
            }
        )
        for shard in shards:
            shard.kept = _kept(stage, shard.rows, shard.before) if shard.before else {}
        stage.ran()  # what was run in vain, of shards that failed, is not theirs
        _write_samples(by_number, stage, threads, advance)
        batches = stage.ran()
        for shard in shards:
            failures = shard.record.failures
            if shard.own > max(MOST_FAIL * len(shard.rows), FEW_FAIL):
                raise StageError(
                    f"{shard.own} of {len(shard.rows)} images failed, the first with: {failures[0].path}: "
                    f"{failures[0].reason.rstrip('.')}. Mend the cause, then run the same command again."
                )
            failures.sort(key=lambda failure: failure.image_id)
            shard.record.batches = batches
            shard.record.together = sorted(by_number) if len(shards) > 1 else []
            point("spooled")
        seconds, images = time.monotonic() - clock, sum(len(shard.rows) for shard in shards)
        for shard in shards:
            shard.seconds = seconds * len(shard.rows) / images
            shard.spooled = shard.spooled.pop_all()
        return shards


def _write_samples(shards: dict[int, Computed], stage: Stage, threads: int, advance: Any) -> None:
    """What is made of each image to the file of its shard, or into its record why there is nothing."""
    failed_before = {
        failure.image_id
        for shard in shards.values()
        for record in shard.upstream.values()
        if record
        for failure in record.failures
    }
    rows = [row for shard in shards.values() for row in shard.rows]
    made = samples(stage, [row for row in rows if row["image_id"] not in shards[row["shard"]].kept], threads)
    with ExitStack() as writing:
        writers = dict[int, ShardWriter]()
        for number, shard in shards.items():
            writers[number] = WriteBehind(stage.open(shard.path))
            writing.callback(writers[number].close)
        writing.callback(made.close)
        # What is kept stands where it would have come: the order is that of one run over all rows.
        for planned in chain.from_iterable(stage.batches(rows)):
            check_stop()
            shard, image_id = shards[planned["shard"]], planned["image_id"]
            row, sample = (planned, shard.kept[image_id]()) if image_id in shard.kept else next(made)
            if isinstance(sample, NotReached) and shard.upstream and image_id not in failed_before:
                before = " or ".join(shard.upstream)
                stages = dict.fromkeys(folder.stage for folder in stage.folder.upstream.values())
                commands = " and ".join(f"`sare {COMMANDS.get(name, name)}`" for name in stages)
                raise StageError(
                    f"shard {row['shard']} of the {before} lacks {row['path']}, which its record counts as done: "
                    f"its file is cut, or another one. Run `sare verify --reopen`, then {commands}, then this stage "
                    "again."
                )
            if isinstance(sample, ImageError):
                shard.own += not isinstance(sample, NotReached)
                shard.record.failures.append(Failure(image_id=image_id, path=row["path"], reason=str(sample)))
            else:
                writers[row["shard"]].write(sample)
                shard.written[image_id] = set(sample) - {"__key__"}
                point("sample-written")
            advance(1)


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
def _written(path: Path) -> Iterator[None]:
    """An error of writing to the spool is one of the machine, and not of the shard: a ConfigError."""
    try:
        yield
    except OSError as error:
        if error.errno in _OF_WRITING or str(error.filename) == str(path):
            raise _unusable(path.parent, error) from error
        raise


def _make_spool(spool: Path) -> None:
    try:
        spool.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(spool, error) from error


def _unusable(spool: Path, error: OSError) -> ConfigError:
    what = "no space left" if error.errno == errno.ENOSPC else f"cannot be written ({error.strerror})"
    return ConfigError(f"{spool}: {what}. Shards are written there first: mend it, or set SARE_SPOOL to another.")
