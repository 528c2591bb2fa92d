"""LLaVA-NeXT (Liu et al., 2024) through transformers; the paper's other captioner (figure 11)."""

from typing import Any

import torch
from PIL import Image
from transformers import LlavaNextForConditionalGeneration, LlavaNextProcessor

from sare_core.captioning.pretrained import checked_folder, load_model
from sare_core.config.captioning import CaptionSettings
from sare_core.errors import ConfigError


def load(settings: CaptionSettings, weights_dir: str | None, device: str) -> "LlavaNext":
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
    model = load_model(LlavaNextForConditionalGeneration, folder, settings, device)
    return LlavaNext(settings, processor, model)


class LlavaNext:
    """Greedy or beam search, never sampled. The caption is the answer alone, without the question."""

    name = "llava-next"
    revision = None

    def __init__(self, settings: CaptionSettings, processor: Any, model: Any) -> None:
        self.settings, self.processor, self.model = settings, processor, model
        question = [{"type": "image"}, {"type": "text", "text": settings.prompt}]
        conversation = [{"role": "user", "content": question}]
        self.text = processor.apply_chat_template(conversation, add_generation_prompt=True)

    @torch.inference_mode()
    def caption(self, images: list[Image.Image], rows: list[dict[str, Any]]) -> list[str | None]:
        """See Captioner. Where the model says nothing, the empty caption."""
        inputs = self.processor(images=images, text=[self.text] * len(images), padding=True, return_tensors="pt")
        tokens = self.model.generate(
            **inputs.to(self.model.device, self.model.dtype),  # casts pixels only: token ids stay whole numbers
            max_new_tokens=self.settings.max_new_tokens,
            num_beams=self.settings.num_beams,
            do_sample=False,
            pad_token_id=self.processor.tokenizer.pad_token_id,
        )
        answers = tokens[:, inputs["input_ids"].shape[1] :]
        return [said.strip() for said in self.processor.batch_decode(answers, skip_special_tokens=True)]
