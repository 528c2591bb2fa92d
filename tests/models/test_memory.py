"""A part of a model takes a batch in parts where memory ends."""

import pytest
import torch

from sare_core.errors import StageError
from sare_core.models.memory import Fitting
from tests.memory import short_of_memory


def test_all_columns_are_cut_alike_and_generators_go_on_as_they_were() -> None:
    def draw(rows: torch.Tensor, names: list[str], generators: list[torch.Generator]) -> list[tuple[float, str, float]]:
        drawn = [float(torch.rand(1, generator=generator)) for generator in generators]
        if len(rows) > 2:  # after it has drawn
            raise torch.OutOfMemoryError("CUDA out of memory")
        return list(zip(rows.tolist(), names, drawn, strict=True))

    def seeded() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in range(5)]

    fitting = Fitting("part", "")
    found = fitting(draw, torch.arange(5.0), list("abcde"), seeded())
    assert [len(part) for part in found] == [2, 2, 1] and (fitting.largest, fitting.most) == (2, 2)
    expected = [float(torch.rand(1, generator=generator)) for generator in seeded()]
    assert [each for part in found for each in part] == list(zip([0, 1, 2, 3, 4], "abcde", expected, strict=True))


def test_an_image_that_never_fits_is_an_error_with_a_cure() -> None:
    run = short_of_memory(lambda latents: latents, 0, [])
    with pytest.raises(StageError, match=r"U-Net: a single image of 64×32 does not fit .* memory\. Take less\."):
        Fitting("U-Net", "Take less.")(run, torch.zeros(3, 4, 32, 64))


def test_another_error_is_not_taken_for_a_lack_of_memory() -> None:
    def broken(latents: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        Fitting("U-Net", "")(broken, torch.zeros(1, 4, 8, 8))
