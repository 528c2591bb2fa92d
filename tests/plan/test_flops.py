"""FLOPs of a plan, against totals that were measured on the published models, and against real runs of stand-ins."""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sare_core.captioning import load_captioner
from sare_core.config import Settings, load_settings
from sare_core.detectors import build_detector, named_encoders
from sare_core.errors import ConfigError
from sare_core.plan import flops, models
from sare_core.reconstruction import method_of
from sare_core.reconstruction.img2img import Img2Img
from sare_core.reconstruction.mapper import Mapper, generator_for
from sare_core.reconstruction.perceptual import load_lpips

MakeSettings = Callable[..., Settings]
PAPER = load_settings("paper")


def measured(run: Callable[[], Any]) -> int:
    """FLOPs of a real run on the CPU, whose fused attention torch does not count."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def test_a_count_is_two_flops_a_multiplication() -> None:
    with torch.device("meta"):
        linear, conv = torch.nn.Linear(5, 7), torch.nn.Conv2d(3, 4, 3, stride=2, padding=1)
    assert flops.count(lambda: linear(torch.empty(2, 5))) == 2 * 2 * 5 * 7
    assert flops.count(lambda: conv(torch.empty(1, 3, 9, 6))) == 2 * (5 * 3) * 4 * (3 * 3 * 3)


def test_the_papers_models_cost_what_was_measured_of_them() -> None:
    """GFLOP, measured with torch's counter on the published models; millions of parameters."""
    diffusion, size = models.diffusion(PAPER.reconstruct), torch.empty
    latent, image, states = (1, 4, 64, 64), (1, 3, 512, 512), (1, 77, 768)
    detector: Any = models.detector(PAPER.detector)
    blip = models.blip(PAPER.caption)
    parameters = sum(parameter.numel() for parameter in diffusion.unet.parameters())
    assert parameters / 1e6 == pytest.approx(859.5, rel=1e-3)
    resnet = detector.semantic_encoder
    with torch.no_grad():
        found = {
            "unet": flops.count(lambda: diffusion.unet(size(latent), 1, encoder_hidden_states=size(states))),
            "encode": flops.count(lambda: diffusion.vae.encode(size(image))),
            "decode": flops.count(lambda: diffusion.vae.decode(size(latent))),
            "text": flops.count(lambda: diffusion.text_encoder(size((1, 77), dtype=torch.long))),
            "vision tower of BLIP": flops.count(lambda: blip.vision_model(size(1, 3, 384, 384))),
            "CLIP": flops.count(lambda: detector.image_encoder(size(1, 3, 224, 224))),
            "ResNet-50": flops.count(lambda: resnet.forward_features(size(1, 3, 224, 224))),
        }
    found["ResNet-50, both ways"] = flops.count(
        lambda: resnet.train().forward_features(size(2, 3, 224, 224)).sum().backward()
    )
    found["ResNet-50, both ways"] //= 2
    assert {name: value / 1e9 for name, value in found.items()} == pytest.approx(
        {
            "unet": 803.3,
            "encode": 1116.7,
            "decode": 2514.5,
            "text": 13.3,
            "vision tower of BLIP": 111.0,
            "CLIP": 162.0,
            "ResNet-50": 8.2,
            "ResNet-50, both ways": 24.3,
        },
        rel=0.01,
    )


def test_the_papers_stages_cost_what_was_measured_of_them() -> None:
    assert flops.caption_flops(PAPER.caption) / 1e9 == pytest.approx(132.7, rel=0.01)
    diffusion = models.diffusion(PAPER.reconstruct)
    (value,) = flops.reconstruct_flops(PAPER.reconstruct, diffusion, [(512, 512)], captioned=True).values()
    assert value / 1e12 == pytest.approx(43.81, rel=0.001)
    cost = flops.detector_cost(PAPER.detector)
    assert cost.forward / 1e9 == pytest.approx(162.0 + 8.2, rel=0.01)
    assert cost.step / 1e9 == pytest.approx(162.0 + 24.3, rel=0.01)  # CLIP is frozen: no gradient passes it


@pytest.mark.parametrize(
    "changes",
    [
        (),
        ("reconstruct.strength=0.31", "reconstruct.latents=mean", "reconstruct.eta=1"),
        ("reconstruct.guidance_scale=1",),
        ("reconstruct.strength=0",),
        ("reconstruct.method=autoencoder",),
        ("reconstruct.method=ddim_inversion", "reconstruct.strength=0.7"),
        ("reconstruct.cache_interval=3", "reconstruct.noise_draws=2"),
        ("reconstruct.method=one_step", "reconstruct.rounds=2"),
        ("reconstruct.token_merging=0.5", "reconstruct.cache_interval=2"),
        ("reconstruct.token_merging=0.75", "reconstruct.method=ddim_inversion"),
        ("reconstruct.sampler=lcm", "reconstruct.strength=0.7"),
    ],
)
def test_reconstruct_is_counted_as_it_runs(changes: tuple[str, ...], standin_settings: MakeSettings) -> None:
    settings = standin_settings("reconstruct.steps=10", *changes).reconstruct
    real: Any = method_of(settings).load(settings, settings.model, "cpu")
    planned = models.diffusion(settings)
    assert planned.multiple == real.multiple
    for width, height in ((64, 64), (64, 40)):
        images, captions = np.zeros((2, height, width, 3), np.uint8), ["a dog", "a red star"]
        if real.denoises:
            real.encode_texts([""])  # the null text, once a process
        ran = measured(lambda: Mapper(settings, 0, real).reconstruct(images, captions, captions))  # noqa: B023
        if real.denoises:
            real._texts.clear()
        (each,) = flops.reconstruct_flops(settings, planned, [(width, height)], captioned=True).values()
        assert ran == 2 * each


def test_without_captions_there_is_neither_guidance_nor_text(standin_settings: MakeSettings) -> None:
    settings = standin_settings("reconstruct.steps=4").reconstruct
    real = Img2Img(settings, settings.model, "cpu")
    real.encode_texts([""])
    ran = measured(lambda: real.reconstruct(torch.zeros(1, 3, 64, 64), [""], [generator_for(0, "")]))
    planned = flops.reconstruct_flops(settings, models.diffusion(settings), [(64, 64)], captioned=False)
    assert planned == {(64, 64): ran}


def test_many_sizes_are_combined_exactly(standin_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = standin_settings("reconstruct.steps=2").reconstruct
    model = models.diffusion(settings)
    sizes = [(8 * w, 8 * h) for w, h in product((3, 13), (1, 2, 3, 6, 7, 12, 13))]  # odd latents: levels are rounded up
    one_by_one = {size: flops.reconstruct_flops(settings, model, [size], True)[size] for size in sizes}
    counts = 0

    def counting(run: Callable[[], Any], count: Callable[..., int] = flops.count) -> int:
        nonlocal counts
        counts += 1
        return count(run)

    monkeypatch.setattr(flops, "count", counting)
    assert flops.reconstruct_flops(settings, model, sizes, True) == pytest.approx(one_by_one, rel=1e-9)
    assert counts < 3 * 8  # three parts of a model at each size that is counted


def test_what_does_not_combine_is_counted_at_every_size() -> None:
    sizes = [(8 * w, 8 * h) for w, h in product(range(1, 9), range(1, 9))]

    def odd(size: flops.Size) -> int:
        return size[0] ** 3 + 7 * size[1]

    assert flops._at_all(sizes, odd, lambda size: flops._features(size, 8, 2)) == {s: odd(s) for s in sizes}


def test_lpips_is_counted_as_it_runs(standin_settings: MakeSettings) -> None:
    plain, asked = (
        standin_settings("reconstruct.strength=0", f"reconstruct.lpips={lpips}").reconstruct
        for lpips in ("null", "alex-random")
    )
    model, pixels = models.diffusion(plain), np.zeros((64, 96, 3), np.uint8)
    distance = load_lpips("alex-random", "cpu")
    size = (96, 64)
    without, with_it = (flops.reconstruct_flops(part, model, [size], True)[size] for part in (plain, asked))
    assert with_it - without == measured(lambda: distance(pixels, pixels))


@pytest.mark.parametrize("beams", [1, 3])
def test_a_caption_is_counted_as_it_is_generated(beams: int, standin_settings: MakeSettings) -> None:
    settings = standin_settings(f"caption.num_beams={beams}").caption
    captioner: Any = load_captioner(settings, settings.model, "cpu")
    with torch.no_grad():  # never the end: all words are spoken
        captioner.model.text_decoder.cls.predictions.bias[captioner.model.config.text_config.sep_token_id] = -1e9
    images = [Image.new("RGB", (64, 48), color) for color in ("red", "blue")]
    assert measured(lambda: captioner.caption(images, [{}, {}])) == 2 * flops.caption_flops(settings)


def test_captions_without_a_model_cost_nothing(standin_settings: MakeSettings) -> None:
    assert flops.caption_flops(standin_settings("caption.captioner=none", "caption.model=null").caption) == 0


def test_what_cannot_be_counted_is_said(standin_settings: MakeSettings) -> None:
    with pytest.raises(ConfigError, match="llava-next: its FLOPs depend on"):
        flops.caption_flops(standin_settings("caption.captioner=llava-next").caption)


@pytest.mark.parametrize(
    "changes",
    [
        (),
        ("detector.query=patches",),
        ("detector.semantic_tokens=pooled", "detector.residual=false"),
        ("detector.tune_image_encoder=true",),
        ("detector.query=patches", "detector.tune_image_encoder=true"),
        ("detector.detector=image",),
        ("detector.detector=image", "detector.tune_image_encoder=true"),
        ("detector.detector=map",),
        ("detector.detector=difference",),
        ("detector.detector=difference_in_difference",),
    ],
)
def test_a_detector_is_counted_as_it_runs(changes: tuple[str, ...], standin_settings: MakeSettings) -> None:
    settings = standin_settings(*changes).detector
    real: Any = build_detector(settings, {role: model for role, (model, _) in named_encoders(settings).items()})
    batch = {name: torch.zeros(2, 3, 64, 64) for name in ("image", "sare", "uncaptioned", "second_order")}
    cost = flops.detector_cost(settings)
    real.train()
    assert measured(lambda: real(batch).sum().backward()) == 2 * cost.step
    real.eval()
    with torch.no_grad():
        assert measured(lambda: real(batch)) == 2 * cost.forward


def test_a_broken_configuration_is_named(standin_models: Path, tmp_path: Path, standin_settings: MakeSettings) -> None:
    (tmp_path / "unet").mkdir()
    with pytest.raises(ConfigError, match=r"config\.json: not readable"):
        models.diffusion(standin_settings(f"reconstruct.model={tmp_path}").reconstruct)
