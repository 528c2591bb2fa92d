"""Reconstructions by name: how x̂ is made of an image x. The setting reconstruct.method takes one of them.

A method is one file in this folder and one `register` line at the end of this one; somebody's own method is a module
that calls `register` when it is imported. Nothing here imports torch: the folders of a run are named without it.
"""

from collections.abc import Collection
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from sare_core.config.plugins import find, own_code
from sare_core.config.reconstruction import ReconstructSettings
from sare_core.errors import ConfigError, ImageError

if TYPE_CHECKING:
    import torch


class Reconstructor(Protocol):
    """What a method's class or function gives for (settings, folder of the model, device).

    Attributes: multiple, the pixels that height and width are multiples of. device, where it wants its images; without,
    they are on the CPU. ran, a method that gives what records are to say of the batches since it was last called
    (`Record.batches`); without, they say nothing.
    """

    multiple: int

    def reconstruct(
        self, images: "torch.Tensor", captions: list[str], generators: "list[torch.Generator]"
    ) -> "list[torch.Tensor | ImageError]":
        """x̂ of each image: (3, H, W) float32 in [0, 1], before rounding; an ImageError where there is none.

        images: (N, 3, H, W) float32 in [-1, 1], of one size. captions: N; empty where the method needs
        none. generators: N of the CPU, each image's own and the only source of chance, so that x̂ does not depend on
        the batch.
        """
        ...


class Passes(NamedTuple):
    """How often an image goes through the U-Net, guidance apart: as a whole, and through its outermost layers alone."""

    whole: int
    outer: int


@dataclass(frozen=True)
class Method:
    """A registered method, and what a run must know of it before anything is loaded.

    target: "package.module:Class", or a function: called with (settings, folder, device), it gives a Reconstructor.
    needs_captions: whether it reads captions; without, its folder does not depend on them.
    unused: settings that play no part in it, and so none in its fingerprint; what is not left neutral is refused.
    adds_noise: whether it draws noise at strengths above 0; without, only the sampled latents are left to chance.
    unet_passes: how often the U-Net sees an image at each step, guidance apart. `sare plan` counts by it.
    one_step: whether it takes the first step alone.
    needs_steps: whether it is refused at strength 0; without, x̂ is the autoencoder's alone there.
    """

    name: str
    target: str
    needs_captions: bool = False
    unused: Collection[str] = frozenset()
    adds_noise: bool = False
    unet_passes: int = 0
    one_step: bool = False
    needs_steps: bool = False

    def passes(self, settings: ReconstructSettings) -> Passes:
        """Of one reconstruction under these settings."""
        steps = min(settings.denoising_steps, 1) if self.one_step else settings.denoising_steps
        whole = ceil(steps / settings.cache_interval)
        return Passes(self.unet_passes * whole, self.unet_passes * (steps - whole))

    def rows(self, settings: ReconstructSettings, unet: Any) -> int:
        """Of the U-Net's batch, for an image with a caption: 2, with the guidance pass. 1: nothing is guided, or the
        U-Net, a diffusers model, is told the guidance (`time_cond_proj_dim`)."""
        guided = self.needs_captions and settings.guidance_scale != 1 and unet.config.time_cond_proj_dim is None
        return 2 if guided else 1

    def load(self, settings: ReconstructSettings, folder: str, device: str) -> Reconstructor:
        """The method ready to work. folder: of the model. device: as torch names it, e.g. cuda:0.

        Raises ConfigError: the method cannot be imported, or a part of the model is missing or unreadable.
        """
        build = find(self.target, f"reconstruct.method={self.name}")
        reconstructor: Reconstructor = build(settings, folder, device)
        return reconstructor

    def fingerprint_fields(self, settings: ReconstructSettings) -> dict[str, Any]:
        """What a fingerprint hashes of the settings; of somebody's own method also its module's source.

        Raises ConfigError: there is no source file.
        """
        fields = {key: value for key, value in settings.fingerprint_fields().items() if key not in self.unused}
        if self.target.startswith("sare_core."):  # its stage has a version, and to import it takes seconds
            return fields
        setting = f"reconstruct.method={self.name}"
        code = own_code(find(self.target, setting), setting)
        return fields | ({"code": code} if code else {})


_METHODS: dict[str, Method] = {}


def register(name: str, target: str, **facts: Any) -> None:
    """Make a method known as `name`. facts: see `Method`. Its target is imported when it is first loaded.

    Raises ValueError: the name is taken, `target` is no "module:name", or `unused` names no setting.
    """
    if name in _METHODS:
        raise ValueError(f"method {name!r} is registered already, as {_METHODS[name].target}")
    if not all(target.partition(":")):
        raise ValueError(f"method {name!r}: write its target as 'package.module:Class', not {target!r}")
    method = Method(name, target, **facts)
    if odd := sorted(set(method.unused) - ReconstructSettings.model_fields.keys()):
        raise ValueError(f"method {name!r}: there is no setting reconstruct.{odd[0]}")
    _METHODS[name] = method


def method_names() -> list[str]:
    """Names that the setting reconstruct.method takes."""
    return sorted(_METHODS)


def method_of(settings: ReconstructSettings) -> Method:
    """The method that the settings name.

    Raises ConfigError: no such method; a setting that plays no part in it and is not left neutral; a strength that
    leaves no step; or several noise draws of a method that would give each time the same.
    """
    method = _METHODS.get(settings.method)
    if method is None:
        raise ConfigError(
            f"reconstruct.method: no method {settings.method!r}; there are {', '.join(method_names())}. "
            "Name the module of a method of your own with --plugin."
        )
    for name in sorted(settings.neutral.keys() & set(method.unused)):
        if (value := getattr(settings, name)) != settings.neutral[name]:
            raise ConfigError(
                f"reconstruct.{name}={value}: plays no part in {method.name}. "
                f"Set reconstruct.{name}={settings.neutral[name]}."
            )
    if settings.speed == "quantised" and not method.unet_passes:
        raise ConfigError(
            f"reconstruct.speed=quantised: {method.name} has no U-Net to quantise. Set reconstruct.speed=rounding."
        )
    if method.unet_passes and (settings.strength > 0 or method.needs_steps):
        check_steps(settings)
    random = settings.latents == "sample" or (method.adds_noise and settings.strength > 0)
    if settings.noise_draws > 1 and not random:
        raise ConfigError(
            f"reconstruct.noise_draws={settings.noise_draws}: {method.name} draws no noise under these settings, so "
            "all draws would be the same. Set reconstruct.noise_draws=1."
        )
    return method


def check_steps(settings: ReconstructSettings, learnt: int | None = None) -> None:
    """learnt: the model's original_inference_steps, which count for sampler=lcm; None: not known.

    Raises ConfigError: there is no step from z_T to z_0, or there are more than the model knows.
    """
    if settings.denoising_steps == 0:
        raise ConfigError(
            f"reconstruct.strength={settings.strength} of {settings.steps} steps leaves no step; raise one of them."
        )
    if settings.sampler == "lcm" and learnt is not None:
        known = int(learnt * settings.strength)
        if settings.steps > known:
            raise ConfigError(
                f"reconstruct.steps={settings.steps}: the model knows {known} steps at strength {settings.strength} "
                f"(original_inference_steps={learnt}). Take fewer steps, or more strength."
            )


register("img2img", "sare_core.reconstruction.img2img:Img2Img", needs_captions=True, adds_noise=True, unet_passes=1)
register(
    "one_step",
    "sare_core.reconstruction.img2img:OneStep",
    needs_captions=True,
    unused={"eta", "sampler", "cache_interval"},
    adds_noise=True,
    unet_passes=1,
    one_step=True,
)
register(
    "autoencoder",
    "sare_core.reconstruction.autoencoder:Autoencoder",
    unused={
        *("steps", "strength", "guidance_scale", "eta", "sampler"),
        *("cache_interval", "token_merging", "attention", "pad_heads"),
    },
)
register(
    "ddim_inversion",
    "sare_core.reconstruction.ddim_inversion:DDIMInversion",
    unused={"guidance_scale", "eta", "sampler", "cache_interval"},
    unet_passes=2,
    needs_steps=True,
)
register(
    "inpaint",
    "sare_core.reconstruction.inpaint:Inpaint",
    unused={"guidance_scale", "sampler", "cache_interval"},
    adds_noise=True,
    unet_passes=1,
    needs_steps=True,
)
