"""LLaVA-NeXT (Liu et al., 2024) through transformers; the paper's other captioner (figure 11)."""

from typing import Any

from transformers import LlavaNextForConditionalGeneration, LlavaNextProcessor

from sare_core.captioning.pretrained import Generating, checked_folder, load_model
from sare_core.config.captioning import CaptionSettings
from sare_core.errors import ConfigError


def load(settings: CaptionSettings, weights_dir: str | None, device: str) -> Generating:
    """Raises ConfigError: no prompt, the folder is no whole LLaVA-NeXT, or it comes without a chat template."""
    if not settings.prompt:
        raise ConfigError(
            "caption.prompt: llava-next needs a question, for example "
            '--set caption.prompt="Describe this image in one short sentence."'
        )
    folder = checked_folder(weights_dir, "llava-next", "llava_next")
    processor = LlavaNextProcessor.from_pretrained(folder, local_files_only=True)
    bound_tiles(processor.image_processor, settings.max_tiles)
    if processor.chat_template is None:
        raise ConfigError(f"{folder}: holds no chat_template.jinja or .json, so the question cannot be put; add it.")
    # Left: new tokens must follow the question, also where a smaller image makes a shorter one.
    processor.tokenizer.padding_side = "left"
    if processor.tokenizer.pad_token is None:
        processor.tokenizer.pad_token = processor.tokenizer.eos_token
    question: list[Any] = [{"type": "image"}, {"type": "text", "text": settings.prompt}]
    conversation: list[Any] = [{"role": "user", "content": question}]
    text: str = processor.apply_chat_template(conversation, add_generation_prompt=True)
    model = load_model(LlavaNextForConditionalGeneration, folder, settings, device)
    model.config.image_grid_pinpoints = processor.image_processor.image_grid_pinpoints
    options = {"pad_token_id": processor.tokenizer.pad_token_id}
    return Generating("llava-next", settings, processor, model, text, answers=True, **options)


def bound_tiles(images: Any, most: int | None) -> None:
    """Of an image processor's grids leave those of at most so many tiles; a single tile, where there is none."""
    if most is None:
        return
    tile = images.crop_size["height"], images.crop_size["width"]
    few = [(h, w) for h, w in images.image_grid_pinpoints if h * w <= most * tile[0] * tile[1]]
    images.image_grid_pinpoints = few or [tile]
