"""Where a training's curves go, and with them its settings: trackers by accelerate's own names."""

import json
from typing import Any

from accelerate.tracking import get_available_trackers

from sare_core.config import Settings
from sare_core.errors import ConfigError


def installed_tracker(name: str) -> str | None:
    """The name as accelerate takes it. Raises ConfigError: not installed, where accelerate would log nothing."""
    if name == "none":
        return None
    if name not in {str(tracker) for tracker in get_available_trackers()}:
        raise ConfigError(f"train.tracker={name}: not installed. Run: pip install {name}; or set train.tracker=none.")
    return name


def hyperparameters(settings: Settings) -> dict[str, Any]:
    """All settings by dotted key, as trackers take them: text, numbers, booleans; lists as JSON; null left out."""
    return dict(_flat(settings.model_dump(mode="json"), ""))


def _flat(values: dict[str, Any], prefix: str) -> Any:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None:
            yield prefix + name, json.dumps(value) if isinstance(value, list) else value
