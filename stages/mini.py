"""Unpacks the miniature: trained models, real images and eight generators' images, for the mini preset.

    sare mini            # models/mini and data/mini, below the current folder: what `make demo` runs on
    sare mini --full     # all images into data/miniature and data/miniature-null: what `make study` runs on

The models are small ones of the real classes; the images are 32×32 and gray. It is a scale model of GenImage, in its
layout: see the README of the images.
"""

from itertools import combinations
from pathlib import Path
from typing import Annotated

import typer

from sare_core.engine.terminal import console
from sare_core.errors import ConfigError
from stages.options import filled, path, run_command

INTRODUCTION = """\
A scale model of the experiment: photographs of an article of clothing with up to four things beside it, and images of
eight small generators that were asked for the article alone. Each image is captioned, half hidden in noise, and drawn
again under its caption. A photograph then loses what the caption does not say; a generated image has little to lose."""


def mini(
    models: Annotated[Path, typer.Option(parser=path, metavar="PATH", help="Folder for the models.")] = Path(
        "models/mini"
    ),
    images: Annotated[
        Path | None,
        typer.Option(
            parser=path, metavar="PATH", help="Folder for the images. Default: data/mini, with --full data/miniature."
        ),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="All images, not the demo's part; and the null world's, beside them.")
    ] = False,
    archive: Annotated[
        str | None,
        typer.Option(
            metavar="PATH", help="File or URL of images.tar.xz, which a wheel does not hold.", callback=filled
        ),
    ] = None,
) -> None:
    """Unpack the miniature's trained models and images."""
    from sare_core.miniature.unpack import unpack_images, unpack_models, unpack_null_diffusion

    images = images or Path("data/miniature" if full else "data/mini")
    null_models, null_images = (folder.with_name(f"{folder.name}-null") for folder in (models, images))
    written = [models, images, *([null_models, null_images] if full else [])]
    for one, other in combinations(written, 2):
        inner, outer = one.resolve(), other.resolve()
        if inner.is_relative_to(outer) or outer.is_relative_to(inner):
            raise ConfigError(
                f"--models {models} and --images {images}: {one} and {other} are written, so neither may be in the "
                "other. Name two other folders."
            )
    unpack_models(models)
    unpack_images(images, full, archive=archive)
    console.print(INTRODUCTION.replace("\n", " "))
    console.print(f"mini: {models} (small trained models), {images} (32×32 stand-ins in GenImage's layout)")
    if full:
        unpack_null_diffusion(null_models / "diffusion", archive)
        unpack_images(null_images, full, null=True, archive=archive)
        console.print(f"mini: {null_models}, {null_images} (of the null world)")


if __name__ == "__main__":
    run_command(mini)
