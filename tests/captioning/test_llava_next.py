import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    PreTrainedTokenizerFast,
)

from sare_core.captioning import load_captioner
from sare_core.errors import ConfigError
from tests.memory import short_of_memory

PROMPT = "Describe this image in one short sentence."
TEMPLATE = (
    "{% for message in messages %}USER: {% for part in message.content %}"
    "{% if part.type == 'image' %}<image>\n{% else %}{{ part.text }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)


@pytest.fixture(scope="module")
def llava_dir(tmp_path_factory):
    """A LLaVA-NeXT of the real classes with tiles of 28 pixels and random weights."""
    folder = tmp_path_factory.mktemp("llava")
    words = [*PROMPT.split(), "USER:", "ASSISTANT:", *(f"word{n}" for n in range(60))]
    special = ["<unk>", "<s>", "</s>", "<pad>", "<image>"]
    model = models.WordLevel({token: n for n, token in enumerate([*special, *words])}, unk_token="<unk>")
    backend = Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=["<image>"],
    )
    grid = [[28, 56], [56, 28], [56, 56], [84, 28], [28, 84]]
    images = LlavaNextImageProcessor(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}, image_grid_pinpoints=grid
    )
    LlavaNextProcessor(
        images,
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    ).save_pretrained(folder)
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    wide = {"initializer_range": 0.3}  # so that the images tell
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(**small, **wide, image_size=28, patch_size=14, initializer_factor=5.0),
        text_config=LlamaConfig(
            **small, **wide, vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=2, pad_token_id=3
        ),
        image_token_index=4,
        image_grid_pinpoints=grid,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    torch.manual_seed(0)
    LlavaNextForConditionalGeneration(config).save_pretrained(folder)
    return folder


def one_by_one(folder, images):
    """What transformers says through its own chat template, one image a call."""
    processor = LlavaNextProcessor.from_pretrained(folder)
    model = LlavaNextForConditionalGeneration.from_pretrained(folder)
    answers = []
    for image in images:
        chat = [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": PROMPT}]}]
        inputs = processor.apply_chat_template(
            chat, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        tokens = model.generate(**inputs, do_sample=False, max_new_tokens=8)[0]
        answers.append(processor.decode(tokens[inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip())
    return answers


def test_equals_transformers_one_by_one_for_mixed_aspect_ratios(llava_dir, pictures, settings):
    captioner = load_captioner(settings(captioner="llava-next", prompt=PROMPT), str(llava_dir), "cpu")
    expected = one_by_one(llava_dir, pictures)
    assert len(set(expected)) > 4  # the images do tell
    assert "" in expected  # and where the model ends at once, the caption is empty
    for size in (1, 3, 8):
        told = []
        for first in range(0, len(pictures), size):
            batch = pictures[first : first + size]
            told += captioner.caption(batch, [{}] * len(batch))
        assert told == expected


class OneAtATime:
    """A processor whose tokenizer fails, as a fast one may ("Already borrowed"), when two threads are in it."""

    def __init__(self, processor):
        self.processor, self.busy = processor, threading.Lock()

    def alone(self, call, *args, **kwargs):
        assert self.busy.acquire(blocking=False), "Already borrowed"
        try:
            time.sleep(0.01)
            return call(*args, **kwargs)
        finally:
            self.busy.release()

    def __call__(self, **kwargs):
        return self.alone(self.processor, **kwargs)

    def batch_decode(self, tokens, **kwargs):
        return self.alone(self.processor.batch_decode, tokens, **kwargs)


def test_images_are_prepared_in_threads_while_the_model_works(llava_dir, pictures, settings):
    captioner = load_captioner(settings(captioner="llava-next", prompt=PROMPT), str(llava_dir), "cpu")
    captioner.processor = OneAtATime(captioner.processor)
    batches = [pictures[first : first + 2] for first in range(0, len(pictures), 2)] * 4
    expected = [captioner.caption(batch, [{}] * len(batch)) for batch in batches]
    with ThreadPoolExecutor(4) as threads:
        assert [captioner.generate(prepared) for prepared in threads.map(captioner.prepare, batches)] == expected


@pytest.mark.parametrize("most", [1, 3])
def test_a_batch_that_does_not_fit_into_memory_gets_the_same_captions(llava_dir, pictures, settings, most):
    captioner = load_captioner(settings(captioner="llava-next", prompt=PROMPT), str(llava_dir), "cpu")
    said, seen = captioner.caption(pictures, [{}] * len(pictures)), []
    captioner.model.generate = short_of_memory(captioner.model.generate, most, seen)
    for _ in range(2):
        assert captioner.caption(pictures, [{}] * len(pictures)) == said
    assert seen[:3] == [8, 4, 2] and max(seen[3:]) <= 2, "what fits is remembered"
    assert said == one_by_one(llava_dir, pictures)


def test_the_pictures_have_different_numbers_of_tiles(llava_dir, pictures):
    processor = LlavaNextProcessor.from_pretrained(llava_dir)
    lengths = {processor(images=image, text="<image>", return_tensors="pt")["input_ids"].shape[1] for image in pictures}
    assert len(lengths) > 2


def test_the_question_is_not_part_of_the_caption(llava_dir, pictures, settings):
    captioner = load_captioner(settings(captioner="llava-next", prompt=PROMPT), str(llava_dir), "cpu")
    for caption in filter(None, captioner.caption(pictures, [{}] * len(pictures))):
        assert "USER:" not in caption and len(caption.split()) <= 8


def test_very_long_and_very_small_images(llava_dir, settings):
    captioner = load_captioner(settings(captioner="llava-next", prompt=PROMPT), str(llava_dir), "cpu")
    noise = np.random.default_rng(0).integers(0, 256, (2000, 20, 3), dtype=np.uint8)
    images = [Image.fromarray(noise), Image.fromarray(noise.transpose(1, 0, 2)), Image.new("RGB", (1, 1))]
    assert captioner.caption(images, [{}] * 3) == one_by_one(llava_dir, images)


@pytest.mark.parametrize("most", [1, 2, 3])
def test_an_image_is_cut_into_no_more_tiles_than_asked(llava_dir, pictures, settings, most):
    options = settings(captioner="llava-next", prompt=PROMPT, max_tiles=most)
    captioner = load_captioner(options, str(llava_dir), "cpu")
    assert len(captioner.caption(pictures, [{}] * len(pictures))) == len(pictures)
    tiles = {captioner.processor.image_processor(image).pixel_values[0].shape[0] for image in pictures}
    assert max(tiles) == 1 + most  # the whole image is one more


def test_a_prompt_is_needed(llava_dir, settings):
    with pytest.raises(ConfigError, match="Describe this image in one short sentence"):
        load_captioner(settings(captioner="llava-next"), str(llava_dir), "cpu")


def test_a_chat_template_is_needed(llava_dir, tmp_path, settings):
    folder = shutil.copytree(llava_dir, tmp_path / "llava")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError, match="chat_template"):
        load_captioner(settings(captioner="llava-next", prompt=PROMPT), str(folder), "cpu")
