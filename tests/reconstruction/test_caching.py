"""cache_interval: the U-Net in two parts against diffusers' own U-Net, and what runs at which step."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from sare_core.config import Settings
from sare_core.reconstruction.caching import split
from sare_core.reconstruction.img2img import Img2Img
from sare_core.reconstruction.mapper import generator_for

MakeSettings = Callable[..., Settings]
IMAGES = torch.rand(3, 3, 32, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
CAPTIONS = ["a cat", "", "a dog"]


def unet_of(folder: Path, **changes: Any) -> Any:
    config = UNet2DConditionModel.load_config(folder / "diffusion" / "unet")
    torch.manual_seed(0)
    return UNet2DConditionModel.from_config({**config, **changes}).eval().requires_grad_(False)


def x_hats(model: Img2Img, *members: int) -> list[torch.Tensor]:
    found = model.reconstruct(
        IMAGES[list(members)], [CAPTIONS[n] for n in members], [generator_for(0, str(n)) for n in members]
    )
    assert all(isinstance(each, torch.Tensor) for each in found)
    return found  # type: ignore[return-value]


@pytest.mark.parametrize("last", ["CrossAttnUpBlock2D", "UpBlock2D"])
def test_both_parts_are_the_unet_of_diffusers(last: str, standin_models: Path) -> None:
    unet = unet_of(standin_models, up_block_types=("UpBlock2D", last), layers_per_block=2)
    names, (whole, outer) = list(unet.state_dict()), split(unet)
    (one, another), texts = torch.randn(2, 2, 4, 7, 6).unbind(), torch.randn(2, 5, 32)

    def run(part: Any, latents: torch.Tensor, t: int) -> torch.Tensor:
        epsilon: torch.Tensor = part(latents, torch.tensor(t), encoder_hidden_states=texts, return_dict=False)[0]
        return epsilon

    # By torch's own hooks: what the last layer but one gave for the first latents stands in for the second's.
    block, kept = unet.up_blocks[-1], list[Any]()
    layer = (block.attentions if last.startswith("Cross") else block.resnets)[-2]
    with layer.register_forward_hook(lambda _, given, out: kept.append(out)):
        expected = run(unet, one, 601)
    with layer.register_forward_hook(lambda _, given, out: kept[0]):
        with_deep = run(unet, another, 501)
    assert torch.equal(run(whole, one, 601), expected)
    assert torch.equal(run(outer, another, 501), with_deep)
    assert not torch.allclose(with_deep, run(unet, another, 501)), "else nothing is compared"
    assert list(unet.state_dict()) == names, "the U-Net itself is as it was"


def test_an_interval_of_1_is_exact_to_the_byte(standin_settings: MakeSettings, standin_models: Path) -> None:
    folder, changes = str(standin_models / "diffusion"), ("reconstruct.steps=8", "reconstruct.cache_interval=1")
    plain = Img2Img(standin_settings(changes[0]).reconstruct, folder, "cpu")
    one = Img2Img(standin_settings(*changes).reconstruct, folder, "cpu")
    long = Img2Img(standin_settings(changes[0], "reconstruct.cache_interval=2").reconstruct, folder, "cpu")
    exact = x_hats(plain, 0, 1, 2)
    assert all(map(torch.equal, x_hats(one, 0, 1, 2), exact))
    assert not any(map(torch.equal, x_hats(long, 0, 1, 2), exact))


@pytest.mark.parametrize(("interval", "whole"), [(2, 3), (3, 2), (9, 1)])
def test_the_deep_layers_run_at_one_of_so_many_steps(
    interval: int, whole: int, standin_settings: MakeSettings, standin_models: Path
) -> None:
    settings = standin_settings("reconstruct.steps=10", f"reconstruct.cache_interval={interval}").reconstruct
    model = Img2Img(settings, str(standin_models / "diffusion"), "cpu")
    ran = dict.fromkeys(("conv_in", "mid_block", "conv_out"), 0)

    def count(name: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            ran[name] += 1

        return hook

    for name in ran:
        getattr(model.unet, name).register_forward_hook(count(name))
    x_hats(model, 0, 1)
    assert ran == {"conv_in": 5, "mid_block": whole, "conv_out": 5}


def test_an_image_does_not_depend_on_its_batch(standin_settings: MakeSettings, standin_models: Path) -> None:
    settings = standin_settings("reconstruct.steps=8", "reconstruct.cache_interval=3").reconstruct
    model = Img2Img(settings, str(standin_models / "diffusion"), "cpu")
    together = x_hats(model, 0, 1, 2)
    alone = [x_hats(model, number)[0] for number in (2, 0, 1)]  # in another order: nothing stays from the batch before
    for number, one in zip((2, 0, 1), alone, strict=True):
        torch.testing.assert_close(one, together[number], atol=1e-4, rtol=0)
