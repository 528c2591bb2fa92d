"""speed=quantised: products of 8-bit integers, as torch's own fake quantisation has them, and where they are."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from sare_core.config import Settings, load_settings
from sare_core.errors import ConfigError
from sare_core.models import compiled
from sare_core.plan import flops, models
from sare_core.reconstruction import method_of
from sare_core.reconstruction.img2img import Img2Img
from sare_core.reconstruction.mapper import generator_for
from sare_core.reconstruction.quantising import Quantised, quantise

MakeSettings = Callable[..., Settings]
CAPTIONS = ["a dog", "", "a red star"]


@pytest.fixture
def model(
    standin_settings: MakeSettings, standin_models: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Img2Img]:
    monkeypatch.setattr(compiled, "BACKEND", "eager")  # inductor takes minutes here
    torch._dynamo.reset()

    def make(*changes: str) -> Img2Img:
        changes = tuple(f"reconstruct.{change}" for change in changes)
        settings = standin_settings("reconstruct.steps=8", "reconstruct.batch_size=3", *changes).reconstruct
        return Img2Img(settings, str(standin_models / "diffusion"), "cpu")

    return make


def reconstruct(model: Img2Img, count: int = 3) -> torch.Tensor:
    images = torch.rand(3, 3, 32, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
    generators = [generator_for(0, name) for name in "abc"]
    found = model.reconstruct(images[:count], CAPTIONS[:count], generators[:count])
    return torch.stack([image for image in found if isinstance(image, torch.Tensor)])


def fake_quantised(rows: torch.Tensor) -> torch.Tensor:
    """By torch's own quantisation: each row to the nearest of 255 levels."""
    zeros = torch.zeros(len(rows), dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(rows, rows.abs().amax(1) / 127, zeros, 0, -127, 127)


@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_is_the_product_of_what_torch_quantises(bias: bool) -> None:
    torch.manual_seed(0)
    linear, inputs = nn.Linear(64, 24, bias=bias).requires_grad_(False), torch.randn(2, 40, 64)
    expected = nn.functional.linear(fake_quantised(inputs.flatten(0, 1)), fake_quantised(linear.weight), linear.bias)
    found = Quantised(linear)(inputs)
    torch.testing.assert_close(found, expected.unflatten(0, (2, 40)), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found, linear(inputs), atol=1e-3), "else nothing was quantised"


def test_half_precision_does_not_overflow_before_the_scales() -> None:
    torch.manual_seed(0)
    linear, inputs = nn.Linear(512, 16).requires_grad_(False), 100 * torch.randn(40, 512)
    found = Quantised(linear.half())(inputs.half())
    expected = nn.functional.linear(inputs, linear.weight.float(), linear.bias.float())
    assert found.dtype == torch.float16
    assert expected.abs().max() / linear.weight.abs().max() * 127 > 2 * torch.finfo(torch.float16).max
    torch.testing.assert_close(found.float(), expected, atol=0.02 * float(expected.std()) * 3, rtol=0)


def test_a_row_does_not_depend_on_the_others() -> None:
    layer, rows = Quantised(nn.Linear(16, 8).requires_grad_(False)), torch.randn(50, 16)
    rows[7] = 0
    rows[8] *= 1e4
    together = layer(rows)
    assert together.isfinite().all() and torch.equal(together[7], layer.bias)
    assert all(torch.equal(layer(row[None])[0], found) for row, found in zip(rows, together, strict=True))


class Products(TorchDispatchMode):
    """shapes: what integers were multiplied, (rows, inputs, outputs)."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes = list[tuple[int, int, int]]()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.ops.aten._int_mm.default:
            self.shapes.append((*args[0].shape, args[1].shape[1]))
        return function(*args, **(kwargs or {}))


def test_linear_layers_of_transformers_alone_are_quantised(model: Callable[..., Img2Img]) -> None:
    plain, quantised = model(), model("speed=quantised")
    linear = {name: layer for name, layer in plain.unet.named_modules() if isinstance(layer, nn.Linear)}
    inside = {name for name in linear if "transformer_blocks" in name}
    assert inside and linear.keys() - inside, "the embedding of the timestep has some, too"
    modules = dict(quantised.unet.named_modules())
    assert {name for name in linear if isinstance(modules[name], Quantised)} == inside
    assert not [layer for layer in quantised.vae.modules() if isinstance(layer, Quantised)]
    texts = torch.zeros(1, 77, plain.unet.config.cross_attention_dim)
    with torch.compiler.set_stance("force_eager"), torch.no_grad(), Products() as ran:
        quantised.unet(torch.zeros(1, 4, 4, 3), 1, texts)
    wanted = sorted((linear[name].in_features, linear[name].out_features) for name in inside)
    assert sorted(each for _, *each in ran.shapes) == [list(pair) for pair in wanted]
    assert min(rows for rows, *_ in ran.shapes) > 16, "cuBLAS takes no fewer"


@pytest.mark.parametrize("changes", [(), ("cache_interval=2", "pad_heads=true", "token_merging=0.5")])
def test_images_move_by_little(model: Callable[..., Img2Img], changes: tuple[str, ...]) -> None:
    exact = reconstruct(model(*changes))
    quantised = model("speed=quantised", *changes)
    found = reconstruct(quantised)
    moved = 255 * (found - exact).abs().mean()
    # Alone, uncompiled: rounding tips a level of 8 bits here and there.
    tipped = 255 * (reconstruct(quantised, 1) - found[:1]).abs().mean()
    assert 0.1 < moved < 1 and tipped < moved / 2


def test_a_method_without_a_unet_has_nothing_to_quantise(standin_settings: MakeSettings) -> None:
    settings = standin_settings("reconstruct.method=autoencoder", "reconstruct.speed=quantised").reconstruct
    with pytest.raises(ConfigError, match=r"speed=quantised: autoencoder has no U-Net.*Set reconstruct.speed=rounding"):
        method_of(settings)


@pytest.mark.parametrize(
    "changes",
    [
        {"down_block_types": ("DownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "UpBlock2D")},
        {"down_block_types": ("AttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "AttnUpBlock2D")},
    ],
    ids=["no attention", "attention without transformers"],
)
def test_a_unet_of_which_nothing_is_quantised_is_refused(changes: dict[str, tuple[str, str]]) -> None:
    unet: Any = UNet2DConditionModel(
        **changes, mid_block_type=None, block_out_channels=(16, 16), layers_per_block=1, norm_num_groups=8
    )
    with pytest.raises(ConfigError, match=r"speed=quantised: .*no transformers.* Set reconstruct\.speed=rounding"):
        quantise(unet)


def test_share_of_the_papers_unet_as_the_speed_page_says() -> None:
    unet = deepcopy(models.diffusion(load_settings("paper").reconstruct).unet).eval()
    inputs = {"encoder_hidden_states": torch.empty(1, 77, 768, device="meta")}
    with torch.no_grad(), torch.device("meta"):
        total = flops.count(lambda: unet(torch.empty(1, 4, 64, 64), 1, **inputs))
        quantise(unet)
        with Products() as ran:
            unet(torch.empty(1, 4, 64, 64), 1, **inputs)
    share = sum(2 * rows * inner * outer for rows, inner, outer in ran.shapes) / total
    page = (Path(__file__).parents[2] / "docs" / "speed.md").read_text()
    assert f"{share:.0%} of its FLOPs".replace("%", " %") in " ".join(page.split())
