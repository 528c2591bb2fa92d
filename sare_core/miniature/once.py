"""A folder that is built once, and appears whole or not at all."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sare_core.errors import ConfigError

VERSION = 3  # raise it when what is written changes: folders of another version are built anew
MARKER = "miniature.json"


@contextmanager
def built_once(folder: Path, recipe: dict[str, Any]) -> Iterator[Path | None]:
    """Yields a folder to fill, which becomes `folder` at one stroke; or None if that recipe stands there already."""
    marker = folder / MARKER
    if marker.is_file() and json.loads(marker.read_text()) == recipe:
        yield None
        return
    if folder.exists() and not marker.is_file():
        raise ConfigError(f"{folder}: exists and was not written by the miniature builder; move it, or name another.")
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        (partial / MARKER).write_text(json.dumps(recipe) + "\n")
        if marker.is_file():  # ours, but of another seed or version
            shutil.rmtree(folder)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
