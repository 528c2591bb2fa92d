"""A folder on disk or under a URL, and the one way in which anything is put there.

A file is in place whole or not at all: on disk by a temporary name, fsync and rename; on an object store a put is
atomic by itself. Data go under a name that holds their digest; the small JSON that names them goes last.
"""

import errno
import hashlib
import os
import tempfile
from pathlib import Path

import fsspec
import stamina

from sare_core.errors import ConfigError

# What will not pass by waiting. Any other OSError (a stale NFS handle, a cut connection) is worth another try.
_LASTING = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_LASTING |= {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG}  # something else has the name


def _passing(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno not in _LASTING and not isinstance(error, FileNotFoundError)


retrying = stamina.retry(on=_passing, attempts=4, wait_initial=0.2, wait_max=5.0)


class Store:
    """A folder, by path or URL. Names are relative to it, with `/` between parts."""

    def __init__(self, url: str) -> None:
        self.url = url if url.endswith("://") or url == "/" else url.rstrip("/")
        self._fs, self._root = fsspec.core.url_to_fs(self.url)
        self.on_disk = "file" in (self._fs.protocol if isinstance(self._fs.protocol, tuple) else (self._fs.protocol,))

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def at(self, name: str) -> "Store":
        """The sub-folder `name`; it need not exist."""
        return Store(f"{self.url}/{name}")

    def path(self, name: str) -> str:
        """The full path or URL of a name, as messages show it."""
        return f"{self.url}/{name}"

    def _full(self, name: str) -> str:
        return f"{self._root}/{name}"

    @retrying
    def exists(self, name: str) -> bool:
        return bool(self._fs.exists(self._full(name)))

    @retrying
    def names(self, folder: str = "") -> list[str]:
        """Names of the files directly in a sub-folder, sorted; none when it does not exist."""
        full = self._full(folder) if folder else self._root
        self._fs.invalidate_cache(full)
        try:
            entries = self._fs.ls(full, detail=True)
        except FileNotFoundError:
            return []
        return sorted(Path(entry["name"]).name for entry in entries if entry["type"] == "file")

    @retrying
    def folders(self, folder: str = "") -> list[str]:
        """Names of the sub-folders directly in a folder, sorted; none when it does not exist."""
        full = self._full(folder) if folder else self._root
        self._fs.invalidate_cache(full)
        try:
            entries = self._fs.ls(full, detail=True)
        except FileNotFoundError:
            return []
        return sorted(Path(entry["name"]).name for entry in entries if entry["type"] == "directory")

    @retrying
    def read(self, name: str) -> bytes:
        """The bytes of a file. Raises FileNotFoundError."""
        return bytes(self._fs.cat_file(self._full(name)))

    @retrying
    def size(self, name: str) -> int:
        return int(self._fs.size(self._full(name)))

    @retrying
    def delete(self, name: str) -> None:
        """Remove a file; one that is gone already is fine."""
        if self._fs.exists(self._full(name)):
            self._fs.rm_file(self._full(name))

    @retrying
    def write(self, name: str, data: bytes) -> None:
        """Put bytes under a name, whole or not at all. Raises ConfigError when the folder cannot be written."""
        if not self.on_disk:
            self._fs.pipe_file(self._full(name), data)
            return
        with self._beside(name) as temporary:
            temporary.write(data)

    @retrying
    def put(self, source: Path, name: str) -> None:
        """Put a local file under a name, whole or not at all. Raises ConfigError when the folder cannot be written."""
        if not self.on_disk:
            self._fs.put_file(str(source), self._full(name))
            return
        with source.open("rb") as data, self._beside(name) as temporary:
            while block := data.read(1 << 22):
                temporary.write(block)

    def _beside(self, name: str) -> "_Replacement":
        return _Replacement(Path(self._full(name)))

    def local(self, name: str) -> Path:
        """A path to read a file from: the file itself, or a copy of it that is kept for this user.

        Only for names that hold their content's digest, so that a copy can never be out of date.
        """
        if self.on_disk:
            return Path(self._full(name))
        kept = spool_folder() / "copies" / hashlib.sha256(self.url.encode()).hexdigest()[:16] / name
        if not kept.exists():
            with _Replacement(kept) as temporary:
                temporary.write(self.read(name))
        return kept


class _Replacement:
    """A file written beside its final name, synced and renamed on a clean exit, removed on any other."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._temporary = target.with_name(f".{target.name}.{os.uname().nodename}.{os.getpid()}.tmp")

    def __enter__(self) -> "_Replacement":
        try:
            self._target.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._temporary.open("wb")
        except OSError as error:
            raise _unwritable(self._target, error) from error
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
                self._temporary.replace(self._target)
        except OSError as fault:
            raise _unwritable(self._target, fault) from fault
        finally:
            self._temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _unwritable(self._target, error) from error


def _unwritable(target: Path, error: OSError) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ConfigError(f"{target}: no space left. Free some and run the same command: it goes on where it was.")
    if error.errno in _LASTING:
        return ConfigError(
            f"{target}: cannot be written ({error.strerror}). Choose another folder, or mend its rights."
        )
    return error


def spool_folder() -> Path:
    """Where shards are written before they are put in place: $SARE_SPOOL, or this user's folder in the temp dir."""
    return Path(os.environ.get("SARE_SPOOL") or Path(tempfile.gettempdir()) / f"sare-{os.getuid()}")


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()
