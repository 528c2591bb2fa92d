"""Builds the embedded models and images that the mini preset and `make demo` run on.

    sare mini          # models/mini and data/mini, below the current folder

The models are small ones of the real classes with random weights; the real images are photographs that come with
scikit-image and scikit-learn, the fake ones are drawn by the embedded diffusion model.
"""

from pathlib import Path
from typing import Annotated

import typer

from sare_core.weights import hide_loading_bars
from stages.options import console, run_command


def mini(
    models: Annotated[Path, typer.Option(help="Folder for the models.")] = Path("models/mini"),
    images: Annotated[Path, typer.Option(help="Folder for the images, in GenImage's layout.")] = Path("data/mini"),
) -> None:
    """Build the embedded models and images of the mini preset."""
    from diffusers.utils import logging

    from sare_core.miniature import build_images, build_models

    hide_loading_bars()
    logging.disable_progress_bar()
    build_models(models)
    build_images(models, images)
    console.print(f"mini: {models} (random weights), {images} (photographs, and images drawn by those weights)")


if __name__ == "__main__":
    run_command(mini)
