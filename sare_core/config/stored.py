"""Settings that are not read from a preset: those that an artifact keeps, and a run's own with something changed."""

from typing import Any

from pydantic import ValidationError

from sare_core.config import Settings, _explain, _override
from sare_core.errors import ConfigError


def read_settings(values: dict[str, Any], where: str, overrides: list[str] | None = None) -> Settings:
    """Settings as `about.json` keeps them, with `--set` overrides on top.

    Raises ConfigError: not settings of this version, and `where` is named; an override of no setting.
    """
    for override in overrides or []:
        _override(values, override)
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        faults = "\n".join(_explain(fault) for fault in error.errors())
        raise ConfigError(f"{where}: its settings are not those of this version of sare.\n{faults}") from None


def changed(settings: Settings, changes: dict[str, Any]) -> Settings:
    """The settings with some values, by dotted key, replaced. Raises ConfigError: a value out of range."""
    values = settings.model_dump(mode="json")
    for key, value in changes.items():
        *path, leaf = key.split(".")
        section = values
        for part in path:
            section = section[part]
        section[leaf] = value
    return read_settings(values, ", ".join(f"{key}={value}" for key, value in changes.items()))
