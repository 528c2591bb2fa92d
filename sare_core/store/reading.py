"""The reading half of a store: a folder on disk or under a URL, seen the same way."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial, wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, Self, TypeVar

import fsspec
import stamina

from sare_core.errors import ConfigError
from sare_core.store.atomic import unwritable
from sare_core.store.copies import kept_copy, spool_folder
from sare_core.store.remote import filesystem, is_retryable, listing, refused, with_retries

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bound="ReadStore")

_AT_ONCE = 500  # small files that are asked for together
_THREADS = 16  # for small files of a network disk

_on_disk = stamina.retry(on=is_retryable, attempts=4, wait_initial=0.2, wait_max=5.0)


def retrying(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """A passing fault is tried again: a disk's a few times, an object store's for minutes."""
    disk = _on_disk(method)

    @wraps(method)
    def tried(self: S, *args: P.args, **kwargs: P.kwargs) -> T:
        if self.on_disk:
            try:
                return disk(self, *args, **kwargs)
            except (PermissionError, NotADirectoryError, IsADirectoryError) as error:
                raise ConfigError(
                    f"{error.filename or self.url}: {error.strerror}. Fix its permissions, or name another folder."
                ) from error
        return with_retries(self.url, partial(method, self, *args, **kwargs))

    return tried


class ReadStore:
    """What can be read of a folder, by path or URL; see `Store`."""

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

    def at(self, name: str) -> Self:
        """The sub-folder `name`; it need not exist."""
        return type(self)(f"{self.url}/{name}")

    def path(self, name: str) -> str:
        """The full path or URL of a name, as messages show it."""
        return f"{self.url}/{name}"

    def _full(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    @retrying
    def exists(self, name: str) -> bool:
        return bool(self._fs.exists(self._full(name)))

    def names(self, folder: str = "") -> list[str]:
        """Names of the files directly in a sub-folder, sorted; none when it does not exist."""
        return self._list(folder)[0]

    def folders(self, folder: str = "") -> list[str]:
        """Names of the sub-folders directly in a folder, sorted; none when it does not exist."""
        return self._list(folder)[1]

    @retrying
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

    @retrying
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

    @retrying
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

    @retrying
    def size(self, name: str) -> int:
        return int(self._fs.size(self._full(name)))

    @retrying
    def modified(self, name: str) -> float:
        """When a file was last written, in seconds since 1970 by the clock of whatever stamps the files.

        An object store's is whole seconds. Raises FileNotFoundError.
        """
        if self.on_disk:
            return Path(self._full(name)).stat().st_mtime
        return float(self._fs.modified(self._full(name)).timestamp())

    @retrying
    def sizes(self, folder: str = "") -> dict[str, int]:
        """Bytes of every file below a folder, by its full path."""
        return {path: int(facts["size"]) for path, facts in self._fs.find(self._full(folder), detail=True).items()}

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

    @retrying
    def _get(self, name: str, place: Path) -> None:
        self._fs.get_file(self._full(name), str(place))
