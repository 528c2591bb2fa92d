from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sare_core.config.captioning import CaptionSettings


@pytest.fixture
def settings():
    """CaptionSettings for the CPU, with what a test changes."""

    def make(**changes):
        values = {
            "captioner": "none",
            "max_new_tokens": 8,
            "num_beams": 1,
            "dtype": "float32",
            "text_tokenizer": "unused",
            "batch_size": 8,
        }
        return CaptionSettings(**(values | changes))

    return make


@pytest.fixture(scope="session")
def blip_dir(standin_models) -> Path:
    return standin_models / "captioner"


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Eight images of mixed sizes and aspect ratios: blocks of colour, so that a model sees differences."""
    rng = np.random.default_rng(5)
    sizes = [(64, 64), (90, 30), (20, 100), (64, 48), (200, 150), (33, 71), (64, 64), (128, 40)]
    return [Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)).resize(size, 0) for size in sizes]
