"""DDIM inversion against diffusers' own inversion pipeline and the equations of DDIM."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler, StableDiffusionPipeline
from diffusers.pipelines.deprecated.stable_diffusion_diffedit import StableDiffusionDiffEditPipeline

from sare_core.config import Settings
from sare_core.errors import ConfigError
from sare_core.reconstruction.autoencoder import Autoencoder
from sare_core.reconstruction.ddim_inversion import DDIMInversion
from sare_core.reconstruction.mapper import generator_for

MakeSettings = Callable[..., Settings]
IMAGES = torch.rand(2, 3, 64, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1
IDS = ["image 0", "image 1"]


def method(standin_settings: MakeSettings, *overrides: str) -> DDIMInversion:
    settings = standin_settings(*(f"reconstruct.{override}" for override in overrides)).reconstruct
    return DDIMInversion(settings, settings.model, "cpu")


def generators() -> list[torch.Generator]:
    return [generator_for(0, image_id) for image_id in IDS]


def test_equals_the_inversion_and_the_sampling_of_diffusers(
    standin_settings: MakeSettings, standin_models: Path
) -> None:
    """z_T by its inversion pipeline, x̂ from z_T by its text-to-image pipeline, with the null text and no guidance."""
    ours = method(standin_settings, "steps=10", "strength=1").reconstruct(IMAGES, ["a cat", "a dog"], generators())
    parts: dict[str, Any] = {"safety_checker": None, "feature_extractor": None}
    inversion = StableDiffusionDiffEditPipeline.from_pretrained(
        standin_models / "diffusion", inverse_scheduler=None, **parts
    )
    inversion.inverse_scheduler = DDIMInverseScheduler.from_config(inversion.scheduler.config)
    sampling = StableDiffusionPipeline.from_pretrained(standin_models / "diffusion", **parts)
    sampling.scheduler = DDIMScheduler.from_config(sampling.scheduler.config)
    for pipeline in (inversion, sampling):
        pipeline.set_progress_bar_config(disable=True)
    for image, image_id, result in zip(IMAGES, IDS, ours, strict=True):
        path = inversion.invert(
            prompt="",
            image=image[None],
            num_inference_steps=10,
            inpaint_strength=1.0,
            guidance_scale=1.0,
            generator=generator_for(0, image_id),
        ).latents
        expected = sampling(
            prompt="",
            latents=path[:, 0],  # the last, noisiest one comes first
            num_inference_steps=10,
            guidance_scale=1.0,
            height=64,
            width=40,
            output_type="np",
        ).images[0]
        assert isinstance(result, torch.Tensor)
        assert np.abs(result.permute(1, 2, 0).numpy() - expected).max() <= 1e-4


def test_captions_and_noise_play_no_part(standin_settings: MakeSettings) -> None:
    inversion = method(standin_settings, "steps=4", "latents=mean")
    results = [
        inversion.reconstruct(IMAGES, captions, [generator_for(seed, "x")] * 2)
        for seed, captions in ((0, ["", ""]), (1, ["a cat", "two dogs"]))
    ]
    for one, other in zip(*results, strict=True):
        assert isinstance(one, torch.Tensor)
        assert isinstance(other, torch.Tensor)
        assert torch.equal(one, other)


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_the_way_there_and_back_are_ddims_equations(strength: float, standin_settings: MakeSettings) -> None:
    """With an ε that does not depend on z the two ways cancel; and z_T is what equation 12 of DDIM gives at T."""
    inversion: Any = method(standin_settings, "steps=20", f"strength={strength}")
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    epsilon = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    seen: list[tuple[int, torch.Tensor]] = []

    def unet(rows: torch.Tensor, t: int, **_: Any) -> tuple[torch.Tensor]:
        seen.append((t, rows))
        return (epsilon,)

    inversion.unet = unet
    back = inversion.change(latents, [""], generators()[:1])
    assert (back - latents).abs().max() <= 1e-4
    count = int(20 * strength)
    times = [1 + 50 * n for n in range(count)]
    assert [t for t, _ in seen] == times + times[::-1]

    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    alpha = np.cumprod(1 - betas)
    start, end = alpha[0], alpha[times[-1]]  # set_alpha_to_one is false: z_0 stands at the first timestep
    noisiest = (
        np.sqrt(end / start) * (latents - np.sqrt(1 - start) * epsilon).numpy() + np.sqrt(1 - end) * epsilon.numpy()
    )
    assert np.abs(seen[count][1].numpy() - noisiest).max() <= 1e-3


def test_where_the_model_sees_no_noise_the_autoencoder_is_left(standin_settings: MakeSettings) -> None:
    inversion: Any = method(standin_settings, "steps=6", "latents=mean")
    settings = standin_settings("reconstruct.latents=mean").reconstruct
    inversion.unet = lambda rows, t, **_: (torch.zeros_like(rows),)
    ours = inversion.reconstruct(IMAGES, ["", ""], generators())
    autoencoder = Autoencoder(settings, settings.model, "cpu").reconstruct(IMAGES, ["", ""], generators())
    for one, other in zip(ours, autoencoder, strict=True):
        assert isinstance(other, torch.Tensor)
        assert (one - other).abs().max() <= 1e-4


def test_too_little_strength_is_refused(standin_settings: MakeSettings) -> None:
    with pytest.raises(ConfigError, match="leaves no step"):
        method(standin_settings, "steps=4", "strength=0.2")
