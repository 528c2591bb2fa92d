"""SHA-256 of files, by which outputs are named and copies are checked."""

import hashlib
from functools import lru_cache
from pathlib import Path


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


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
