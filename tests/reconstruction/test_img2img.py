"""Caption-guided reconstruction against diffusers' own pipeline and the published scheduler of Stable Diffusion v1."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionImg2ImgPipeline
from PIL import Image

from benchmarks.engine.counts import Reads
from sare_core.config import Settings
from sare_core.errors import ConfigError, ImageError
from sare_core.images.decoding import fit_size, resize
from sare_core.reconstruction.img2img import Img2Img, OneStep
from sare_core.reconstruction.mapper import generator_for, rounded

# Wide, high and square, larger and smaller than the target, so that they fall into several groups by size.
SIZES = [(96, 64), (64, 96), (80, 80), (96, 64), (50, 71), (64, 96), (96, 64), (80, 80)]
CAPTIONS = ["a cat", "", "two dogs on a red street", "a cat", "", "a rocket", "moon over the sea", "a coin"]


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    smooth = [rng.integers(0, 256, (6, 6, 3), dtype=np.uint8) for _ in SIZES]
    return [
        Image.fromarray(values).resize(size, Image.Resampling.BICUBIC)
        for values, size in zip(smooth, SIZES, strict=True)
    ]


def prepared(settings: Settings, multiple: int) -> list[Image.Image]:
    config = settings.reconstruct
    return [
        resize(image, fit_size(*image.size, config.longer_side, multiple, config.upscale), config.resample)
        for image in pictures()
    ]


def by_diffusers(settings: Settings, folder: str, images: list[Image.Image], captions: list[str]) -> list[np.ndarray]:
    """x̂ before rounding, (H, W, 3) in [0, 1]: diffusers' pipeline, one image at a time."""
    pipeline = StableDiffusionImg2ImgPipeline.from_pretrained(folder, safety_checker=None, feature_extractor=None)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    config = settings.reconstruct
    return [
        pipeline(
            prompt=caption,
            image=image,
            strength=config.strength,
            num_inference_steps=config.steps,
            guidance_scale=config.guidance_scale,
            eta=config.eta,
            generator=[generator_for(settings.seed, f"image {number}")],
            output_type="np",
        ).images[0]
        for number, (image, caption) in enumerate(zip(images, captions, strict=True))
    ]


def by_us(
    settings: Settings, folder: str, images: list[Image.Image], captions: list[str], batch: int
) -> list[torch.Tensor]:
    """x̂ of all images, those of one size in batches of `batch`, later images first."""
    reconstructor = Img2Img(settings.reconstruct, folder, "cpu")
    results: dict[int, torch.Tensor] = {}
    for size in {image.size for image in images}:
        members = [number for number, image in enumerate(images) if image.size == size][::-1]
        for start in range(0, len(members), batch):
            part = members[start : start + batch]
            pixels = torch.from_numpy(np.stack([np.asarray(images[n]) for n in part])).permute(0, 3, 1, 2)
            generators = [generator_for(settings.seed, f"image {n}") for n in part]
            found = reconstructor.reconstruct(pixels.float() / 127.5 - 1, [captions[n] for n in part], generators)
            assert all(isinstance(result, torch.Tensor) for result in found)
            results.update(zip(part, found, strict=True))  # type: ignore[arg-type]
    return [results[number] for number in range(len(images))]


VARIANTS = {
    "paper": [],
    "no guidance": ["reconstruct.guidance_scale=1"],
    "strong": ["reconstruct.strength=0.9", "reconstruct.guidance_scale=12.5"],
    "odd steps": ["reconstruct.steps=7", "reconstruct.strength=0.3"],
    "eta": ["reconstruct.steps=10", "reconstruct.eta=1.0"],
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_the_pipeline_of_diffusers(
    variant: str, standin_settings: Callable[..., Settings], standin_models: Path
) -> None:
    settings, folder = (
        standin_settings("reconstruct.longer_side=64", *VARIANTS[variant]),
        str(standin_models / "diffusion"),
    )
    multiple = Img2Img(settings.reconstruct, folder, "cpu").multiple
    images = prepared(settings, multiple)
    assert len({image.size for image in images}) >= 3
    theirs = by_diffusers(settings, folder, images, CAPTIONS)
    levels = [(image * 255).round().astype(np.uint8) for image in theirs]
    assert np.std(np.stack([image.mean() for image in theirs])) > 1e-3, "the images must differ, or nothing is compared"
    for batch in (1, 3, 8):
        ours = by_us(settings, folder, images, CAPTIONS, batch)
        for result, exact, pixels in zip(ours, theirs, levels, strict=True):
            assert np.abs(result.permute(1, 2, 0).numpy() - exact).max() <= 1e-4
            assert np.abs(np.asarray(rounded(result)).astype(int) - pixels).max() <= 1


def test_the_latent_mean_leaves_the_posterior_unsampled(
    standin_settings: Callable[..., Settings], standin_models: Path
) -> None:
    settings, folder = standin_settings("reconstruct.steps=4"), str(standin_models / "diffusion")
    mean = standin_settings("reconstruct.steps=4", "reconstruct.latents=mean")
    images = prepared(settings, 8)[:1]
    sampled, unsampled = (by_us(s, folder, images, ["a cat"], 1)[0] for s in (settings, mean))
    assert not torch.equal(sampled, unsampled)
    reconstructor = Img2Img(mean.reconstruct, folder, "cpu")
    pixels = torch.randn(1, 3, 64, 64)
    latents = reconstructor._encode(pixels, [torch.Generator().manual_seed(0)])
    posterior = reconstructor.vae.encode(pixels).latent_dist
    assert torch.equal(latents, posterior.mean * reconstructor.vae.config.scaling_factor)


def test_the_unet_runs_25_times_and_each_text_is_encoded_once(
    standin_settings: Callable[..., Settings], standin_models: Path
) -> None:
    settings = standin_settings()
    reconstructor = Img2Img(settings.reconstruct, str(standin_models / "diffusion"), "cpu")
    calls: Counter[str] = Counter()

    def count(name: str) -> Callable[..., None]:
        def hook(module: object, inputs: tuple[torch.Tensor, ...], output: object) -> None:
            calls[name] += 1
            calls[f"{name} rows"] += len(inputs[0])

        return hook

    for name in ("unet", "text_encoder"):
        getattr(reconstructor, name).register_forward_hook(count(name))
    pixels = torch.zeros(3, 3, 32, 32)
    generators = [generator_for(0, str(number)) for number in range(3)]
    reconstructor.reconstruct(pixels, ["a cat", "a dog", "a cat"], generators)
    assert calls == {"unet": 25, "unet rows": 25 * 6, "text_encoder": 2, "text_encoder rows": 3}  # two captions and ""
    calls.clear()
    reconstructor.reconstruct(pixels, ["", "", ""], generators)
    assert calls == {"unet": 25, "unet rows": 25 * 3}, (
        "without a caption the guidance pass would be the same pass again"
    )


def test_the_scheduler_is_that_of_stable_diffusion_v1(
    standin_settings: Callable[..., Settings], standin_models: Path
) -> None:
    """The published config of CompVis/stable-diffusion-v1-4, and what follows from it for 50 steps at strength 0.5."""
    scheduler = Img2Img(standin_settings().reconstruct, str(standin_models / "diffusion"), "cpu").scheduler
    assert isinstance(scheduler, DDIMScheduler)
    published = {
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
        "prediction_type": "epsilon",
    }
    assert {key: scheduler.config[key] for key in published} == published
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=np.float64) ** 2
    np.testing.assert_allclose(scheduler.alphas_cumprod.numpy(), np.cumprod(1 - betas), rtol=1e-4)
    scheduler.set_timesteps(50)
    assert scheduler.timesteps[25:].tolist() == [481 - 20 * step for step in range(25)]
    bare = DDIMScheduler()
    assert not torch.allclose(bare.alphas_cumprod, scheduler.alphas_cumprod), "a bare scheduler would be another one"


def test_no_step_of_the_loop_waits_for_the_device(
    standin_settings: Callable[..., Settings], standin_models: Path
) -> None:
    """Each number read back from a tensor is a wait on a GPU; they must not grow with the steps."""

    def reads(steps: int) -> int:
        settings = standin_settings(f"reconstruct.steps={steps}").reconstruct
        reconstructor = Img2Img(settings, str(standin_models / "diffusion"), "cpu")
        with Reads() as counter:
            reconstructor.reconstruct(torch.zeros(1, 3, 32, 32), ["a cat"], [generator_for(0, "x")])
        return counter.count

    assert reads(20) == reads(4)


@pytest.mark.parametrize(("spoil", "reason"), [(float("nan"), "not finite"), (-1e9, "all black")])
def test_spoilt_results_fail_that_image_only(
    spoil: float, reason: str, standin_settings: Callable[..., Settings], standin_models: Path
) -> None:
    reconstructor = Img2Img(
        standin_settings("reconstruct.steps=2").reconstruct, str(standin_models / "diffusion"), "cpu"
    )
    decode = reconstructor.vae.decode

    def spoilt(latents: torch.Tensor, return_dict: bool) -> tuple[torch.Tensor]:
        (images,) = decode(latents, return_dict=return_dict)
        images[1] = spoil
        return (images,)

    reconstructor.vae.decode = spoilt
    generators = [generator_for(0, str(number)) for number in range(3)]
    good, bad, also_good = reconstructor.reconstruct(torch.zeros(3, 3, 32, 32), ["a", "b", "c"], generators)
    assert isinstance(good, torch.Tensor)
    assert isinstance(also_good, torch.Tensor)
    assert isinstance(bad, ImageError)
    assert reason in str(bad)


def test_an_incomplete_model_names_the_part_and_the_cure(
    standin_settings: Callable[..., Settings], standin_models: Path, tmp_path: Path
) -> None:
    import shutil

    folder = tmp_path / "diffusion"
    shutil.copytree(standin_models / "diffusion", folder)
    shutil.rmtree(folder / "unet")
    with pytest.raises(ConfigError, match=r"unet: not a readable UNet2DConditionModel.*reconstruct\.model"):
        Img2Img(standin_settings().reconstruct, str(folder), "cpu")


@pytest.mark.parametrize("latents", ["sample", "mean"])
def test_strength_0_is_the_autoencoder_of_diffusers_alone(
    latents: str, standin_settings: Callable[..., Settings], standin_models: Path
) -> None:
    settings = standin_settings("reconstruct.strength=0", f"reconstruct.latents={latents}").reconstruct
    reconstructor = Img2Img(settings, str(standin_models / "diffusion"), "cpu")
    reconstructor.unet = reconstructor.text_encoder = None  # neither is called
    images = torch.from_numpy(np.stack([np.asarray(image.resize((64, 64))) for image in pictures()[:2]]))
    images = images.permute(0, 3, 1, 2).float() / 127.5 - 1
    ids = ["image 0", "image 1"]
    ours = reconstructor.reconstruct(images, ["a cat", ""], [generator_for(0, image_id) for image_id in ids])

    vae = AutoencoderKL.from_pretrained(standin_models / "diffusion", subfolder="vae")
    for image, image_id, result in zip(images, ids, ours, strict=True):
        posterior = vae.encode(image[None]).latent_dist
        z = posterior.mode() if latents == "mean" else posterior.sample(generator_for(0, image_id))
        expected = vae.decode(z).sample[0].detach() / 2 + 0.5
        assert isinstance(result, torch.Tensor)
        assert (result - expected.clamp(0, 1)).abs().max() <= 1e-4


@pytest.mark.parametrize(("caption", "w"), [("a cat", 7.5), ("a cat", 1.0), ("", 7.5)])
def test_one_step_is_the_predicted_z_0(
    caption: str, w: float, standin_settings: Callable[..., Settings], standin_models: Path
) -> None:
    """From equations 1 and 2 and the published betas, written out; the U-Net is diffusers' own."""
    settings = standin_settings("reconstruct.steps=10", f"reconstruct.guidance_scale={w}").reconstruct
    model, z_0 = OneStep(settings, str(standin_models / "diffusion"), "cpu"), torch.randn(2, 4, 4, 4)
    calls: list[int] = []
    model.unet.register_forward_hook(lambda _, inputs, out: calls.append(len(inputs[0])))
    with torch.no_grad():
        found = model.change(z_0, [caption] * 2, [generator_for(0, name) for name in "xy"])
        assert calls == [4 if caption and w != 1 else 2], "once, whatever the steps"

        noise = torch.cat([torch.randn(1, 4, 4, 4, generator=generator_for(0, name)) for name in "xy"])
        alpha = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)[401]  # strength 0.5: of 901 … 1
        z_t = alpha**0.5 * z_0 + (1 - alpha) ** 0.5 * noise
        null, under = (model.unet(z_t, 401, model.encode_texts([text] * 2)).sample for text in ("", caption))
        expected = (z_t - (1 - alpha) ** 0.5 * (null + w * (under - null))) / alpha**0.5
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", [Img2Img, OneStep])
def test_too_little_strength_is_refused_when_the_model_is_loaded(
    kind: type[Img2Img], standin_settings: Callable[..., Settings], standin_models: Path
) -> None:
    settings = standin_settings("reconstruct.steps=4", "reconstruct.strength=0.2").reconstruct
    with pytest.raises(ConfigError, match="leaves no step"):
        kind(settings, str(standin_models / "diffusion"), "cpu")
