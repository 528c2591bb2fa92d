"""The paper's own models as their published config.json files describe them, for machines that cannot reach the hub.

Keyword arguments of the classes; what is not named is the class's default. Weights are never made up from these.
"""

from typing import Any

_TEXT: dict[str, Any] = {  # the text tower of CLIP ViT-L/14
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "projection_dim": 768,
}
_VISION: dict[str, Any] = {  # the vision tower of CLIP ViT-L/14
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
    "projection_dim": 768,
}
_UNET: dict[str, Any] = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
}
_VAE: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
}
_BLIP: dict[str, Any] = {
    "vision_config": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 384,
        "patch_size": 16,
    },
    "text_config": {
        "vocab_size": 30524,
        "hidden_size": 768,
        "encoder_hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 512,
    },
}

# Hub id, then the part of the model.
KNOWN: dict[str, dict[str, dict[str, Any]]] = {
    "CompVis/stable-diffusion-v1-4": {"unet": _UNET, "vae": _VAE, "text_encoder": _TEXT},
    "Salesforce/blip-image-captioning-base": {"captioner": _BLIP},
    "openai/clip-vit-large-patch14": {"image_encoder": _VISION},
    "timm/resnet50.tv_in1k": {"semantic_encoder": {"model_name": "resnet50"}},
}
