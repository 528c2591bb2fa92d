"""speed=rounding: the same images up to rounding, one graph a size, and no more."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sare_core.config import Settings
from sare_core.models import compiled
from sare_core.reconstruction.img2img import Img2Img
from sare_core.reconstruction.mapper import generator_for

MakeSettings = Callable[..., Settings]


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of the first tensor of each graph that is compiled. Runs it as it is: inductor takes minutes here."""
    seen: list[int] = []

    def backend(graph: Any, inputs: list[torch.Tensor]) -> Any:
        seen.append(next(len(value) for value in inputs if isinstance(value, torch.Tensor) and value.dim() == 4))
        return graph.forward

    monkeypatch.setattr(compiled, "BACKEND", backend)
    torch._dynamo.reset()
    yield seen
    torch._dynamo.reset()


def test_one_graph_a_size_whatever_the_batch(
    graphs: list[int], standin_settings: MakeSettings, standin_models: Path
) -> None:
    folder, common = str(standin_models / "diffusion"), ("reconstruct.steps=6", "reconstruct.batch_size=3")
    exact = Img2Img(standin_settings(*common).reconstruct, folder, "cpu")
    compiled = Img2Img(standin_settings(*common, "reconstruct.speed=rounding").reconstruct, folder, "cpu")
    sizes = [(32, 24), (24, 32)]
    for count in (1, 3, 2):  # one is far from a full batch: it runs uncompiled
        for height, width in sizes:
            images, captions = torch.rand(count, 3, height, width) * 2 - 1, list("abc")[:count]
            ours, theirs = (
                model.reconstruct(images, captions, [generator_for(0, text) for text in captions])
                for model in (compiled, exact)
            )
            assert len(ours) == count
            for one, other in zip(ours, theirs, strict=True):
                torch.testing.assert_close(one, other, atol=1e-4, rtol=0)
        assert count > 1 or not graphs
    assert graphs.count(6) == len(sizes), "the U-Net, with both rows of guidance: one graph a size, for all its steps"
    assert len(graphs) == 3 * len(sizes), "with encoder and decoder"


def test_a_cached_unet_has_a_graph_for_each_of_its_parts(
    graphs: list[int], standin_settings: MakeSettings, standin_models: Path
) -> None:
    folder = str(standin_models / "diffusion")
    common = ("reconstruct.steps=10", "reconstruct.batch_size=3", "reconstruct.cache_interval=2")
    exact = Img2Img(standin_settings(*common).reconstruct, folder, "cpu")
    compiled = Img2Img(standin_settings(*common, "reconstruct.speed=rounding").reconstruct, folder, "cpu")
    for count, text in ((3, "a"), (2, "b")):
        images = torch.rand(count, 3, 32, 24) * 2 - 1
        ours, theirs = (
            model.reconstruct(images, [text] * count, [generator_for(0, name) for name in "xyz"[:count]])
            for model in (compiled, exact)
        )
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=0)
    assert graphs.count(6) == 2 and len(graphs) == 4
    assert compiled.ran() == {"encoder": 3, "unet": 3, "decoder": 3, "empty_rows": 1}


def test_a_chosen_kernel_and_padded_heads_are_part_of_the_graph(
    graphs: list[int], standin_settings: MakeSettings, standin_models: Path
) -> None:
    folder = str(standin_models / "diffusion")
    common = ("reconstruct.steps=6", "reconstruct.batch_size=3")
    exact = Img2Img(standin_settings(*common).reconstruct, folder, "cpu")
    chosen = ("reconstruct.speed=rounding", "reconstruct.attention=flash", "reconstruct.pad_heads=true")
    compiled = Img2Img(standin_settings(*common, *chosen).reconstruct, folder, "cpu")
    images = torch.rand(3, 3, 32, 24) * 2 - 1
    ours, theirs = (
        model.reconstruct(images, list("abc"), [generator_for(0, name) for name in "xyz"])
        for model in (compiled, exact)
    )
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)
    assert graphs.count(6) == 1 and len(graphs) == 3
