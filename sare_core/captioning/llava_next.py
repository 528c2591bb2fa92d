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
    options = {"pad_token_id": processor.tokenizer.pad_token_id}
    return Generating("llava-next", settings, processor, model, text, answers=True, **options)
