"""One shard's file and record: the file is written into the spool, read back, put in place and recorded."""

import errno
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sare_core.engine.faults import point
from sare_core.engine.flow import Row
from sare_core.engine.folders import Folder, Output, Record
from sare_core.engine.manifest import Index
from sare_core.engine.shardfiles import read_back
from sare_core.engine.spool import shard_path
from sare_core.engine.stage import Stage
from sare_core.errors import ConfigError, StageError, TransientError
from sare_core.store.storage import sha256_file

_OF_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # never of reading, though they name no file
_LIBRARIES = ("sare", "torch", "diffusers", "transformers", "timm", "numpy", "pillow", "webdataset", "pyarrow")

Sample = Callable[[], dict[str, Any]]


@dataclass
class Computed:
    """A shard whose file lies in the spool, or is on its way there. Its record lacks what `finish_shard` adds.

    upstream: the records that it is made from. before: what a retry adds to, and kept: what stays of it, by image_id.
    written: the fields of each key. own: images that failed at this stage, not at one before. seconds: that it took.
    """

    record: Record
    path: Path
    rows: list[Row]
    upstream: dict[str, Record | None]
    before: Record | None
    kept: dict[str, Sample] = field(default_factory=dict)
    written: dict[str, set[str]] = field(default_factory=dict)
    own: int = 0
    seconds: float = 0.0


def begun(stage: Stage, index: Index, shard: int, device: str, retry: bool) -> Computed:
    """A shard of which nothing is computed yet, with its record as far as it is known. retry: of what it lacks only."""
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
    return Computed(record, shard_path(folder, shard, stage.suffix), rows, upstream, before)


def finish_shard(folder: Folder, computed: Computed) -> Record:
    """Read the file back, put it in place, and record it. Raises StageError: it is not what was written."""
    record, path, before, started = computed.record, computed.path, computed.before, time.monotonic()
    with written(path):
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
def recorded(folder: Folder, record: Record, before: Record | None) -> Iterator[None]:
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
def written(path: Path) -> Iterator[None]:
    """An error of writing to the spool is one of the machine, and not of the shard: a ConfigError."""
    try:
        yield
    except OSError as error:
        if error.errno in _OF_WRITING or str(error.filename) == str(path):
            raise _unusable(path.parent, error) from error
        raise


def make_spool(spool: Path) -> None:
    """The folder in which files are written. Raises ConfigError: it cannot be made."""
    try:
        spool.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(spool, error) from error


def _unusable(spool: Path, error: OSError) -> ConfigError:
    what = "no space left" if error.errno == errno.ENOSPC else f"cannot be written ({error.strerror})"
    return ConfigError(f"{spool}: {what}. Shards are written there first: mend it, or set SARE_SPOOL to another.")
