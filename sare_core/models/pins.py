"""Which commit of a hub model is meant: pinned in the settings, or locked by the first run in a work folder.

A hub id alone means its newest commit, which may move at any time. So the first command that needs one writes the
commit that it finds to `WORK/models.lock/<owner>--<name>.json`, and every later one with that work folder takes it from
there. A model has a file of its own, created only if there is none: of many who start at once, one decides for all.
"""

import json
import logging
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime

from sare_core.errors import ConfigError
from sare_core.store.storage import Store

LOCKS = "models.lock"

log = logging.getLogger("sare")


def is_commit(revision: str | None) -> bool:
    """Whether a revision can never move: a whole commit, not a branch, a tag or null."""
    return revision is not None and re.fullmatch(r"[0-9a-f]{40}", revision) is not None


def locked_commit(work: str, model: str, revision: str | None, newest: Callable[[], str]) -> str:
    """The commit of a hub model in this work folder; `newest` is asked, and its answer locked, if there is none yet.

    Raises ConfigError: the lock file cannot be read or written.
    """
    if is_commit(revision):
        return str(revision)
    store = Store(work).at(LOCKS)
    name = f"{model}@{revision}".removesuffix("@None").replace("/", "--") + ".json"
    if (commit := _read(store, name)) is not None:
        _tell("%s: at commit %s, as %s has it.", model, commit, store.path(name))
        return commit
    commit, now = newest(), datetime.now(UTC).isoformat(timespec="seconds")
    lock = {"model": model, "revision": revision, "commit": commit, "locked": now}
    if store.create(name, json.dumps(lock, indent=1).encode()):
        _tell("%s: locked at commit %s for this work folder, in %s.", model, commit, store.path(name))
    return _read(store, name) or commit  # another process may have been first


def _read(store: Store, name: str) -> str | None:
    try:
        commit = json.loads(store.read(name))["commit"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        commit = None
    if not is_commit(commit if isinstance(commit, str) else None):
        raise ConfigError(
            f"{store.path(name)}: names no commit. Write the one that the work folder's about.json files name into "
            'it, as {"commit": "<40 hex digits>"}; or delete it, and the newest commit is locked.'
        )
    return str(commit)


def _tell(text: str, *values: str) -> None:
    if os.environ.get("RANK", "0") == "0":  # not once for each GPU
        log.warning(text, *values)
