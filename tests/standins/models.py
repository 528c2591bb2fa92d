"""Small models of the real classes, with random weights."""

import json
from pathlib import Path
from typing import Any

import torch

CAPTION_WORDS = """
a an the of in on at with and two three some small large red green blue white black brown yellow old young man woman
child cat dog bird horse cow sheep fish tree flower grass leaf rock stone wall brick house street road bridge river sea
lake hill mountain sky cloud sun moon star rocket car bus train boat bicycle motorcycle cup coffee table chair plate
coin camera book clock window door garden field forest beach snow sitting standing lying flying running near under over
beside close photo picture painting view
"""

SCHEDULER = {  # word for word the scheduler_config.json of Stable Diffusion v1-4
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.7.0.dev0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}


def build_models(folder: Path, seed: int = 0) -> Path:
    """Write captioner, diffusion, image-encoder and semantic-encoder into `folder`; returns it.

    A BLIP, a Stable Diffusion v1 folder, a CLIP vision model with projection (all as transformers and diffusers save
    them) and a timm ResNet. About 5 MB of safetensors; the same seed gives the same bytes.
    """
    for number, (name, write) in enumerate(MODELS.items()):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1000 * seed + number)
            write(folder / name)
    return folder


def _write_captioner(folder: Path) -> None:
    from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor

    words = CAPTION_WORDS.split()
    letters = list("abcdefghijklmnopqrstuvwxyz0123456789.,!?'-")
    pieces = [letter for letter in letters if letter not in words] + [f"##{letter}" for letter in letters]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", *words, *pieces]
    tokenizer = BertTokenizer(vocab={token: number for number, token in enumerate(tokens)}, bos_token="[DEC]")
    text = {
        "vocab_size": len(tokens),
        "hidden_size": 48,
        "encoder_hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        "sep_token_id": 3,
        "eos_token_id": 3,
        "bos_token_id": 5,
        "initializer_range": 0.3,  # far above the usual 0.02, or every image would get the same words
    }
    vision = {
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 64,
        "patch_size": 16,
        "initializer_range": 0.3,
    }
    config = BlipConfig(text_config=text, vision_config=vision, projection_dim=48, image_text_hidden_size=48)
    model = BlipForConditionalGeneration(config).eval()
    with torch.no_grad():
        bias = model.text_decoder.cls.predictions.bias
        bias.fill_(-30.0)  # no letters, and no tokens that decode to nothing
        bias[[tokens.index(word) for word in words]] = 0.0
        bias[tokens.index("[SEP]")] = 2.0  # captions of several lengths
        model.text_decoder.bert.embeddings.position_embeddings.weight *= 4.0  # or one word would fill a caption
    model.save_pretrained(folder)
    images = BlipImageProcessor(size={"height": 64, "width": 64})
    BlipProcessor(images, tokenizer).save_pretrained(folder)


def _write_diffusion(folder: Path) -> None:
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    tokenizer = _byte_tokenizer()
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=77,
            bos_token_id=begin,
            eos_token_id=end,
            pad_token_id=end,
        )
    )
    vae: Any = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 16, 16, 32),  # four blocks: 8 pixels a latent, as Stable Diffusion has it
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
    )
    with torch.no_grad():  # latents of unit size after the VAE's scaling, and a narrow posterior, as trained VAEs have
        vae.quant_conv.weight[:4] *= 30.0
        vae.quant_conv.bias[4:] -= 6.0
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(32, 64),
        layers_per_block=1,
        cross_attention_dim=32,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    pipeline: Any = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=PNDMScheduler.from_config(SCHEDULER),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    # As it was published: saving the object would lose clip_sample, which DDIM reads.
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER, indent=2) + "\n")


def _byte_tokenizer() -> Any:
    """A CLIP tokenizer without merges: one token a byte, so that any text tokenises."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    symbols = sorted(ByteLevel.alphabet())
    tokens = [*symbols, *(f"{symbol}</w>" for symbol in symbols), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: n for n, token in enumerate(tokens)}, merges=[], model_max_length=77)


def _write_image_encoder(folder: Path) -> None:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=64,
        intermediate_size=128,
        projection_dim=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=64,
        patch_size=16,
    )
    CLIPVisionModelWithProjection(config).save_pretrained(folder)


def _write_semantic_encoder(folder: Path) -> None:
    import timm
    from timm.models import save_for_hf

    # ResNet-50's bottleneck blocks, one a stage. Without zero_init_last=False they would start as identities.
    args: dict[str, Any] = {"layers": [1, 1, 1, 1], "channels": [8, 16, 32, 64], "zero_init_last": False}
    # In place of timm's own entry, which would name trained weights as the origin.
    about = {"tag": "random", "input_size": (3, 64, 64), "first_conv": "conv1", "classifier": "fc"}
    model = timm.create_model("resnet50", pretrained=False, pretrained_cfg=about, num_classes=10, **args)
    save_for_hf(model, str(folder), model_args=args, safe_serialization=True)


MODELS = {
    "captioner": _write_captioner,
    "diffusion": _write_diffusion,
    "image-encoder": _write_image_encoder,
    "semantic-encoder": _write_semantic_encoder,
}
