"""Outputs of stages as other stages read them: the very bytes that their records name, or an error.

So nothing is ever made from wrong bytes, and once a damaged output has been made anew, with the digest that it had,
all that was made from it before still holds.
"""

import fcntl
import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from sare_core.errors import StageError
from sare_core.store.storage import Store, sha256_file, spool_folder

CURE = "`sare verify --reopen` opens its shard again; then run the stage that made it."


def checked_output(store: Store, name: str, sha256: str, once: bool = False) -> Path:
    """A path to read an output from.

    Raises StageError unless it is there and its bytes have the SHA-256. The whole file is read for that; with `once`
    not again on this machine until something writes to it, for readers that open a file in many processes and epochs.
    An object store's file is checked when its copy is fetched.
    """
    where = store.path(name)

    def check() -> None:
        if sha256_file(path) != sha256:
            raise StageError(f"{where}: not the bytes that its record names. {CURE}")

    try:
        path = store.local(name)
        if not store.on_disk:
            if f"-{sha256[:12]}." not in name:  # what the copy was checked against
                raise StageError(f"{where}: its record gives another digest than its name. {CURE}")
        elif once:
            _check_once(path, sha256, check)
        else:
            check()
    except FileNotFoundError as error:
        raise StageError(f"{where}: gone, though a record names it. {CURE}") from error
    except OSError as error:
        raise StageError(f"{where}: cannot be read ({error.strerror}). Mend its rights or its disk. {CURE}") from error
    return path


def _check_once(path: Path, sha256: str, check: Callable[[], None]) -> None:
    """Call `check` unless a mark in the spool says that the file has passed in the state that it is in now.

    Of the processes that ask at once one checks, and the others wait for it.
    """
    status = path.stat()
    times = status.st_mtime_ns, status.st_ctime_ns
    state = f"{sha256} {status.st_dev} {status.st_ino} {status.st_size} {times}".encode()
    mark = spool_folder() / "checked" / hashlib.sha256(str(path.absolute()).encode()).hexdigest()
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        file = mark.open("a+b", buffering=0)
    except OSError:  # where no mark can be put, each process checks
        check()
        return
    with file:
        with suppress(OSError):  # a file system without locks: then some check side by side
            fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        if file.read() != state:
            check()
            with suppress(OSError):
                file.truncate(0)
                file.write(state)
