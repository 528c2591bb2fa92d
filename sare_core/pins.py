"""Which commit of a hub model is meant: pinned in the settings, or locked by the first run in a work folder.

A hub id alone means its newest commit, which may move at any time. So the first command that needs one writes the
commit that it finds to `WORK/models.lock/<owner>--<name>.json`, and every later one with that work folder takes it from
there. A model has a file of its own, created only if there is none: of many who start at once, one decides for all.
"""

import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import yaml

from sare_core.config import Section, Settings
from sare_core.errors import ConfigError
from sare_core.storage import Store

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


class Named(NamedTuple):
    """A model that settings name, with the keys of its section that say so."""

    section: str
    key: str
    revision_key: str
    model: str
    revision: str | None


def models_in(settings: Settings) -> Iterator[Named]:
    """Every model that settings name, hub id or folder."""
    for name, section in settings:
        if isinstance(section, Section):
            for key, revision_key in section.models.items():
                if (model := getattr(section, key)) is not None:
                    yield Named(name, key, revision_key, model, getattr(section, revision_key))


def write_revisions(text: str, commits: dict[Named, str]) -> str:
    """The text of a settings file with the models' commits in it, and nothing else changed.

    Raises ConfigError: the file is written in a way in which a line cannot be put in, such as with YAML aliases.
    """
    expected = yaml.safe_load(text)
    for named, commit in commits.items():
        expected[named.section][named.revision_key] = commit
    try:
        edited = _edited(text, commits)
        whole = yaml.safe_load(edited) == expected
    except (KeyError, yaml.YAMLError):
        whole = False
    if not whole:
        wanted = ", ".join(f"{named.section}.{named.revision_key}: {commit}" for named, commit in commits.items())
        raise ConfigError(f"These settings cannot be edited line by line. Write into them yourself: {wanted}")
    return edited


def _edited(text: str, commits: dict[Named, str]) -> str:
    sections = {key.value: value for key, value in yaml.compose(text).value}
    edits = [_edit(text, sections[named.section], named, commit) for named, commit in commits.items()]
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def _edit(text: str, section: Any, named: Named, commit: str) -> tuple[int, int, str]:
    """Start and end of what is replaced, and by what: the revision's value; or nothing, by a key behind the model."""
    entries = {key.value: (key, value) for key, value in section.value}
    if named.revision_key in entries:
        value = entries[named.revision_key][1]
        start, end = value.start_mark.index, value.end_mark.index
        return start, end, f" {commit}" if start == end else commit
    key, value = entries[named.key]
    end = value.end_mark.index
    if section.flow_style:
        return end, end, f", {named.revision_key}: {commit}"
    at = len(text) if (line_end := text.find("\n", end)) < 0 else line_end
    return at, at, f"\n{' ' * key.start_mark.column}{named.revision_key}: {commit}"
