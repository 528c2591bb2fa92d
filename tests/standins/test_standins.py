import hashlib
import json
import re

import numpy as np
import pytest
import timm
import torch
from diffusers import DDIMScheduler, StableDiffusionImg2ImgPipeline
from PIL import Image
from safetensors.torch import load_file
from transformers import BlipForConditionalGeneration, CLIPTokenizer, CLIPVisionModelWithProjection

from tests.standins import build_images, build_models


@pytest.fixture(scope="module")
def images(standin_models, tmp_path_factory):
    return build_images(standin_models, tmp_path_factory.mktemp("images"))


def digests(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_same_seed_same_bytes_other_seed_other_weights(standin_models, tmp_path):
    torch.manual_seed(123)  # what the caller drew before must not matter
    again = digests(build_models(tmp_path / "again"))
    assert again == digests(standin_models)
    other = digests(build_models(tmp_path / "other", seed=1))
    weights = [name for name in again if name.endswith(".safetensors")]
    assert len(weights) == 6
    assert all(again[name] != other[name] for name in weights)


def test_images_have_the_same_bytes_again(standin_models, images, tmp_path):
    assert digests(build_images(standin_models, tmp_path / "again")) == digests(images)


def test_the_callers_random_state_is_untouched(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build_models(tmp_path / "models")
    assert torch.equal(torch.rand(3), expected)


def test_small_and_safe(standin_models):
    assert sum(path.stat().st_size for path in standin_models.rglob("*") if path.is_file()) < 8e6
    assert not [path for path in standin_models.rglob("*") if path.suffix in {".bin", ".pt", ".ckpt", ".pkl"}]
    for path in standin_models.rglob("*.safetensors"):
        assert all(torch.isfinite(tensor.float()).all() for tensor in load_file(path).values())


def test_loads_as_a_stable_diffusion_folder_and_reconstructs_photographs(standin_models, images):
    pipeline = StableDiffusionImg2ImgPipeline.from_pretrained(standin_models / "diffusion", safety_checker=None)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    assert pipeline.scheduler.config.clip_sample is False
    assert pipeline.vae_scale_factor == 8
    results = []
    for prompt in ("a cat on a table", "the moon"):
        for path in sorted(images.rglob("nature/*"))[::30]:
            photo = Image.open(path).convert("RGB").resize((64, 48))
            generator = torch.Generator().manual_seed(0)
            out = pipeline(prompt, image=photo, strength=0.5, num_inference_steps=10, generator=generator).images[0]
            results.append(np.asarray(out).astype(int))
    for pixels in results:
        assert pixels.shape == (48, 64, 3)
        assert 60 < pixels.mean() < 200 and pixels.std() > 10  # neither black nor flat
        assert ((pixels == 0) | (pixels == 255)).mean() < 0.2  # nor saturated
    half = len(results) // 2
    assert np.abs(results[0] - results[1]).mean() > 1  # the photograph tells
    assert np.abs(results[0] - results[half]).mean() > 0.5  # and so does the caption


def test_scheduler_is_the_published_one(standin_models):
    config = json.loads((standin_models / "diffusion" / "scheduler" / "scheduler_config.json").read_text())
    alphas = DDIMScheduler.from_config(config).alphas_cumprod
    expected = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
    np.testing.assert_allclose(alphas.numpy(), expected, rtol=1e-4)
    assert (config["_class_name"], config["steps_offset"], config["set_alpha_to_one"]) == ("PNDMScheduler", 1, False)


def test_any_text_tokenises(standin_models):
    tokenizer = CLIPTokenizer.from_pretrained(standin_models / "diffusion" / "tokenizer")
    text = "Größe, 東京 🐈 & a cat's paw №5"
    ids = tokenizer(text).input_ids
    assert tokenizer.model_max_length == 77
    assert ids[0] == tokenizer.bos_token_id and ids[-1] == tokenizer.eos_token_id
    assert len(ids) - 2 == len(text.replace(" ", "").encode())  # one token a byte, none unknown
    assert tokenizer.unk_token_id not in ids[1:-1]


def test_encoders_load_and_tell_images_apart(standin_models):
    torch.manual_seed(0)
    pixels = torch.randn(2, 3, 64, 64)
    clip = CLIPVisionModelWithProjection.from_pretrained(standin_models / "image-encoder").eval()
    resnet = timm.create_model(
        f"local-dir:{standin_models / 'semantic-encoder'}", pretrained=True, num_classes=0
    ).eval()
    with torch.inference_mode():
        embeds, cells = clip(pixels).image_embeds, resnet.forward_features(pixels)
    assert embeds.shape == (2, 64) and cells.shape == (2, 256, 2, 2)
    for features in (embeds, cells):
        assert torch.isfinite(features).all()
        assert (features[0] - features[1]).abs().mean() > 1e-3
    stored = load_file(standin_models / "semantic-encoder" / "model.safetensors")
    assert torch.equal(resnet.layer4[0].conv3.weight, stored["layer4.0.conv3.weight"])


def test_captioner_loads_whole(standin_models):
    _, loading = BlipForConditionalGeneration.from_pretrained(standin_models / "captioner", output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"]


def test_images_lie_as_in_genimage(images):
    sdv4 = images / "stable_diffusion_v_1_4" / "imagenet_ai_0419_sdv4"
    sdv5 = images / "stable_diffusion_v_1_5" / "imagenet_ai_0424_sdv5"
    expected = {
        sdv4 / "train" / "ai": (48, r"\d{3}_sdv4_\d{5}\.png"),
        sdv4 / "train" / "nature": (48, r"n\d{8}_\d+\.JPEG"),
        sdv4 / "val" / "ai": (16, r"\d{3}_sdv4_\d{5}\.png"),
        sdv4 / "val" / "nature": (16, r"ILSVRC2012_val_\d{8}\.JPEG"),
        sdv5 / "val" / "ai": (16, r"\d{3}_sdv5_\d{5}\.png"),
        sdv5 / "val" / "nature": (16, r"ILSVRC2012_val_\d{8}\.JPEG"),
    }
    for folder, (count, name) in expected.items():
        files = list(folder.iterdir())
        assert len(files) == count
        assert all(re.fullmatch(name, file.name) for file in files)
    assert {path.parent for path in images.rglob("*") if path.suffix in {".png", ".JPEG"}} == set(expected)


def test_images_are_what_their_names_say_and_all_different(images):
    for kind, form, longest in (("nature", "JPEG", 160), ("ai", "PNG", 128)):
        for path in images.rglob(f"{kind}/*"):
            with Image.open(path) as image:
                assert image.format == form and image.mode == "RGB"
                assert 64 <= max(image.size) <= longest
                assert np.asarray(image).std() > 3  # not flat
    for folder in images.rglob("nature"):
        pixels = {np.asarray(Image.open(path)).tobytes() for path in folder.iterdir()}
        assert len(pixels) == len(list(folder.iterdir()))
    drawn = [np.asarray(Image.open(path)).tobytes() for path in images.rglob("ai/*")]
    assert len(set(drawn)) == len(drawn) == 80
