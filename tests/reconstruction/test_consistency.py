"""sampler=lcm against diffusers' own pipelines, with a U-Net that is told the guidance and with one that is not."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    LatentConsistencyModelImg2ImgPipeline,
    LCMScheduler,
    StableDiffusionImg2ImgPipeline,
    UNet2DConditionModel,
)
from diffusers.utils import logging

from benchmarks.engine.counts import Reads
from sare_core.config import Settings, load_settings
from sare_core.errors import ConfigError
from sare_core.plan import flops, models
from sare_core.reconstruction import method_names, method_of
from sare_core.reconstruction.consistency import told_guidance
from sare_core.reconstruction.ddim_inversion import DDIMInversion
from sare_core.reconstruction.img2img import Img2Img, OneStep
from sare_core.reconstruction.mapper import generator_for
from sare_core.reconstruction.stable_diffusion import Parts, StableDiffusion
from tests.plan.test_flops import measured

MakeSettings = Callable[..., Settings]
IMAGES = torch.rand(3, 3, 64, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1
CAPTIONS = ["a cat", "", "two dogs on a red street"]


def model_of(standin_settings: MakeSettings, *changes: str, told: int | None = 16, kind: Any = Img2Img) -> Any:
    """A method with the stand-ins, and a U-Net of random weights in the place of theirs."""
    settings = standin_settings(*(f"reconstruct.{change}" for change in changes)).reconstruct
    stable = standin_settings().reconstruct
    whole = StableDiffusion(stable, stable.model, "cpu")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        unet: Any = UNet2DConditionModel.from_config({**whole.unet.config, "time_cond_proj_dim": told})
    parts = Parts(whole.vae, unet.eval().requires_grad_(False), whole.text_encoder, whole.tokenizer, whole.scheduler)
    return kind(settings, parts, "cpu")


def x_hats(model: Any, *members: int) -> list[torch.Tensor]:
    found = model.reconstruct(
        IMAGES[list(members)], [CAPTIONS[n] for n in members], [generator_for(0, str(n)) for n in members]
    )
    assert all(isinstance(each, torch.Tensor) for each in found)
    return list(found)


def by_diffusers(kind: Any, ours: Img2Img, number: int, **arguments: Any) -> np.ndarray:
    pipeline = kind(
        vae=ours.vae,
        text_encoder=ours.text_encoder,
        tokenizer=ours.tokenizer,
        unet=ours.unet,
        scheduler=LCMScheduler.from_config(ours.scheduler.config),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    image: np.ndarray = pipeline(
        prompt=CAPTIONS[number],
        image=(IMAGES[number : number + 1] + 1) / 2,
        guidance_scale=ours.settings.guidance_scale,
        generator=[generator_for(0, str(number))],
        output_type="np",
        **arguments,
    ).images[0]
    return image


@pytest.mark.parametrize(
    "changes",
    [
        ("steps=4", "strength=0.5"),
        ("steps=8", "strength=0.7", "guidance_scale=1"),
        ("steps=3", "strength=0.99", "guidance_scale=2.3"),
        ("steps=1", "strength=0.3"),
    ],
)
def test_equals_the_pipeline_of_latent_consistency_models(
    changes: tuple[str, ...], standin_settings: MakeSettings
) -> None:
    ours = model_of(standin_settings, "sampler=lcm", *changes)
    settings = ours.settings
    together = x_hats(ours, 0, 1, 2)
    for number, result in enumerate(together):
        exact = by_diffusers(
            LatentConsistencyModelImg2ImgPipeline,
            ours,
            number,
            num_inference_steps=settings.steps,
            strength=settings.strength,
        )
        assert np.abs(result.permute(1, 2, 0).numpy() - exact).max() <= 1e-4
    assert (together[0] - together[2]).abs().max() > 0.01, "else nothing is compared"


def test_a_unet_that_is_not_told_is_guided_as_usual(standin_settings: MakeSettings) -> None:
    """diffusers' pipeline for LCM's LoRA, on the timesteps of its pipeline for consistency models."""
    ours = model_of(standin_settings, "sampler=lcm", "steps=4", "strength=0.5", told=None)
    scheduler: Any = LCMScheduler.from_config(ours.scheduler.config)
    scheduler.set_timesteps(4, strength=0.5)
    timesteps = scheduler.timesteps.tolist()
    assert timesteps == [499, 379, 259, 139]  # of the 25 that 50 have below 500, every sixth
    for number, result in enumerate(x_hats(ours, 0, 1, 2)):
        exact = by_diffusers(StableDiffusionImg2ImgPipeline, ours, number, timesteps=timesteps, strength=1.0)
        assert np.abs(result.permute(1, 2, 0).numpy() - exact).max() <= 1e-4


def test_the_guidance_is_embedded_as_by_diffusers() -> None:
    embed: Any = LatentConsistencyModelImg2ImgPipeline.get_guidance_scale_embedding
    for w, width in ((7.5, 256), (1.0, 64), (2.3, 7)):
        exact = embed(None, torch.tensor([w - 1]), embedding_dim=width)
        torch.testing.assert_close(told_guidance(w, width), exact, atol=2e-3, rtol=0)


def test_the_guidance_that_is_told_counts_and_takes_no_second_pass(standin_settings: MakeSettings) -> None:
    seen = list[int]()
    made = []
    for w in (7.5, 2.0):
        model = model_of(standin_settings, "sampler=lcm", "steps=4", f"guidance_scale={w}")
        model.unet.register_forward_hook(lambda _, inputs, out: seen.append(len(inputs[0])))
        made.append(x_hats(model, 0, 1))
    assert seen == [2] * 8
    assert not torch.equal(made[0][0], made[1][0])


def test_an_image_does_not_depend_on_its_batch(standin_settings: MakeSettings) -> None:
    model = model_of(standin_settings, "sampler=lcm", "steps=4")
    together, state = x_hats(model, 0, 1, 2), torch.get_rng_state()
    for number in (2, 0, 1):
        torch.testing.assert_close(x_hats(model, number)[0], together[number], atol=1e-4, rtol=0)
    assert torch.equal(torch.get_rng_state(), state), "no noise but that of the images' own generators"


def test_a_schedule_of_the_checkpoint_counts(standin_settings: MakeSettings) -> None:
    model = model_of(standin_settings, "sampler=lcm", "steps=4")
    parts = Parts(model.vae, model.unet, model.text_encoder, model.tokenizer, model.scheduler)
    assert model.steps_from_noise()[0] == 499
    coarse = LCMScheduler.from_config(model.scheduler.config, original_inference_steps=10, timestep_scaling=3.0)
    other = Img2Img(model.settings, parts._replace(scheduler=coarse), "cpu")
    assert other.steps_from_noise() == [499, 399, 299, 199]
    assert other.scheduler.config.timestep_scaling == 3.0


def test_no_step_waits_for_the_device(standin_settings: MakeSettings) -> None:
    """Neither a number that is read back nor a copy to the device, of which there is one a draw, before the steps."""

    def reads(steps: int) -> int:
        model = model_of(standin_settings, "sampler=lcm", f"steps={steps}")
        with Reads() as counter:
            x_hats(model, 0, 1)
        return counter.count

    assert reads(12) == reads(3)


def test_the_noise_is_drawn_before_the_first_step(
    standin_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened = list[str]()
    model = model_of(standin_settings, "sampler=lcm", "steps=4")
    draw = model.noise

    def drawn(*given: Any) -> torch.Tensor:
        happened.append("noise")
        noise: torch.Tensor = draw(*given)
        return noise

    monkeypatch.setattr(model, "noise", drawn)
    model.unet.register_forward_hook(lambda *_: happened.append("step"))
    x_hats(model, 0)
    assert happened == ["noise"] * 4 + ["step"] * 4


@pytest.mark.parametrize("told", [16, None])
def test_it_is_planned_as_it_runs(told: int | None, standin_settings: MakeSettings) -> None:
    model = model_of(standin_settings, "sampler=lcm", "steps=3", "strength=0.5", told=told)
    model.encode_texts([""])
    ran = measured(lambda: x_hats(model, 0, 2))
    planned = models.diffusion(model.settings)
    unet = UNet2DConditionModel.from_config(model.unet.config).to("meta")
    (each,) = flops.reconstruct_flops(model.settings, planned._replace(unet=unet), [(40, 64)], True).values()
    assert ran == 2 * each
    assert method_of(model.settings).passes(model.settings) == (3, 0)
    assert method_of(model.settings).rows(model.settings, model.unet) == (1 if told else 2)


def test_more_steps_than_the_model_knows_are_refused(standin_settings: MakeSettings) -> None:
    with pytest.raises(ConfigError, match=r"reconstruct\.steps=30: the model knows 25 steps at strength 0\.5"):
        model_of(standin_settings, "sampler=lcm", "steps=30", "strength=0.5")


@pytest.mark.parametrize("kind", [Img2Img, OneStep, DDIMInversion])
def test_a_unet_that_is_told_the_guidance_is_refused_under_ddim(kind: Any, standin_settings: MakeSettings) -> None:
    with pytest.raises(ConfigError, match=r"told the guidance .* Set reconstruct\.method=img2img reconstruct\.sampler"):
        model_of(standin_settings, kind=kind)


def test_what_plays_no_part_is_refused() -> None:
    for change, cure in (("eta=0.5", "eta=0"), ("cache_interval=2", "cache_interval=1")):
        with pytest.raises(ConfigError, match=rf"sampler=lcm: .* plays no part in it\. Set reconstruct\.{cure}\.$"):
            load_settings("paper", ["reconstruct.sampler=lcm", f"reconstruct.{change}"])
    for name in set(method_names()) - {"img2img"}:
        settings = load_settings("paper", ["reconstruct.sampler=lcm", f"reconstruct.method={name}"]).reconstruct
        with pytest.raises(ConfigError, match=rf"sampler=lcm: plays no part in {name}\. Set reconstruct\.sampler=ddim"):
            method_of(settings)


def test_a_checkpoints_scheduler_is_taken_over_without_a_warning(
    standin_settings: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    settings = standin_settings().reconstruct
    checkpoints = StableDiffusion(settings, settings.model, "cpu").scheduler.config
    expected = dict(LCMScheduler.from_config(checkpoints).config)
    assert expected.pop("skip_prk_steps") and not expected["set_alpha_to_one"], "Stable Diffusion's own"
    logging.enable_propagation()
    try:
        caplog.clear()
        found = model_of(standin_settings, "sampler=lcm", "steps=4").scheduler.config
    finally:
        logging.disable_propagation()
    assert not [record.message for record in caplog.records if "LCMScheduler" in record.message]
    assert {name: found[name] for name in expected} == expected
