"""Local copies of an object store's files, for readers that want a path: kept for this user, bounded, never half.

Only files whose names hold their content's digest are copied, so a copy can be checked and is never out of date.
"""

import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sare_core.errors import StageError
from sare_core.store.digests import sha256_file

SHARE = 0.5  # of the disk's free space and the copies together: what copies may take
RECENT = 3600.0  # seconds; what was used since is left alone, for others may be reading it

_DIGEST = re.compile(r"-([0-9a-f]{12})\.[a-z]+$")


def kept_copy(place: Path, url: str, size: Callable[[], int], fetch: Callable[[Path], object]) -> Path:
    """The copy at `place` of the file at `url`, fetched if it is not there; whole, or not there at all.

    size: bytes of the file, asked for when it has to be fetched. fetch: writes it to the path that it is given.
    Raises StageError when the bytes are not those that the name promises.
    """
    try:
        os.utime(place)  # the oldest by use goes first
        return place
    except FileNotFoundError:
        pass
    make_room(place.parents[1], size())
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(f".{place.name}.{os.getpid()}.{time.monotonic_ns()}.tmp")
    try:
        fetch(temporary)
        digest = _DIGEST.search(place.name)
        if digest and not sha256_file(temporary).startswith(digest[1]):
            raise StageError(
                f"{url}: does not hold what its name says. `sare verify --reopen` opens its shard again; "
                "then run the stage that made it."
            )
        temporary.replace(place)
    finally:
        temporary.unlink(missing_ok=True)
    return place


def make_room(folder: Path, wanted: int) -> None:
    """Remove the copies that were not used for longest until `wanted` more bytes keep within the share."""
    folder.mkdir(parents=True, exist_ok=True)
    copies = sorted((status.st_mtime, status.st_size, path) for path, status in _files(folder))
    used = sum(size for _, size, _ in copies)
    limit = SHARE * (shutil.disk_usage(folder).free + used)
    for when, size, path in copies:
        if used + wanted <= limit or time.time() - when < RECENT:
            return
        path.unlink(missing_ok=True)
        used -= size


def _files(folder: Path) -> list[tuple[Path, os.stat_result]]:
    found = []
    for path in folder.rglob("*"):
        try:
            status = path.stat()
        except FileNotFoundError:  # another process made room
            continue
        if path.is_file():
            found.append((path, status))
    return found


def spool_folder() -> Path:
    """Where shards are written before they are put in place: $SARE_SPOOL, or this user's folder in the temp dir."""
    return Path(os.environ.get("SARE_SPOOL") or Path(tempfile.gettempdir()) / f"sare-{os.getuid()}")
