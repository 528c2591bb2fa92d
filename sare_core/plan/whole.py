"""The whole plan: of an indexed data set, with what is done of it, or of a number of images that are not indexed."""

from sare_core.config import Settings
from sare_core.engine.checkpoints import read_checkpoint
from sare_core.engine.folders import Folder
from sare_core.engine.manifest import Index
from sare_core.engine.selection import chosen_shards
from sare_core.errors import ConfigError
from sare_core.graph import ALL_SPLITS, Graph
from sare_core.plan import disk
from sare_core.plan.estimate import Plan, Row, Split, caption_row, detector_rows, multiple_of, reconstruct_row
from sare_core.plan.images import SHARD_SIZE, Size, indexed_images, supposed_images
from sare_core.plan.known import KNOWN
from sare_core.plan.progress import Progress, progress, training_progress


def folders(settings: Settings, index: Index, work: str, shards: dict[str, list[int]]) -> dict[str, Folder | None]:
    """The folder of each stage; None: not named yet, since a stage before is not done.

    Raises ConfigError: a model is unavailable, and its commit or digest is part of the name.
    """
    graph = Graph(settings, str(index.about["dataset"]), work)
    reconstructions = graph.reconstructions
    found: dict[str, Folder | None] = {"caption": graph.captions, "reconstruct": reconstructions}
    used = shards["train"]
    if used and not progress(reconstructions, index, used).todo:
        entries = reconstructions.ledger.entries(used)[0]
        # As data/pairs.py has it: the digests of both parts, each sorted.
        val = set(index.select(["val"])["shard"])
        parts = (sorted(e.sha256 for s, e in entries.items() if (s in val) == held) for held in (False, True))
        found["train"] = detectors = graph.detectors([sha for part in parts for sha in part])
        if (best := read_checkpoint(detectors.store, "best")) is not None:
            found["evaluate"] = graph.predictions(best)
    return found


def of_dataset(settings: Settings, index: Index, work: str, given: float | None) -> tuple[Plan, dict[str, Progress]]:
    """The plan for an indexed data set, and what there is of it. given: images a second of reconstruct."""
    subsets = settings.train_subsets
    shards = {name: chosen_shards(index, ALL_SPLITS, subsets, None) for name in ("caption", "reconstruct")}
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
