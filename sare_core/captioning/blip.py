"""BLIP (Li et al., 2022) through transformers; the paper's captioner (4.1: "a pre-trained BLIP model").

Plain `generate`, eager attention: BLIP has no other in transformers. It is below 1 % of a reconstruction's cost.
"""

from transformers import BlipForConditionalGeneration, BlipProcessor

from sare_core.captioning.pretrained import Generating, checked_folder, load_model
from sare_core.config.captioning import CaptionSettings
from sare_core.errors import ConfigError


def load(settings: CaptionSettings, weights_dir: str | None, device: str) -> Generating:
    """Raises ConfigError: the folder is no whole BLIP, or prompt and caption exceed what its text decoder takes."""
    folder = checked_folder(weights_dir, "blip", "blip")
    processor = BlipProcessor.from_pretrained(folder, local_files_only=True)
    model = load_model(BlipForConditionalGeneration, folder, settings, device)
    length = settings.max_new_tokens + (len(processor.tokenizer(settings.prompt).input_ids) if settings.prompt else 1)
    limit = model.config.text_config.max_position_embeddings
    if length > limit:
        raise ConfigError(f"caption.max_new_tokens: prompt and caption make {length} tokens; {folder} takes {limit}.")
    # With a prompt the caption continues it, and holds it in lower case.
    return Generating("blip", settings, processor, model, settings.prompt)
