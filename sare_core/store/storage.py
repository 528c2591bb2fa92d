"""A folder on disk or under a URL, and the one way in which anything is put there.

A file is in place whole or not at all: on disk by a temporary name, fsync and rename; on an object store a put is
atomic by itself. Data go under a name that holds their digest; the small JSON that names them goes last.
"""

import errno
import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from sare_core.errors import ConfigError
from sare_core.store.atomic import Replacement, unwritable
from sare_core.store.copies import spool_folder
from sare_core.store.digests import is_as_named, sha256_file
from sare_core.store.reading import ReadStore, retrying
from sare_core.store.remote import refused

__all__ = ["Store", "is_as_named", "place_of", "sha256_file", "spool_folder"]

CLOCK = 60.0  # seconds for which the offset of a store's clock holds
_BULK = 1000  # names that S3 deletes by one request

_clocks: dict[str, tuple[float, float]] = {}  # of each URL: when it was looked at (monotonic), offset to monotonic


class Store(ReadStore):
    """A folder, by path or URL. Names are relative to it, with `/` between parts.

    Every method raises ConfigError where a disk or object store refuses (rights, a file in a folder's place, no bucket,
    credentials) or a store cannot be reached, and TransientError when a store fails for minutes.
    """

    def clock(self) -> float:
        """Now, by the clock that `modified` tells: a probe that is written and looked at, once a minute.

        Where nothing can be written this host's clock has to do.
        """
        looked, offset = _clocks.get(self.url, (-CLOCK, 0.0))
        if time.monotonic() - looked >= CLOCK:
            probe = f".clock.{os.uname().nodename}.{os.getpid()}.{threading.get_ident()}"
            try:
                self.write(probe, b"")
                looked = time.monotonic()
                offset = self.modified(probe) - looked
                self.delete(probe)
            except (ConfigError, FileNotFoundError):
                return time.time()
            _clocks[self.url] = looked, offset
        return time.monotonic() + offset

    def age(self, name: str) -> float:
        """Seconds since a file was last written, by the store's own clock. Raises FileNotFoundError."""
        modified = self.modified(name)
        return max(self.clock() - modified, 0.0)

    @retrying
    def delete(self, name: str) -> None:
        """Remove a file; one that is gone already is fine."""
        try:
            self._fs.rm_file(self._full(name))
        except FileNotFoundError as error:
            if refused(error) == "NoSuchBucket":
                raise

    def delete_many(self, names: Sequence[str]) -> None:
        """Remove many files; those that are gone already are fine."""
        for start in range(0, len(names), _BULK):
            self._delete_each(names[start : start + _BULK])

    @retrying
    def _delete_each(self, names: Sequence[str]) -> None:
        if hasattr(self._fs, "_bulk_delete"):
            self._fs.rm([self._full(name) for name in names])
            return
        for name in names:
            self.delete(name)

    @retrying
    def delete_folder(self, folder: str) -> None:
        """Remove a sub-folder and all that is in it; one that is gone already is fine."""
        with suppress(FileNotFoundError):
            self._fs.rm(self._full(folder), recursive=True)

    @retrying
    def write(self, name: str, data: bytes) -> None:
        """Put bytes under a name, whole or not at all. Raises ConfigError when the folder cannot be written."""
        if not self.on_disk:
            self._fs.pipe_file(self._full(name), data)
            self._check(name, len(data))
            return
        with self._beside(name) as temporary:
            temporary.write(data)

    def require_writable(self) -> None:
        """Before work that takes long; makes the folder. Raises ConfigError: nothing can be put there."""
        self.write(".writable", b"")
        self.delete(".writable")

    @retrying
    def create(self, name: str, data: bytes) -> bool:
        """As `write`, but only if nothing has the name yet: of many who try at once, one wins. False for the others.

        Also False when an answer was lost on the way and the name is our own. Where a store knows no such request it
        is asked first, and then two may win.
        """
        full = self._full(name)
        if self.on_disk:
            try:
                with self._beside(name, only_new=True) as temporary:
                    temporary.write(data)
            except FileExistsError:
                return False
            return True
        try:
            self._fs.pipe_file(full, data, mode="create")
        except FileExistsError:
            return False
        except (OSError, TypeError, NotImplementedError) as error:  # the last two: no such request in this package
            if refused(error) == "PreconditionFailed":
                return False
            if isinstance(error, OSError) and error.errno != errno.ENOSYS:
                raise
            if self._fs.exists(full):
                return False
            self._fs.pipe_file(full, data)
        return True

    def move(self, source: Path, name: str) -> None:
        """As `put`, and the local file is gone: renamed where both lie on one disk, which takes no time."""
        if self.on_disk:
            with source.open("rb") as data:
                os.fsync(data.fileno())
            target = Path(self._full(name))
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                source.replace(target)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise unwritable(target, error) from error
            else:
                return
        self.put(source, name)
        source.unlink()

    @retrying
    def put(self, source: Path, name: str) -> None:
        """Put a local file under a name, whole or not at all. Raises ConfigError when the folder cannot be written."""
        if not self.on_disk:
            self._fs.put_file(str(source), self._full(name))
            self._check(name, source.stat().st_size)
            return
        with source.open("rb") as data, self._beside(name) as temporary:
            while block := data.read(1 << 22):
                temporary.write(block)

    def _check(self, name: str, size: int) -> None:
        """The client's checksum vouches for what the store received; this, for what it kept."""
        if (kept := int(self._fs.size(self._full(name)))) != size:
            raise OSError(errno.EIO, f"{name}: {size} bytes were put, {kept} lie there")

    def _beside(self, name: str, only_new: bool = False) -> "Replacement":
        return Replacement(Path(self._full(name)), only_new)


def place_of(path: str) -> tuple[Store, str]:
    """The folder of a file's path or URL, and its name in it."""
    folder, slash, name = path.rpartition("/")
    return Store(folder or slash or "."), name
