"""Outputs are addressed by what made them: twelve hex digits over a stage's name, version, settings and weights.

Another setting, another weight file, another view: another folder. Batch size, device, host, paths and code are not
in it.
"""

import hashlib
import json
from typing import Any


def fingerprint(made_by: dict[str, Any]) -> str:
    """First 12 hex digits of the SHA-256 over the canonical JSON (sorted keys, no spaces) of `made_by`."""
    text = json.dumps(made_by, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """What changed between two `made_by`, one line a field: `strength 0.5 → 0.7`. Long values are cut."""
    lines = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            lines += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            lines.append(f"{prefix}{key} {_cut(before)} → {_cut(after)}")
    return lines


def _cut(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:19]}…"
