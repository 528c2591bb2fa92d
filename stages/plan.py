"""What a data set would take: images, FLOPs, disk, GPU-hours, cost. No image is read and no weights are loaded.

    sare plan --dataset genimage --preset paper --gpus 8 --images-per-second 3 --price 2.5
    sare plan --preset paper --images 100000000 --tflops 989       # not indexed, or not there at all

FLOPs are counted on the models that the preset names; speeds and prices are measured from finished shards or given,
never assumed.
"""

import re
from typing import Annotated

import typer

from sare_core.config import load_settings
from sare_core.engine.manifest import read_index
from sare_core.engine.terminal import console
from sare_core.errors import ConfigError
from sare_core.plan.estimate import plan_dataset, plan_images
from sare_core.plan.images import Size
from sare_core.plan.show import Resources, print_plan
from stages.options import Manifests, Preset, Set, Work, run_command


def plan(
    dataset: Annotated[str | None, typer.Option("--dataset", "-d", help="An indexed data set; else --images.")] = None,
    preset: Preset = "mini",
    set_: Set = None,
    images: Annotated[int | None, typer.Option("--images", min=1, help="So many images that are not indexed.")] = None,
    size: Annotated[str | None, typer.Option("--size", help="Of these images, as 512x384. Default: a square.")] = None,
    images_per_second: Annotated[
        float | None, typer.Option("--images-per-second", help="Of reconstruct on one GPU. Default: as measured.")
    ] = None,
    tflops: Annotated[
        float | None, typer.Option("--tflops", help="Peak of one GPU, for lower bounds where no rate is known.")
    ] = None,
    gpus: Annotated[int | None, typer.Option("--gpus", min=1, help="For the days that it takes.")] = None,
    price: Annotated[float | None, typer.Option("--price", min=0, help="Of an hour of one GPU, for the cost.")] = None,
    work: Work = "work",
    manifests: Manifests = "manifests",
) -> None:
    """What a data set would take: images, FLOPs, disk, GPU-hours, cost. Computes nothing."""
    for name, value in (("--images-per-second", images_per_second), ("--tflops", tflops)):
        if value is not None and not value > 0:
            raise ConfigError(f"{name} {value:g}: give a number above 0.")
    if (dataset is None) == (images is None):
        raise ConfigError("Give --dataset NAME for an indexed data set, or --images N for one that is not.")
    if dataset is not None and size is not None:
        raise ConfigError("--size goes with --images; an index knows the sizes of its images.")
    if dataset is not None:
        index = read_index(manifests, dataset)
        settings = load_settings(preset, set_, index.about["layout"])
        found = plan_dataset(settings, index, work, images_per_second)
    else:
        settings = load_settings(preset, set_)
        side = settings.reconstruct.longer_side
        found = plan_images(settings, images or 0, _size(size) if size else (side, side), images_per_second)
    from sare_core.plan.models import unavailable  # torch: seconds

    if names := unavailable(settings):
        found.lines.append(
            f"Unavailable from the model hub, so counted on the published architecture: {', '.join(names)}."
        )
    print_plan(found, Resources(tflops, gpus, price), console)


def _size(text: str) -> Size:
    if not (match := re.fullmatch(r"([1-9][0-9]*)[x×]([1-9][0-9]*)", text)):
        raise ConfigError(f"--size {text}: write width and height in pixels, as 512x384.")
    return int(match[1]), int(match[2])


if __name__ == "__main__":
    run_command(plan)
