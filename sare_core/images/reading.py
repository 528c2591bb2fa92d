"""The bytes of a user's image file, from a disk, an object store or the web. An error names the file and the cure."""

import errno
import os
import stat
from pathlib import Path

import stamina

from sare_core.errors import ImageError, TransientError
from sare_core.store import web
from sare_core.store.remote import filesystem, with_retries

MAX_BYTES = 2 << 30  # more than the most pixels that are decoded take uncompressed at 16 bits a channel


def read_bytes(path: str, limit: int = MAX_BYTES) -> bytes:
    """The bytes of a regular local file, or of a URL (s3://…, https://…) by fsspec. limit: of a local file, in bytes.

    Raises ImageError: gone, a dangling link, not permitted, too large, not a regular file (those are never opened: a
    pipe would block and a device never end), a name that no file can have; any fault of an http(s) URL. ConfigError: a
    URL that no installed package reads; a store that cannot be reached or refuses its user, which says nothing of this
    image. TransientError: any other fault of the disk or network, after three attempts, of an object store after
    minutes.
    """
    path = path.removeprefix("file://")
    _require_name(path)
    if "://" not in path:
        return _read_local(path, limit)
    if web.is_web(path):
        return web.read(path)
    store, place = filesystem(path)
    try:
        return bytes(with_retries(path, lambda: store.cat_file(place)))
    except FileNotFoundError as error:
        raise ImageError(
            f"{path}: is gone, or was never there. Restore it, leave it out, or index the dataset again."
        ) from error


def _require_name(path: str) -> None:
    try:
        if b"\0" not in os.fsencode(path):
            return
    except UnicodeEncodeError as error:
        raise ImageError(f"{path!r}: contains half of a surrogate pair, which no file name has.") from error
    raise ImageError(f"{path!r}: contains a null character, which no file name has.")


@stamina.retry(on=TransientError, attempts=3, wait_initial=0.1, wait_jitter=0.1)
def _read_local(path: str, limit: int) -> bytes:
    try:
        return _read_file(Path(path), limit)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError(
            f"{path}: is gone, or was never there. Restore it, leave it out, or index the dataset again."
        ) from error
    except PermissionError as error:
        raise ImageError(f"{path}: this user may not read it. Grant read permission, or leave it out.") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ImageError(f"{path}: is a link that leads back to itself. Remove it, or fix it.") from error
        if error.errno in {errno.ENAMETOOLONG, errno.EISDIR}:
            raise ImageError(f"{path}: cannot be opened: {error.strerror}.") from error
        raise TransientError(f"{path}: reading failed: {error}. Check the disk or network, then run again.") from error


def _read_file(path: Path, limit: int) -> bytes:
    try:
        status = path.stat()
    except FileNotFoundError as error:
        if not path.is_symlink():
            raise
        raise ImageError(
            f"{path}: is a link to {path.readlink()}, which is gone. Restore that, or remove the link."
        ) from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, socket or device"
        raise ImageError(f"{path}: is {kind}, not a regular file. Leave it out.")
    if status.st_size > limit:
        raise ImageError(f"{path}: has {status.st_size} bytes, more than the {limit} that are read. Leave it out.")
    # A file of /proc has no bytes until it is read, and to read it may never end.
    return path.read_bytes() if status.st_size else b""
