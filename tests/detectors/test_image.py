import pytest
import torch
from transformers import CLIPVisionModelWithProjection

from sare_core.config import load_settings
from sare_core.detectors import build_detector
from sare_core.errors import ConfigError
from tests.conftest import STANDIN


def build(folder, **changes):
    settings = load_settings(STANDIN, ["detector.detector=image"]).detector.model_copy(update=changes)
    torch.manual_seed(0)
    return build_detector(settings, {"image_encoder": folder})


def test_the_logit_is_linear_in_the_embedding_of_transformers(image_encoder_dir):
    detector, images = build(image_encoder_dir).eval(), torch.randn(3, 3, 64, 64)
    embeddings = CLIPVisionModelWithProjection.from_pretrained(image_encoder_dir)(images).image_embeds
    expected = embeddings @ detector.head.weight[0] + detector.head.bias
    logits = detector({"image": images})
    assert logits.shape == (3,)
    torch.testing.assert_close(logits, expected)


@pytest.mark.parametrize("tune", [False, True])
def test_only_the_head_learns_unless_the_encoder_is_tuned(image_encoder_dir, tune):
    detector = build(image_encoder_dir, tune_image_encoder=tune).train()
    detector({"image": torch.randn(3, 3, 64, 64)}).sum().backward()
    learning = {name for name, parameter in detector.named_parameters() if parameter.grad is not None}
    assert {"head.weight", "head.bias"} <= learning
    assert (len(learning) > 2) == tune
    assert (set(detector.trained_state()) == {"head.weight", "head.bias"}) == (not tune)


def test_another_input_size_is_refused(image_encoder_dir):
    with pytest.raises(ConfigError, match=r"set detector\.input_size=64"):
        build(image_encoder_dir, input_size=32)
