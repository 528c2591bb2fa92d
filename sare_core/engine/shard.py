"""One shard: computed into the spool, then read back, put in place and recorded.

The second part works on the file alone, so that it can run in a thread while the model is at the next shard.
"""

import errno
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
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
from sare_core.engine.shardfiles import WriteBehind, read_back, read_samples
from sare_core.engine.signals import check_stop, release_on_preemption
from sare_core.engine.spool import shard_path
from sare_core.engine.stage import Stage
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
    """A shard that lies in the spool. written: the fields of each key. before: what a retry adds to."""

    record: Record
    path: Path
    written: dict[str, set[str]]
    before: Record | None
    clock: float
    spooled: ExitStack  # closing it removes the file


def compute_shard(
    stage: Stage, index: Index, shard: int, device: str, threads: int, advance: Any, retry: bool
) -> Computed:
    """Run the shard's images through the stage into the spool.

    Raises StageError: the shard failed, whether its images, its files or the disk under them are to blame.
    """
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
    path = shard_path(folder, shard, stage.suffix)
    with ExitStack() as spooled, _recorded(folder, record, before), _written(path):
        _make_spool(path.parent)
        remove = partial(path.unlink, missing_ok=True)
        spooled.enter_context(release_on_preemption(remove))
        spooled.callback(remove)
        sources = {role: folder.upstream[role].output(found) for role, found in upstream.items() if found}
        stage.begin(shard, sources)
        kept = _kept(stage, rows, before) if before else {}
        written, record.failures = _compute(stage, rows, path, threads, advance, kept, upstream)
        point("spooled")
        return Computed(record, path, written, before, clock, spooled.pop_all())


def finish_shard(folder: Folder, computed: Computed) -> Record:
    """Read the file back, put it in place, and record it; the spool is empty afterwards. Raises StageError: failed."""
    record, path, before = computed.record, computed.path, computed.before
    with computed.spooled, _recorded(folder, record, before), _written(path):
        _check(path, computed.written, record)
        digest = sha256_file(path)
        name = f"{record.shard:05d}-{digest[:12]}{path.suffix}"
        record.output = Output(name=name, bytes=path.stat().st_size, sha256=digest)
        point("verified")
        folder.store.move(path, name)
        point("output-put")
        # A retry's seconds count on top: images / seconds is what a stage's rate is read from.
        record.seconds = round(time.monotonic() - computed.clock + (before.seconds if before else 0.0), 3)
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
    writer, written, failures, own = WriteBehind(stage.open(path)), {}, [], 0
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
