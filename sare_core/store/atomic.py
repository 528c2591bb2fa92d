"""A file on a disk that is in place whole or not at all: a temporary name, fsync, then the name that it is to have."""

import errno
import os
import threading
from pathlib import Path

from sare_core.errors import ConfigError
from sare_core.store.remote import LASTING


class Replacement:
    """A file written beside its final name, synced and put there on a clean exit, removed on any other.

    only_new: raises FileExistsError, and leaves it alone, when something has the name.
    """

    def __init__(self, target: Path, only_new: bool = False) -> None:
        self._target, self._only_new = target, only_new
        mark = f"{os.uname().nodename}.{os.getpid()}.{threading.get_ident()}"
        self._temporary = target.with_name(f".{target.name}.{mark}.tmp")

    def __enter__(self) -> "Replacement":
        try:
            self._target.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._temporary.open("wb")
        except OSError as error:
            raise unwritable(self._target, error) from error
        return self

    def write(self, data: bytes) -> None:
        self._file.write(data)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        try:
            if kind is None:
                self._file.flush()
                os.fsync(self._file.fileno())
            self._file.close()
            if kind is None:
                self._put_in_place()
        except OSError as fault:
            if self._only_new and isinstance(fault, FileExistsError):
                raise
            raise unwritable(self._target, fault) from fault
        finally:
            self._temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise unwritable(self._target, error) from error

    def _put_in_place(self) -> None:
        if not self._only_new:
            self._temporary.replace(self._target)
            return
        try:
            os.link(self._temporary, self._target)
        except FileExistsError:
            if self._temporary.stat().st_nlink != 2:  # else it is ours: NFS had lost its answer and asked again
                raise
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
                raise
            # A file system without hard links: here a reader may see the name before all of its bytes.
            with self._target.open("xb") as file:
                file.write(self._temporary.read_bytes())


def unwritable(target: Path, error: OSError) -> Exception:
    """An error of writing as a ConfigError with its cure; itself where another try may help."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ConfigError(f"{target}: no space left. Free some and run the same command: it goes on where it was.")
    if error.errno in LASTING:
        return ConfigError(
            f"{target}: cannot be written ({error.strerror}). Choose another folder, or fix its permissions."
        )
    return error
