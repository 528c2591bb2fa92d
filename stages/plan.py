"""What a data set would take: images, FLOPs, disk, GPU-hours, cost. No image is read and no weights are loaded.

    sare plan --dataset genimage --preset paper --gpus 8 --images-per-second 3 --price 2.5
    sare plan --preset paper --images 100000000 --tflops 989       # not indexed, or not there at all

FLOPs are counted on the models that the preset names; speeds and prices are measured from finished shards or given,
never assumed.
"""

import re
from typing import Annotated

import typer

from sare_core.config import Settings, load_settings
from sare_core.engine.checkpoints import read_checkpoint
from sare_core.engine.folders import Folder
from sare_core.engine.manifest import Index, read_index
from sare_core.errors import ConfigError
from sare_core.plan import disk
from sare_core.plan.estimate import Plan, Row, Split, caption_row, detector_rows, multiple_of, reconstruct_row
from sare_core.plan.images import SHARD_SIZE, Size, indexed_images, supposed_images
from sare_core.plan.known import KNOWN
from sare_core.plan.progress import Progress, progress, training_progress
from sare_core.report.plan import Resources, print_plan
from stages import caption, evaluate, reconstruct, train
from stages.options import Manifests, Preset, Set, Work, chosen_shards, console, run_command

ALL = ["train", "val", "test"]


def folders(settings: Settings, index: Index, work: str, shards: dict[str, list[int]]) -> dict[str, Folder | None]:
    """The folder of each stage; None: not named yet, since a stage before is not done.

    Raises ConfigError: a model is unavailable, and its commit or digest is part of the name.
    """
    dataset = str(index.about["dataset"])
    captions = caption.folder_of(settings, dataset, work)
    reconstructions = reconstruct.folder_of(settings, dataset, work)
    found: dict[str, Folder | None] = {"caption": captions, "reconstruct": reconstructions}
    used = shards["train"]
    if used and not progress(reconstructions, index, used).todo:
        entries = reconstructions.ledger.entries(used)[0]
        # As data/pairs.py has it: the digests of both parts, each sorted.
        val = set(index.select(["val"])["shard"])
        parts = (sorted(e.sha256 for s, e in entries.items() if (s in val) == held) for held in (False, True))
        found["train"] = detectors = train.folder_of(settings, dataset, work, [sha for part in parts for sha in part])
        if (best := read_checkpoint(detectors.store, "best")) is not None:
            found["evaluate"] = evaluate.folder_of(settings, dataset, work, best)
    return found


def of_dataset(settings: Settings, index: Index, work: str, given: float | None) -> tuple[Plan, dict[str, Progress]]:
    """The plan for an indexed data set, and what there is of it. given: images a second of reconstruct."""
    subsets = settings.train_subsets
    shards = {name: chosen_shards(index, ALL, subsets, None) for name in ("caption", "reconstruct")}
    shards["train"] = chosen_shards(index, ["train", "val"], subsets, None)
    shards["evaluate"] = chosen_shards(index, ["test"], subsets, None)
    plan = Plan(f"to do: {index.about['dataset']}")
    try:
        known = folders(settings, index, work, shards)
    except ConfigError as error:
        known = {}
        plan.lines.append(f"What is done already cannot be told, all counts as open: {error}")
    done = {name: progress(known.get(name), index, part) for name, part in shards.items() if name != "train"}
    detector = known.get("train")
    last = read_checkpoint(detector.store, "last") if detector else None
    done["train"], epochs = training_progress(last, settings.train.epochs, index, shards["train"])

    sizes = dict(zip(index.shards["shard"], index.shards["images"], strict=True))
    held_out = set(index.select(["val"])["shard"])

    def images(part: list[int]) -> int:
        return sum(sizes[shard] for shard in part)

    todo = {name: part.todo for name, part in done.items()}
    plan.rows.append(caption_row(plan, settings, images(todo["caption"]), len(todo["caption"]), done["caption"].rate))
    before = indexed_images(index, settings, todo["reconstruct"], multiple_of(settings))
    plan.rows.append(reconstruct_row(plan, settings, before, given or done["reconstruct"].rate))
    val = images([shard for shard in todo["train"] if shard in held_out])
    trained = Split(images(todo["train"]) - val, len(todo["train"]), val)
    tested = Split(images(todo["evaluate"]), len(todo["evaluate"]))
    plan.rows += detector_rows(plan, settings, trained, epochs, tested, done["evaluate"].rate)
    for name, part in done.items():
        if part.rate is not None and todo[name] and not (given and name == "reconstruct"):
            plan.lines.append(f"{name}: {part.rate:.3g} images/s, measured on {part.device} by its finished shards.")
    return plan, {name: done[name] for name in ("caption", "reconstruct", "train", "evaluate")}


def of_number(settings: Settings, count: int, size: Size, given: float | None) -> Plan:
    """The plan for images that are not indexed, all of one size in pixels."""
    plan = Plan(f"to do: {count:,} images of {size[0]}×{size[1]}, in shards of {SHARD_SIZE:,}")
    images = supposed_images(count, settings, size, multiple_of(settings))
    plan.rows = [
        Row("index", count, images.shards, disk=disk.index_bytes(count)),
        caption_row(plan, settings, count, images.shards, None),
        reconstruct_row(plan, settings, images, given),
        *detector_rows(plan, settings, None, settings.train.epochs, None, None),
    ]
    return plan


def standing_in(settings: Settings) -> list[str]:
    """Models whose configuration is unavailable and whose published one is taken."""
    detector = settings.detector
    named = [settings.caption.model, settings.reconstruct.model, detector.image_encoder, detector.semantic_encoder]
    from sare_core.plan.models import config_folder  # torch: seconds

    return [name for name in dict.fromkeys(named) if name in KNOWN and config_folder(name) is None]


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
    index = read_index(manifests, dataset) if dataset is not None else None
    settings = load_settings(preset, set_, index.about["layout"] if index else None)
    if images is not None:
        side = settings.reconstruct.longer_side
        found, done = of_number(settings, images, _size(size) if size else (side, side), images_per_second), None
    else:
        assert index is not None
        found, done = of_dataset(settings, index, work, images_per_second)
    if names := standing_in(settings):
        found.lines.append(
            f"Unavailable from the model hub, so counted on the published architecture: {', '.join(names)}."
        )
    print_plan(found, Resources(tflops, gpus, price), console, done)


def _size(text: str) -> Size:
    if not (match := re.fullmatch(r"([1-9][0-9]*)[x×]([1-9][0-9]*)", text)):
        raise ConfigError(f"--size {text}: write width and height in pixels, as 512x384.")
    return int(match[1]), int(match[2])


if __name__ == "__main__":
    run_command(plan)
