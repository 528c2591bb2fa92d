"""What lies under a dataset's root: the files that may be images, folder by folder, in one order on every machine.

Left out quietly: hidden files and folders (`.DS_Store`, `._photo.jpg`) and `Thumbs.db`. Left out and counted: what is
no image by its extension (archives, tables, notes). All else is found; whether it is an image, its content will say.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sare_core.errors import ConfigError
from sare_core.store import web
from sare_core.store.remote import filesystem, with_retries

MOST_LINKS = 100  # ways to one folder through links: more are links that fan out, folder upon folder
_SIDECAR = re.compile(r"\.(txt|csv|tsv|json|jsonl|md|zip|z\d\d|parquet|npz|pth|log)$", re.IGNORECASE)

TABLES = (".csv", ".tsv", ".jsonl", ".parquet")  # of paths, with layout folder


_Identity = tuple[int, int]  # device and inode of a folder


class Found(NamedTuple):
    """One file of a dataset, as an adapter understands its place."""

    path: str  # relative to the root, with `/`; an absolute path or URL only where a user's table says so
    bytes: int | None  # null: there is nothing behind the name
    mtime_ns: int | None
    subset: str
    split: str  # train, val or test
    label: int | None  # 0 real, 1 fake
    class_name: str | None  # what the "class" column of the index holds


class Problem(NamedTuple):
    """Something that the user should know and that does not stop the work. An empty path: the dataset as a whole."""

    path: str
    problem: str


class File(NamedTuple):
    """A file by its name within a folder; size and time are null where there are none (a dangling link)."""

    name: str
    bytes: int | None
    mtime_ns: int | None


def is_table(root: str) -> bool:
    """Whether a root is a table of paths rather than a folder."""
    return root.lower().endswith(TABLES) and not ("://" not in root and Path(root).is_dir())


def normalised(root: str) -> str:
    """A root as it stands in an index: absolute, or a URL."""
    if "://" not in root:
        root = os.path.normpath(Path(root).absolute())
    return root.rstrip("/") or "/"


def base_folder(root: str) -> str:
    """The folder that the paths of an index are relative to: the root, or for a table the folder that it lies in."""
    return (normalised(root).rpartition("/")[0] or "/") if is_table(root) else normalised(root)


def ancestry(root: str) -> tuple[str, ...]:
    """The names of the folders that lead to the root, itself last: a root may be a part of a known layout."""
    return tuple(part for part in base_folder(root).rpartition("://")[2].split("/") if part)


def walk(root: str, problems: list[Problem]) -> Iterator[tuple[str, list[File]]]:
    """Each folder that holds files, relative to the root ("" is the root itself), in sorted order, with its files.

    Links are followed, except to a folder above them. Raises ConfigError: no such folder, one that cannot be read, or
    one that more than MOST_LINKS ways lead to.
    """
    skipped: Counter[str] = Counter()
    for folder, files in _remote(root) if "://" in root else _local(root, "", frozenset(), Counter(), problems):
        images = []
        for file in sorted(files):
            place = f"{folder}/{file.name}".lstrip("/")
            if _hidden(file.name):
                continue
            if sidecar := _SIDECAR.search(file.name):
                skipped[sidecar[0].lower()] += 1
            elif not _is_text(file.name):
                problems.append(Problem(_shown(place), "not read: the name is not valid UTF-8; rename the file"))
            else:
                images.append(file)
        if images:
            yield folder, images
    problems += [Problem("", f"{count:,} {kind} files left out: not images") for kind, count in sorted(skipped.items())]


def stat(path: str) -> tuple[int | None, int | None]:
    """Size and modification time (ns) of one file, by path or URL; nulls when there is nothing."""
    if web.is_web(path):
        return _size_and_time(info) if (info := web.info(path)) else (None, None)
    if "://" in path:
        fs, name = filesystem(path)
        try:
            return _size_and_time(with_retries(path, lambda: fs.info(name)))
        except FileNotFoundError:
            return None, None
    return _stat(Path(path))


def _stat(entry: Path | os.DirEntry[str]) -> tuple[int | None, int | None]:
    try:
        status = entry.stat()
    except OSError:
        return None, None
    return status.st_size, status.st_mtime_ns


def _local(
    root: str, folder: str, above: frozenset[_Identity], seen: Counter[_Identity], problems: list[Problem]
) -> Iterator[tuple[str, list[File]]]:
    place, folders, files = Path(root, folder), list[str](), list[File]()
    try:
        itself = place.stat()
        with os.scandir(place) as entries:
            for entry in entries:
                if _is_folder(entry):
                    folders.append(entry.name)
                else:
                    files.append(File(entry.name, *_stat(entry)))
    except FileNotFoundError:
        raise ConfigError(f"{place}: no such folder.") from None
    except NotADirectoryError:
        raise ConfigError(
            f"{place}: a file, not a folder. A table of paths ({', '.join(TABLES)}) goes with --layout folder."
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{place}: cannot be listed ({error.strerror}). Grant read permission, or move it."
        ) from error
    # Only a folder above this one makes a loop; a few links to one folder of reals are meant.
    identity = (itself.st_dev, itself.st_ino)
    if identity in above:
        problems.append(Problem(folder, "not followed: a link to a folder above it"))
        return
    seen[identity] += 1
    if seen[identity] > MOST_LINKS:
        raise ConfigError(
            f"{place}: reached in more than {MOST_LINKS} ways through links. Remove links, or index a folder of fewer."
        )
    yield folder, files
    for name in sorted(folders):
        path = f"{folder}/{name}".lstrip("/")
        if not _is_text(name):
            problems.append(Problem(_shown(path), "not read: the name is not valid UTF-8; rename the folder"))
        elif not _hidden(name):
            yield from _local(root, path, above | {identity}, seen, problems)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _remote(root: str) -> Iterator[tuple[str, list[File]]]:
    fs, top = filesystem(root)
    folders: dict[str, list[File]] = {}
    found = with_retries(root, lambda: fs.find(top, detail=True))
    for name, info in found.items():
        place = name.removeprefix(top).strip("/")
        # An empty object with a name like a folder's is how a web console makes folders.
        if not place or name.endswith("/") or info["type"] != "file":
            continue
        folder, _, file = place.rpartition("/")
        if not any(_hidden(part) for part in place.split("/")):
            folders.setdefault(folder, []).append(File(file, *_size_and_time(info)))
    if not folders:
        raise ConfigError(f"{root}: no such folder, or nothing in it.")
    yield from sorted(folders.items(), key=lambda item: item[0].split("/"))  # "a/b" comes before "a-b", as on a disk


def _size_and_time(info: dict[str, Any]) -> tuple[int | None, int]:
    time = info.get("mtime") or info.get("LastModified") or info.get("last_modified") or 0
    seconds = time if isinstance(time, int | float) else time.timestamp()
    return info.get("size"), int(seconds * 1e9)


def _hidden(name: str) -> bool:
    ours = ("miniature.json", "premise.csv", "oracle-captions.csv")  # `sare mini` writes them
    return name.startswith(".") or name in ("Thumbs.db", "README.txt", "README.md", *ours)


def _is_text(name: str) -> bool:
    """Whether a name can stand in a table; Linux allows any bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(path: str) -> str:
    return path.encode(errors="backslashreplace").decode()
