"""Settings that are not read from a preset: those that an artifact keeps, and a run's own with something changed."""

import copy
from functools import reduce
from operator import getitem
from typing import Any

from sare_core.config import Settings, apply_overrides, validated
from sare_core.errors import ConfigError


def read_settings(values: dict[str, Any], where: str, overrides: list[str] | None = None) -> Settings:
    """Settings as `about.json` keeps them, with `--set` overrides on top.

    Raises ConfigError: not settings of this version, and `where` is named; an override of no setting.
    """
    values = copy.deepcopy(values)
    apply_overrides(values, overrides or [])
    try:
        return validated(values)
    except ConfigError as error:
        raise ConfigError(f"{where}: its settings are not those of this version of sare.\n{error}") from None


def changed(settings: Settings, changes: dict[str, Any]) -> Settings:
    """The settings with some values, by dotted key, replaced. Raises ConfigError: a value out of range."""
    if not changes:
        return settings
    values = settings.model_dump(mode="json")
    for key, value in changes.items():
        *path, leaf = key.split(".")
        reduce(getitem, path, values)[leaf] = value
    return validated(values)
