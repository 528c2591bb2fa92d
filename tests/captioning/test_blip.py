import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BlipForConditionalGeneration, BlipProcessor

from sare_core.captioning import load_captioner
from sare_core.errors import ConfigError, StageError
from tests.memory import short_of_memory


def one_by_one(folder, images, prompt=None, **decoding):
    """What transformers says, by its own example: one image a call."""
    processor = BlipProcessor.from_pretrained(folder)
    model = BlipForConditionalGeneration.from_pretrained(folder)
    captions = []
    for image in images:
        tokens = model.generate(**processor(image, prompt, return_tensors="pt"), do_sample=False, **decoding)
        captions.append(processor.decode(tokens[0], skip_special_tokens=True).strip())
    return captions


def batched(captioner, images, size):
    return [
        caption
        for first in range(0, len(images), size)
        for caption in captioner.caption(images[first : first + size], [{}] * len(images[first : first + size]))
    ]


@pytest.mark.parametrize("changes", [{}, {"prompt": "A photo of"}, {"num_beams": 3}], ids=["plain", "prompt", "beams"])
def test_equals_transformers_one_by_one_for_every_batch_size(blip_dir, pictures, settings, changes):
    captioner = load_captioner(settings(captioner="blip", **changes), str(blip_dir), "cpu")
    expected = one_by_one(
        blip_dir, pictures, changes.get("prompt"), max_new_tokens=8, num_beams=changes.get("num_beams", 1)
    )
    assert len(set(expected)) > 4  # the images do tell
    if "num_beams" not in changes:
        assert len({len(caption.split()) for caption in expected}) > 1  # and some end early
    for size in (1, 3, 8):
        assert batched(captioner, pictures, size) == expected


@pytest.mark.parametrize("changes", [{}, {"prompt": "A photo of", "num_beams": 3}], ids=["plain", "prompt and beams"])
def test_a_batch_that_does_not_fit_into_memory_gets_the_same_captions(blip_dir, pictures, settings, changes):
    captioner = load_captioner(settings(captioner="blip", **changes), str(blip_dir), "cpu")
    said, seen = captioner.caption(pictures, [{}] * 8), []
    captioner.model.generate = short_of_memory(captioner.model.generate, 3, seen)
    for _ in range(2):
        assert captioner.caption(pictures, [{}] * 8) == said
    assert seen == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2], "what fits is remembered"


def test_an_image_that_never_fits_names_the_settings(blip_dir, pictures, settings):
    captioner = load_captioner(settings(captioner="blip"), str(blip_dir), "cpu")
    captioner.model.generate = short_of_memory(captioner.model.generate, 0, [])
    with pytest.raises(StageError, match=r"captioner: a single image of 64×64 does not fit .* caption\.dtype=float16"):
        captioner.caption(pictures, [{}] * 8)


def test_prompt_is_part_of_the_caption_and_tokens_are_counted_after_it(blip_dir, pictures, settings):
    captioner = load_captioner(settings(captioner="blip", prompt="A photo of", max_new_tokens=2), str(blip_dir), "cpu")
    for caption in captioner.caption(pictures, [{}] * 8):
        assert caption.startswith("a photo of")
        assert len(caption.split()) <= 5


def test_half_precision_works(blip_dir, pictures, settings):
    captioner = load_captioner(settings(captioner="blip", dtype="bfloat16", prompt="a"), str(blip_dir), "cpu")
    assert captioner.model.dtype == torch.bfloat16
    assert all(captioner.caption(pictures, [{}] * 8))


def test_no_words_is_the_empty_caption(blip_dir, pictures, settings):
    captioner = load_captioner(settings(captioner="blip"), str(blip_dir), "cpu")
    bias = captioner.model.text_decoder.cls.predictions.bias
    bias.data[captioner.model.config.text_config.sep_token_id] = 1e4
    assert captioner.caption(pictures[:2], [{}] * 2) == ["", ""]


@pytest.mark.parametrize("gone", ["config.json", "model.safetensors", "tokenizer.json", "processor_config.json"])
def test_missing_file_is_named(blip_dir, tmp_path, settings, gone):
    folder = shutil.copytree(blip_dir, tmp_path / "blip")
    (folder / gone).unlink()
    with pytest.raises(ConfigError) as error:
        load_captioner(settings(captioner="blip"), str(folder), "cpu")
    assert gone in str(error.value) and str(folder) in str(error.value)


def test_a_model_that_only_has_tensors_in_a_pickle_is_read_as_tensors(blip_dir, pictures, tmp_path, settings):
    """As the hub's blip-image-captioning-base has it; a pickle that holds code is refused, and not run."""
    folder = shutil.copytree(blip_dir, tmp_path / "blip")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    captioner = load_captioner(settings(captioner="blip"), str(folder), "cpu")
    assert captioner.caption(pictures, [{}] * 8) == one_by_one(blip_dir, pictures, max_new_tokens=8)

    class Code:
        def __reduce__(self):
            return (print, ("ran",))

    torch.save({"weight": Code()}, folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_captioner(settings(captioner="blip"), str(folder), "cpu")


def test_missing_weight_shard_is_named(blip_dir, tmp_path, settings):
    folder = shutil.copytree(blip_dir, tmp_path / "blip")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ConfigError, match="model-00002-of-00002"):
        load_captioner(settings(captioner="blip"), str(folder), "cpu")


def test_weights_that_would_be_filled_at_random_are_refused(blip_dir, tmp_path, settings):
    folder = shutil.copytree(blip_dir, tmp_path / "blip")
    tensors = load_file(folder / "model.safetensors")
    del tensors["vision_model.encoder.layers.0.mlp.fc1.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match="fc1"):
        load_captioner(settings(captioner="blip"), str(folder), "cpu")


def test_damaged_weights_and_other_models_are_refused(blip_dir, tmp_path, settings):
    folder = shutil.copytree(blip_dir, tmp_path / "cut")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigError, match="cut or damaged"):
        load_captioner(settings(captioner="blip"), str(folder), "cpu")
    with pytest.raises(ConfigError, match=r"'blip'.*'llava_next'"):
        load_captioner(settings(captioner="llava-next", prompt="What?"), str(blip_dir), "cpu")
    (folder / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"config\.json: cut or damaged"):
        load_captioner(settings(captioner="blip"), str(folder), "cpu")


def test_more_tokens_than_the_decoder_has_positions_are_refused(blip_dir, pictures, settings):
    with pytest.raises(ConfigError, match="max_new_tokens"):
        load_captioner(settings(captioner="blip", max_new_tokens=64), str(blip_dir), "cpu")
    captioner = load_captioner(settings(captioner="blip", max_new_tokens=63), str(blip_dir), "cpu")
    captioner.model.text_decoder.cls.predictions.bias.data[3] = -1e4  # never ends early
    assert len(captioner.caption(pictures[:1], [{}])[0].split()) == 63


def test_no_model_is_refused(settings):
    with pytest.raises(ConfigError, match=r"caption\.model"):
        load_captioner(settings(captioner="blip"), None, "cpu")
