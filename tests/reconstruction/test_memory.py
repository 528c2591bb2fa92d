"""A batch that does not fit into memory is done in parts, and nothing but rounding tells of it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sare_core.config import Settings
from sare_core.reconstruction.img2img import Img2Img
from sare_core.reconstruction.mapper import generator_for
from tests.memory import short_of_memory

MakeSettings = Callable[..., Settings]


@pytest.mark.parametrize("eta", [0.0, 1.0], ids=["ddim", "noise at each step"])
def test_a_batch_in_parts_gives_the_same_images(
    eta: float, standin_settings: MakeSettings, standin_models: Path
) -> None:
    settings = standin_settings("reconstruct.steps=4", f"reconstruct.eta={eta}").reconstruct
    images, captions = torch.rand(7, 3, 32, 32) * 2 - 1, list("abcdefg")

    def reconstruct(model: Img2Img) -> torch.Tensor:
        found = model.reconstruct(images, captions, [generator_for(0, text) for text in captions])
        return torch.stack([image for image in found if isinstance(image, torch.Tensor)])

    model = Img2Img(settings, str(standin_models / "diffusion"), "cpu")
    whole, seen = reconstruct(model), dict[str, list[int]](unet=[], encode=[], decode=[])
    assert model.ran() == {"encoder": 7, "unet": 7, "decoder": 7, "empty_rows": 0}
    model.unet.forward = short_of_memory(model.unet.forward, 4, seen["unet"])  # two rows an image: guidance
    model.vae.encode = short_of_memory(model.vae.encode, 3, seen["encode"])
    model.vae.decode = short_of_memory(model.vae.decode, 1, seen["decode"])
    for _ in range(2):
        torch.testing.assert_close(reconstruct(model), whole, atol=1e-4, rtol=0)
        assert (model.encoding.largest, model.changing.largest, model.decoding.largest) == (3, 1, 1)
        assert model.ran() == {"encoder": 3, "unet": 1, "decoder": 1, "empty_rows": 0}
    assert seen["encode"] == [7, 3, 3, 1, 3, 3, 1], "what fits is remembered"
    assert seen["decode"] == [7, 3] + [1] * 14
