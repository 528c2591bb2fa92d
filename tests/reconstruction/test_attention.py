"""The U-Net's attention by a chosen kernel, and with padded heads: nothing but rounding tells of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from sare_core.config import Settings
from sare_core.errors import ConfigError
from sare_core.reconstruction.attention import pad_heads
from sare_core.reconstruction.img2img import Img2Img
from sare_core.reconstruction.mapper import generator_for

MakeSettings = Callable[..., Settings]
FUSED = "aten._scaled_dot_product_flash_attention_for_cpu.default"


@pytest.fixture
def model(standin_settings: MakeSettings, standin_models: Path) -> Callable[..., Img2Img]:
    def make(*changes: str) -> Img2Img:
        changes = tuple(f"reconstruct.{change}" for change in changes)
        settings = standin_settings("reconstruct.steps=8", "reconstruct.batch_size=3", *changes).reconstruct
        return Img2Img(settings, str(standin_models / "diffusion"), "cpu")

    return make


def reconstruct(model: Img2Img) -> torch.Tensor:
    images = torch.rand(3, 3, 32, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = model.reconstruct(images, ["a dog", "", "a red star"], [generator_for(0, name) for name in "abc"])
    return torch.stack([image for image in found if isinstance(image, torch.Tensor)])


class Operations(TorchDispatchMode):
    """names: of what torch's own kernels did."""

    def __init__(self) -> None:
        super().__init__()
        self.names = list[str]()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


class Widths(TorchFunctionMode):
    """seen: widths of heads, of the U-Net's attention."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = set[int]()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is scaled_dot_product_attention:
            self.seen.add(args[0].shape[-1])
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("kernel", "fused"), [("flash", True), ("math", False)])
def test_the_unet_attends_by_the_kernel(model: Callable[..., Img2Img], kernel: str, fused: bool) -> None:
    chosen = model(f"attention={kernel}")
    torch.testing.assert_close(reconstruct(chosen), reconstruct(model()), atol=1e-4, rtol=0)
    texts, latents = torch.zeros(1, 77, chosen.unet.config.cross_attention_dim), torch.zeros(1, 4, 8, 8)
    with Operations() as ran:
        chosen.unet(latents, 1, texts)
    assert (FUSED in ran.names) == fused


@pytest.mark.parametrize("kernel", ["cudnn", "efficient"])
def test_a_kernel_that_the_device_lacks_is_refused(model: Callable[..., Img2Img], kernel: str) -> None:
    with pytest.raises(ConfigError, match=rf"reconstruct.attention={kernel}: .*cpu, float32 .*attention=default"):
        model(f"attention={kernel}")


@pytest.mark.parametrize("changes", [(), ("cache_interval=2",), ("attention=math",), ("token_merging=0.5",)])
def test_padded_heads_are_as_wide_as_kernels_want_them(model: Callable[..., Img2Img], changes: tuple[str, ...]) -> None:
    padded = model("pad_heads=true", *changes)
    texts = torch.zeros(1, 77, padded.unet.config.cross_attention_dim)
    for unet in filter(None, (padded.unet, padded.outer)):
        with Widths() as widths:
            unet(torch.zeros(1, 4, 8, 8), 1, texts)
        assert widths.seen == {64}
    torch.testing.assert_close(reconstruct(padded), reconstruct(model(*changes)), atol=1e-4, rtol=0)


def test_a_unet_with_added_keys_is_refused_before_anything_is_padded() -> None:
    blocks = {
        "down_block_types": ("CrossAttnDownBlock2D", "SimpleCrossAttnDownBlock2D"),
        "up_block_types": ("SimpleCrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    }
    unet: Any = UNet2DConditionModel(
        **blocks, block_out_channels=(16, 16), layers_per_block=1, cross_attention_dim=16, norm_num_groups=8
    )
    before = {name: weight.shape for name, weight in unet.state_dict().items()}
    assert any("add_k_proj" in name for name in before)
    with pytest.raises(ConfigError, match=r"pad_heads=true: .*added keys.* Set reconstruct\.pad_heads=false"):
        pad_heads(unet)
    assert {name: weight.shape for name, weight in unet.state_dict().items()} == before
