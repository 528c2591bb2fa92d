"""A folder on disk or under a URL, and the one way in which anything is put there.

A file is in place whole or not at all: on disk by a temporary name, fsync and rename; on an object store a put is
atomic by itself. Data go under a name that holds their digest; the small JSON that names them goes last.
"""

import errno
import hashlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import lru_cache, partial, wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import fsspec
import stamina

from sare_core.errors import ConfigError
from sare_core.store.atomic import Replacement, unwritable
from sare_core.store.copies import kept_copy
from sare_core.store.remote import filesystem, is_retryable, listing, refused, with_retries

P = ParamSpec("P")
T = TypeVar("T")

CLOCK = 60.0  # seconds for which the offset of a store's clock holds
_AT_ONCE = 500  # small files that are asked for together
_BULK = 1000  # names that S3 deletes by one request
_THREADS = 16  # for small files of a network disk

_clocks: dict[str, tuple[float, float]] = {}  # of each URL: when it was looked at (monotonic), offset to monotonic

_on_disk = stamina.retry(on=is_retryable, attempts=4, wait_initial=0.2, wait_max=5.0)


def _retrying(method: Callable[Concatenate["Store", P], T]) -> Callable[Concatenate["Store", P], T]:
    """A passing fault is tried again: a disk's a few times, an object store's for minutes."""
    disk = _on_disk(method)

    @wraps(method)
    def tried(self: "Store", *args: P.args, **kwargs: P.kwargs) -> T:
        if self.on_disk:
            try:
                return disk(self, *args, **kwargs)
            except (PermissionError, NotADirectoryError, IsADirectoryError) as error:
                raise ConfigError(
                    f"{error.filename or self.url}: {error.strerror}. Mend its rights, or name another folder."
                ) from error
        return with_retries(self.url, partial(method, self, *args, **kwargs))

    return tried


class Store:
    """A folder, by path or URL. Names are relative to it, with `/` between parts.

    Every method raises ConfigError where a disk or object store refuses (rights, a file in a folder's place, no bucket,
    credentials) or a store cannot be reached, and TransientError when a store fails for minutes.
    """

    def __init__(self, url: str) -> None:
        self.url = url if url.endswith("://") or url == "/" else url.rstrip("/")
        protocol = self._fs.protocol
        self.on_disk = "file" in ((protocol,) if isinstance(protocol, str) else protocol)

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    @property
    def _fs(self) -> fsspec.AbstractFileSystem:
        return filesystem(self.url)[0]

    @property
    def _root(self) -> str:
        return filesystem(self.url)[1]

    def at(self, name: str) -> "Store":
        """The sub-folder `name`; it need not exist."""
        return Store(f"{self.url}/{name}")

    def path(self, name: str) -> str:
        """The full path or URL of a name, as messages show it."""
        return f"{self.url}/{name}"

    def _full(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    @_retrying
    def exists(self, name: str) -> bool:
        return bool(self._fs.exists(self._full(name)))

    def names(self, folder: str = "") -> list[str]:
        """Names of the files directly in a sub-folder, sorted; none when it does not exist."""
        return self._list(folder)[0]

    def folders(self, folder: str = "") -> list[str]:
        """Names of the sub-folders directly in a folder, sorted; none when it does not exist."""
        return self._list(folder)[1]

    @_retrying
    def _list(self, folder: str) -> tuple[list[str], list[str]]:
        files: list[str] = []
        folders: list[str] = []
        if self.on_disk:
            try:
                with os.scandir(self._full(folder)) as entries:
                    for entry in entries:
                        (folders if entry.is_dir() else files).append(entry.name)
            except FileNotFoundError:
                return [], []
        else:
            for found in listing(self._fs, self._full(folder)):
                name = str(found["name"]).rstrip("/").rpartition("/")[2]
                (folders if found["type"] == "directory" else files).append(name)
        return sorted(files), sorted(folders)

    @_retrying
    def read(self, name: str) -> bytes:
        """The bytes of a file. Raises FileNotFoundError."""
        return bytes(self._fs.cat_file(self._full(name)))

    def read_many(self, names: Sequence[str]) -> dict[str, bytes]:
        """The bytes of many small files, read side by side; those that are not there are left out."""
        if not self.on_disk:
            batches = [names[start : start + _AT_ONCE] for start in range(0, len(names), _AT_ONCE)]
            return {name: data for batch in batches for name, data in self._cat(batch).items()}
        if len(names) <= _THREADS:
            return self._read_each(names)
        with ThreadPoolExecutor(_THREADS) as threads:
            parts = threads.map(self._read_each, [names[start::_THREADS] for start in range(_THREADS)])
        found = {name: data for part in parts for name, data in part.items()}
        return {name: found[name] for name in names if name in found}

    @_retrying
    def _read_each(self, names: Sequence[str]) -> dict[str, bytes]:
        found = {}
        for name in names:
            try:
                found[name] = Path(self._full(name)).read_bytes()
            except FileNotFoundError:
                continue
        return found

    def _cat(self, names: Sequence[str]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        left = {self._full(name): name for name in names}

        def cat() -> None:
            faults = []
            for full, data in self._fs.cat(list(left), on_error="return").items() if left else ():
                if isinstance(data, bytes):
                    found[left.pop(full)] = data
                elif isinstance(data, FileNotFoundError) and refused(data) != "NoSuchBucket":
                    del left[full]
                else:
                    faults.append(data)
            if faults:  # what was read is kept: the next try asks for the rest only
                raise faults[0]

        with_retries(self.url, cat)
        return {name: found[name] for name in names if name in found}

    @_retrying
    def size(self, name: str) -> int:
        return int(self._fs.size(self._full(name)))

    @_retrying
    def modified(self, name: str) -> float:
        """When a file was last written, in seconds since 1970 by the clock of whatever stamps the files.

        An object store's is whole seconds. Raises FileNotFoundError.
        """
        if self.on_disk:
            return Path(self._full(name)).stat().st_mtime
        return float(self._fs.modified(self._full(name)).timestamp())

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

    @_retrying
    def delete(self, name: str) -> None:
        """Remove a file; one that is gone already is fine."""
        if self.on_disk:
            Path(self._full(name)).unlink(missing_ok=True)
            return
        try:
            self._fs.rm_file(self._full(name))
        except FileNotFoundError as error:
            if refused(error) == "NoSuchBucket":
                raise

    def delete_many(self, names: Sequence[str]) -> None:
        """Remove many files; those that are gone already are fine."""
        for start in range(0, len(names), _BULK):
            self._delete_each(names[start : start + _BULK])

    @_retrying
    def _delete_each(self, names: Sequence[str]) -> None:
        if hasattr(self._fs, "_bulk_delete"):
            self._fs.rm([self._full(name) for name in names])
            return
        for name in names:
            self.delete(name)

    @_retrying
    def delete_folder(self, folder: str) -> None:
        """Remove a sub-folder and all that is in it; one that is gone already is fine."""
        with suppress(FileNotFoundError):
            if self.on_disk:
                shutil.rmtree(self._full(folder))
            else:
                self._fs.rm(self._full(folder), recursive=True)

    @_retrying
    def sizes(self, folder: str = "") -> dict[str, int]:
        """Bytes of every file below a folder, by its full path."""
        return {path: int(facts["size"]) for path, facts in self._fs.find(self._full(folder), detail=True).items()}

    @_retrying
    def write(self, name: str, data: bytes) -> None:
        """Put bytes under a name, whole or not at all. Raises ConfigError when the folder cannot be written."""
        if not self.on_disk:
            self._fs.pipe_file(self._full(name), data)
            self._check(name, len(data))
            return
        with self._beside(name) as temporary:
            temporary.write(data)

    @_retrying
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

    @_retrying
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

    def local(self, name: str) -> Path:
        """A path to read a file from: the file itself, or a copy of it that is kept for this user.

        Only for names that hold their content's digest, so that a copy can never be out of date. A copy may go an hour
        after it was last asked for: ask again, or hold the file open. Raises FileNotFoundError; StageError when the
        file is not what its name says.
        """
        if self.on_disk:
            return Path(self._full(name))
        copies = spool_folder() / "copies"
        place = copies / hashlib.sha256(self.url.encode()).hexdigest()[:16] / name
        try:
            return kept_copy(place, self.path(name), partial(self.size, name), partial(self._get, name))
        except OSError as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise unwritable(place, error) from error

    @contextmanager
    def fetched(self, name: str) -> Iterator[Path]:
        """A file as it lies in the store now: a copy that was kept from before would vouch for nothing."""
        if self.on_disk:
            yield self.local(name)
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_bytes(self.read(name))
            yield path

    @_retrying
    def _get(self, name: str, place: Path) -> None:
        self._fs.get_file(self._full(name), str(place))


def spool_folder() -> Path:
    """Where shards are written before they are put in place: $SARE_SPOOL, or this user's folder in the temp dir."""
    return Path(os.environ.get("SARE_SPOOL") or Path(tempfile.gettempdir()) / f"sare-{os.getuid()}")


def is_as_named(path: Path) -> bool:
    """Whether a file's name holds the digest of its bytes, as `stem-<12 hex digits>.suffix`.

    Hashed once a process, as long as nothing writes to the file.
    """
    status = path.stat()
    state = status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    return path.stem.endswith("-" + _sha256(path, state)[:12])


@lru_cache(maxsize=256)
def _sha256(path: Path, state: tuple[int, ...]) -> str:
    return sha256_file(path)


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()
