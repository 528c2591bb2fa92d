"""What a user points at: files, folders, tables, lists and URLs, as one stream of paths that can be opened."""

import sys
from collections.abc import Callable, Iterable, Iterator
from os.path import lexists
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from sare_core.errors import ConfigError
from sare_core.images.decoding import DECODING_ERRORS, EXTENSIONS
from sare_core.index.listing import Problem, is_table, walk
from sare_core.index.table import find_paths

LISTS = (".txt", ".list", ".urls")  # a path or URL a line


class Source(NamedTuple):
    """One image to look at. problem: why it cannot even be opened."""

    path: str
    problem: str = ""


def are_files(arguments: Iterable[str]) -> bool:
    """Whether each argument is one image, rather than many."""
    return not any(each == "-" or _is_list(each) or is_table(each) or _is_folder(each) for each in arguments)


def sources(arguments: Iterable[str], tell: Callable[[str], object] = lambda note: None) -> Iterator[Source]:
    """In the order of the arguments; within folders sorted. `-` reads paths from standard input, one a line.

    tell: is told how many files of a folder are left out by their names.
    Raises ConfigError: a folder, table or list cannot be read. A single file that cannot is a row with its reason.
    """
    for argument in arguments:
        if not argument:
            raise ConfigError("the name of an image is empty. For the current folder say `.`.")
        if argument == "-":
            yield from _lines((line.decode(errors="surrogateescape") for line in sys.stdin.buffer), Path())
        elif is_table(argument):
            for number, path in enumerate(find_paths(argument), 1):
                yield Source(path or argument, "" if path else f"row {number} of {argument} has no path")
        elif _is_list(argument):
            try:
                with Path(argument).open(encoding="utf-8", errors="surrogateescape") as file:
                    yield from _lines(file, Path(argument).parent)
            except OSError as error:
                raise ConfigError(f"{argument}: cannot be read ({error.strerror}).") from error
        elif _is_folder(argument):
            yield from _of_folder(argument, tell)
        elif "://" not in argument and (argument.endswith("/") or not (Path(argument).suffix or lexists(argument))):
            raise ConfigError(f"{argument}: no such file or folder.")
        else:
            yield Source(argument)


def _of_folder(folder: str, tell: Callable[[str], object]) -> Iterator[Source]:
    problems: list[Problem] = []
    for place, files in walk(folder, problems):
        for file in files:
            yield Source("/".join(filter(None, (folder.rstrip("/") or "/", place, file.name))))
    for each in problems:
        if not each.path:
            tell(f"{folder}: {each.problem} by their names.")
            continue
        path = f"{folder.rstrip('/')}/{each.path}"
        yield Source(path, f"{path}: {each.problem}")


def _lines(file: Iterable[str], base: Path) -> Iterator[Source]:
    """Empty lines and those that begin with # are left out; relative paths are relative to `base`."""
    for line in file:
        path = line.rstrip("\r\n")
        if path.strip() and not path.startswith("#"):
            yield Source(path if "://" in path else str(base / path))


def _is_list(argument: str) -> bool:
    return (
        "://" not in argument and argument.lower().endswith(LISTS) and not (_is_folder(argument) or _is_image(argument))
    )


def _is_image(path: str) -> bool:
    """By its first bytes, whatever its name."""
    try:
        with Image.open(path, formats=tuple(EXTENSIONS)):
            return True
    except DECODING_ERRORS:
        return False


def _is_folder(argument: str) -> bool:
    """Object stores have no cheap answer: there a folder is named with a slash at its end."""
    return argument.endswith("/") if "://" in argument else Path(argument).is_dir()
