"""Generators of the miniature world, each of another kind, standing in for GenImage's subsets (Zhu et al. 2023).

All learn from the same scenes (before the camera) and are prompted by class alone. A generator's module is imported
when it is first used.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Generator:
    """One kind of generator.

    subset: the subset of GenImage that it stands in for.
    kind: what it is, with its source.
    steps: of training, for each of its networks.
    train: (folder, scenes, steps, seed) to a model; goes on where `folder` stands.
    sample: (model, classes (n,), seed) to scenes (n, 32, 32), float32 in [0, 1].
    """

    name: str
    subset: str
    kind: str
    steps: int
    train: Callable[..., Any]
    sample: Callable[..., Any]


def _later(module: str, function: str) -> Callable[..., Any]:
    def call(*args: Any, **named: Any) -> Any:
        return getattr(import_module(f"{__name__}.{module}"), function)(*args, **named)

    return call


def _generator(name: str, subset: str, kind: str, steps: int) -> Generator:
    return Generator(name, subset, kind, steps, _later(name, f"train_{name}"), _later(name, f"sample_{name}"))


GENERATORS = {
    generator.subset: generator
    for generator in (
        _generator("gan", "biggan", "conditional GAN of latents (Brock et al. 2019, arXiv:1809.11096)", 5000),
        _generator("tokens", "vqdm", "transformer over discrete tokens (Esser et al. 2021, arXiv:2012.09841)", 1200),
        _generator("pixel_diffusion", "adm", "diffusion of pixels (Dhariwal & Nichol 2021, arXiv:2105.05233)", 2600),
        _generator("flow", "midjourney", "rectified flow by a transformer (Liu et al. 2023, arXiv:2209.03003)", 1200),
        _generator("cascade", "glide", "diffusion at 16×16, up-sampled (Nichol et al. 2022, arXiv:2112.10741)", 1300),
    )
}
