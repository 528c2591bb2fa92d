"""The empty caption: reconstruction without a word on what the image shows (the ablation of paper 4.4)."""

from typing import Any

from PIL import Image

from sare_core.config.captioning import CaptionSettings


def load(settings: CaptionSettings, weights_dir: str | None, device: str) -> "NoCaption":
    """Needs nothing."""
    return NoCaption()


class NoCaption:
    """Gives every image the caption ''."""

    name = "none"
    revision = None

    def caption(self, images: list[Image.Image], rows: list[dict[str, Any]]) -> list[str | None]:
        """See Captioner."""
        return [""] * len(images)
