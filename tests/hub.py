"""A cache of the model hub, as the hub's own client lays it out: what a test puts there is all that the hub has."""

import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants

from sare_core.models.weights import resolve

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NEWER = "fedcba9876543210fedcba9876543210fedcba98"


def empty_hub(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache at `place`, with the hub itself out of reach, and nothing remembered of another."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(place))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    resolve.cache_clear()
    return place


def publish(hub: Path, model: str, files: dict[str, str] | Path, commit: str = COMMIT, ref: str = "main") -> Path:
    """Put a commit of owner/name there, and let the branch `ref` point to it; its folder.

    files: their text by name, or a folder with them.
    """
    place = hub / f"models--{model.replace('/', '--')}"
    snapshot = place / "snapshots" / commit
    if isinstance(files, Path):
        shutil.copytree(files, snapshot)
    else:
        for name, text in files.items():
            (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
            (snapshot / name).write_text(text)
    (place / "refs").mkdir(exist_ok=True)
    (place / "refs" / ref).write_text(commit)
    resolve.cache_clear()  # as in a later process
    return snapshot
