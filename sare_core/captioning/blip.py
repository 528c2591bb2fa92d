"""BLIP (Li et al., 2022) through transformers; the paper's captioner (4.1: "a pre-trained BLIP model").

Plain `generate`, eager attention: BLIP has no other in transformers. It is below 1 % of a reconstruction's cost.
"""

from typing import Any

import torch
from PIL import Image
from transformers import BlipForConditionalGeneration, BlipProcessor

from sare_core.captioning.pretrained import checked_folder, load_model
from sare_core.config.captioning import CaptionSettings
from sare_core.errors import ConfigError


def load(settings: CaptionSettings, weights_dir: str | None, device: str) -> "Blip":
    """Raises ConfigError: the folder is no whole BLIP, or prompt and caption exceed what its text decoder takes."""
    folder = checked_folder(weights_dir, "blip", "blip")
    processor = BlipProcessor.from_pretrained(folder, local_files_only=True)
    model = load_model(BlipForConditionalGeneration, folder, settings, device)
    length = settings.max_new_tokens + (len(processor.tokenizer(settings.prompt).input_ids) if settings.prompt else 1)
    limit = model.config.text_config.max_position_embeddings
    if length > limit:
        raise ConfigError(f"caption.max_new_tokens: prompt and caption make {length} tokens; {folder} takes {limit}.")
    return Blip(settings, processor, model)


class Blip:
    """Greedy or beam search, never sampled. With a prompt the caption continues it, and holds it in lower case."""

    name = "blip"
    revision = None

    def __init__(self, settings: CaptionSettings, processor: Any, model: Any) -> None:
        self.settings, self.processor, self.model = settings, processor, model

    @torch.inference_mode()
    def caption(self, images: list[Image.Image], rows: list[dict[str, Any]]) -> list[str | None]:
        """See Captioner. Where the model says nothing, the empty caption."""
        text = [self.settings.prompt] * len(images) if self.settings.prompt else None
        inputs = self.processor(images=images, text=text, return_tensors="pt")
        tokens = self.model.generate(
            **inputs.to(self.model.device, self.model.dtype),  # casts pixels only: token ids stay whole numbers
            max_new_tokens=self.settings.max_new_tokens,
            num_beams=self.settings.num_beams,
            do_sample=False,
        )
        return [said.strip() for said in self.processor.batch_decode(tokens, skip_special_tokens=True)]
