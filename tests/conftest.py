"""Shared by all tests: the embedded models and images, built once a session, and settings that point at them."""

import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# One thread: two multi-threaded torch processes slow each other many times over, and some tests start several.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from sare_core.config import Settings, load_settings


@pytest.fixture(scope="session")
def mini_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded models, as `sare mini` builds them."""
    from sare_core.miniature import build_models

    return build_models(tmp_path_factory.mktemp("embedded") / "models")


def mini_overrides(models: Path) -> list[str]:
    """`--set` arguments that point the mini preset at models in some folder."""
    return [
        f"caption.model={models}/captioner",
        f"caption.text_tokenizer={models}/diffusion/tokenizer",
        f"reconstruct.model={models}/diffusion",
        f"detector.image_encoder={models}/image-encoder",
        f"detector.semantic_encoder={models}/semantic-encoder",
    ]


@pytest.fixture
def mini_settings(mini_models: Path) -> Callable[..., Settings]:
    """`mini_settings("reconstruct.strength=0.7")`: the mini preset on the session's models, with changes."""

    def settings(*overrides: str) -> Settings:
        return load_settings("mini", [*mini_overrides(mini_models), *overrides])

    return settings
