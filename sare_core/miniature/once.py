"""A folder that is built once, and appears whole or not at all."""

import glob
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from sare_core.errors import ConfigError
from sare_core.store.atomic import unwritable

VERSION = 5  # raise it when what is written changes: folders of another version are built anew
MARKER = "miniature.json"


@contextmanager
def built_once(folder: Path, recipe: dict[str, Any]) -> Iterator[Path | None]:
    """Yields a folder to fill, which becomes `folder` at one stroke; or None if that recipe stands there, and whole.

    Raises ConfigError: `folder` holds what this function has not written, and nothing of it is touched; or it cannot be
    written.
    """
    folder = folder.resolve()  # a link stays, and what it leads to is replaced
    built, there = _read(folder / MARKER), _files(folder)
    strangers = there.keys() - (built["files"] if built else {})
    if strangers or (folder.exists() and not folder.is_dir()):
        stranger = folder / min(strangers, default="")
        raise ConfigError(f"{stranger}: was not written by the miniature builder; move it, or name another folder.")
    if built is not None and built["recipe"] == recipe and there == built["files"]:
        yield None
        return
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    for left in folder.parent.glob(f".{glob.escape(folder.name)}.*.partial"):  # by this process, or one that was killed
        pid = left.name.split(".")[-2]
        if pid.isdigit() and (int(pid) == os.getpid() or not psutil.pid_exists(int(pid))):
            shutil.rmtree(left, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
        (partial / MARKER).write_text(json.dumps({"recipe": recipe, "files": _files(partial)}) + "\n")
        if folder.exists():  # ours, but of another recipe, or not whole; or empty
            shutil.rmtree(folder)
        partial.rename(folder)
    except OSError as error:
        raise unwritable(folder, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _read(marker: Path) -> dict[str, Any] | None:
    """What a marker says; None if it is none of this version."""
    try:
        said = json.loads(marker.read_text())
    except (OSError, ValueError):
        return None
    whole = isinstance(said, dict) and "recipe" in said and isinstance(said.get("files"), dict)
    return said if whole else None


def _files(folder: Path) -> dict[str, int]:
    """Bytes of each file below a folder, by its path there; the marker apart."""
    found = (file for file in folder.rglob("*") if file.is_file() and file != folder / MARKER)
    return {str(file.relative_to(folder)): file.stat().st_size for file in sorted(found)}
