import pytest
import timm
import torch
from timm.models import save_for_hf
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

SMALL_CLIP = {
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "projection_dim": 20,
    "image_size": 64,
    "patch_size": 16,
}


@pytest.fixture(scope="session")
def image_encoder_dir(tmp_path_factory):
    """A CLIP vision tower with random weights, written by transformers."""
    folder = tmp_path_factory.mktemp("image-encoder")
    torch.manual_seed(1)
    CLIPVisionModelWithProjection(CLIPVisionConfig(**SMALL_CLIP)).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def semantic_encoder_dir(tmp_path_factory):
    """A small ResNet with random weights and a classifier, written by timm in its hub layout."""
    folder = tmp_path_factory.mktemp("semantic-encoder")
    torch.manual_seed(2)
    arguments = {"layers": (1, 1, 1, 1), "channels": (8, 8, 16, 32)}
    model = timm.create_model("resnet18", num_classes=7, **arguments)
    save_for_hf(model, str(folder), model_args=arguments, safe_serialization=True)
    return str(folder)
