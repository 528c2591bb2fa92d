"""Images in memory to captions that the diffusion model can take whole. The stage and the Python API use it."""

from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from sare_core.captioning import Preparing, check_captioner, load_captioner
from sare_core.captioning.cut import cut_caption
from sare_core.config.captioning import CaptionSettings
from sare_core.errors import ConfigError, ImageError
from sare_core.models.weights import Weights, fetch, require_tokenizer, require_whole, resolve
from sare_core.store.storage import sha256_file


class Caption(NamedTuple):
    """One line of text. n_tokens: of the uncut caption, with begin and end. truncated: whether it was cut."""

    text: str
    n_tokens: int
    truncated: bool


def weights_of(caption: CaptionSettings, work: str | None) -> dict[str, Weights]:
    """What the captions are made with, by role. work: where hub models are locked (`resolve`).

    Raises ConfigError: no such captioner, or a model or table is not to be found.
    """
    check_captioner(caption)
    weights = {"text_tokenizer": resolve(caption.text_tokenizer, caption.text_tokenizer_revision, work)}
    if caption.model is not None:
        weights["model"] = resolve(caption.model, caption.revision, work)
    if caption.table is not None:
        if not Path(caption.table).is_file():
            raise ConfigError(f"caption.table={caption.table}: no such file.")
        weights["table"] = Weights(caption.table, f"sha256:{sha256_file(Path(caption.table))}", caption.table, False)
    return weights


class Captions:
    """The captioner that the settings name, with its model loaded on a device.

    Raises ConfigError: a setting that the captioner needs is missing, a model or table is not usable.
    """

    def __init__(self, settings: CaptionSettings, weights: dict[str, Weights], device: str) -> None:
        from transformers import CLIPTokenizer

        self.captioner = load_captioner(settings, fetch(weights["model"]) if "model" in weights else None, device)
        folder = Path(weights["text_tokenizer"].folder)
        require_whole(folder)
        require_tokenizer(folder)
        self.tokenizer = CLIPTokenizer.from_pretrained(folder)

    def prepare(self, images: list[Image.Image], rows: list[dict[str, Any]]) -> Any:
        """A batch of RGB images as `say` takes it. rows: image_id and path of each. Threads may call it."""
        if isinstance(self.captioner, Preparing):
            return self.captioner.prepare(images)
        return images, rows

    def say(self, batch: Any) -> list[str | ImageError]:
        """The captioner's own words for each image of a batch from `prepare`; an ImageError where it has none."""
        captioner = self.captioner
        captions = captioner.generate(batch) if isinstance(captioner, Preparing) else captioner.caption(*batch)
        return [ImageError("there is no caption for it") if caption is None else caption for caption in captions]

    def cut(self, text: str) -> Caption:
        """A caption on one line, cut between words to what the text encoder takes (77 tokens of CLIP's)."""
        return Caption(*cut_caption(self.tokenizer, text))
