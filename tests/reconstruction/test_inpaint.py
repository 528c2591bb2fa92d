"""In-painting with an empty mask against diffusers' own pipeline."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionInpaintPipeline, UNet2DConditionModel
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

from sare_core.config import Settings
from sare_core.errors import ConfigError
from sare_core.plan import flops, models
from sare_core.reconstruction import method_of
from sare_core.reconstruction.inpaint import Inpaint
from sare_core.reconstruction.mapper import generator_for
from sare_core.reconstruction.stable_diffusion import Parts, StableDiffusion

MakeSettings = Callable[..., Settings]
IMAGES = torch.rand(2, 3, 64, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1
IDS = ["image 0", "image 1"]


def method(standin_settings: MakeSettings, *overrides: str) -> Inpaint:
    """With the stand-ins, and a U-Net of random weights for 9 channels in the place of theirs."""
    changes = ["method=inpaint", "steps=6", "strength=1", "latents=mean", *overrides]
    settings = standin_settings(*(f"reconstruct.{change}" for change in changes)).reconstruct
    whole = StableDiffusion(settings, settings.model, "cpu")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        unet: Any = UNet2DConditionModel.from_config({**whole.unet.config, "in_channels": 9})
    parts = Parts(whole.vae, unet.eval().requires_grad_(False), whole.text_encoder, whole.tokenizer, whole.scheduler)
    return Inpaint(settings, parts, "cpu")


def generators() -> list[torch.Generator]:
    return [generator_for(0, image_id) for image_id in IDS]


@pytest.mark.parametrize("strength", [1, 0.5])
def test_equals_the_pipeline_of_diffusers(
    standin_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch, strength: float
) -> None:
    """Latents are the mean in both, so that the pipeline's generator draws the noise alone, too."""
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())
    ours = method(standin_settings, f"strength={strength}")
    pipeline = StableDiffusionInpaintPipeline(
        ours.vae,
        ours.text_encoder,
        ours.tokenizer,
        ours.unet,
        DDIMScheduler.from_config(ours.scheduler.config),
        safety_checker=None,
        feature_extractor=None,  # type: ignore[arg-type]
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    results = ours.reconstruct(IMAGES, ["", ""], generators())
    for image, image_id, result in zip(IMAGES, IDS, results, strict=True):
        expected = pipeline(
            prompt="",
            image=image[None],
            mask_image=torch.zeros(1, 1, 64, 40),
            height=64,
            width=40,
            strength=strength,
            num_inference_steps=6,
            guidance_scale=7.5,
            generator=generator_for(0, image_id),
            output_type="np",
        ).images[0]
        assert isinstance(result, torch.Tensor)
        assert np.abs(result.permute(1, 2, 0).numpy() - expected).max() <= 1e-4


def test_an_image_does_not_depend_on_its_batch_nor_on_captions(standin_settings: MakeSettings) -> None:
    ours = method(standin_settings)
    both: list[Any] = ours.reconstruct(IMAGES, ["a cat", "a dog"], generators())
    alone: list[Any] = ours.reconstruct(IMAGES[1:], [""], generators()[1:])
    torch.testing.assert_close(both[1], alone[0], atol=1e-5, rtol=0)
    other: list[Any] = ours.reconstruct(IMAGES.flip(0), ["", ""], generators())
    assert (both[0] - other[0]).abs().max() > 1e-2, "from noise alone, and yet it is of the image"


def test_another_model_is_refused(standin_settings: MakeSettings) -> None:
    settings = standin_settings("reconstruct.method=inpaint").reconstruct
    with pytest.raises(ConfigError, match=r"takes 4 channels, that of an in-painting model 9\. Name one, such as"):
        method_of(settings).load(settings, settings.model, "cpu")


def test_its_flops_are_those_of_a_wider_unet(standin_settings: MakeSettings) -> None:
    settings = standin_settings("reconstruct.method=inpaint", "reconstruct.strength=1").reconstruct
    model = models.diffusion(settings)
    wide: Any = UNet2DConditionModel.from_config({**model.unet.config, "in_channels": 9}).to("meta")
    size = (64, 64)
    narrow = flops.reconstruct_flops(settings, model, [size], captioned=True)[size]
    found = flops.reconstruct_flops(settings, model._replace(unet=wide), [size], captioned=True)[size]
    assert found - narrow == 50 * 2 * 5 * 9 * 32 * 8 * 8  # 5 more channels of the first convolution, in 50 steps
