"""The models that settings name, and a settings file with their commits written into it (`sare pin`)."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

from sare_core.config import Settings
from sare_core.config.section import Section
from sare_core.errors import ConfigError


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
