"""The plan: a row a stage, for an indexed data set or a number of images, and lines that say what it rests on."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, TypeVar

from sare_core.config import Settings
from sare_core.config.stored import changed
from sare_core.detectors import detector_class
from sare_core.engine.checkpoints import read_checkpoint
from sare_core.engine.folders import Folder
from sare_core.engine.manifest import Index
from sare_core.engine.selection import chosen_shards
from sare_core.errors import ConfigError
from sare_core.graph import ALL_SPLITS, Graph
from sare_core.plan import disk
from sare_core.plan.images import SHARD_SIZE, Images, Size, indexed_images, supposed_images
from sare_core.reconstruction import check_steps, method_of

T = TypeVar("T")
MOSTLY_FULL = 0.95


@dataclass
class Row:
    """What a stage has to do. None: not known, or not counted. rate: images a second of one GPU; disk: bytes."""

    stage: str
    images: int | None = None
    shards: int | None = None
    flops_per_image: float | None = None
    flops: float | None = None
    disk: int | None = None
    rate: float | None = None

    def __post_init__(self) -> None:
        if self.flops is None and self.flops_per_image is not None and self.images is not None:
            self.flops = self.flops_per_image * self.images
        elif self.flops_per_image is None and self.flops is not None and self.images:
            self.flops_per_image = self.flops / self.images

    def hours(self, tflops: float | None) -> tuple[float, bool] | None:
        """GPU-hours, and whether they are a lower bound: with no rate, FLOPs at the peak of `tflops` (10^12/s)."""
        if self.images == 0:
            return 0.0, False
        if self.images is not None and self.rate is not None:
            return self.images / self.rate / 3600, False
        if self.flops is not None and tflops is not None:
            return self.flops / (tflops * 1e12) / 3600, True
        return None


@dataclass
class Plan:
    """rows, by stage in their order; lines: what the numbers rest on, for the reader."""

    title: str
    rows: list[Row] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def counted(self, what: str, count: Callable[[], T]) -> T | None:
        """What `count` gives; None, and a line that says why, where a model is unavailable."""
        try:
            return count()
        except ConfigError as error:
            self.lines.append(f"{what}: FLOPs not counted: {error}")
            return None

    def add_caption(self, settings: Settings, images: int, shards: int, rate: float | None, of: str = "") -> None:
        from sare_core.plan import flops  # torch: seconds

        caption = settings.caption
        per_image = self.counted("caption", lambda: flops.caption_flops(caption))
        if per_image and images:
            self.lines.append(f"caption: counted to the last of {caption.max_new_tokens} words; many are shorter.")
        size = disk.captions_bytes(images, shards)
        self.rows.append(Row(f"caption{of}", images, shards, per_image, disk=size, rate=rate))

    def add_reconstruct(self, settings: Settings, images: Images, rate: float | None, of: str = "") -> None:
        """of: which of several maps, in words. Raises ConfigError: the model knows fewer steps than are asked for."""
        from sare_core.plan import flops, models  # torch: seconds

        reconstruct, captioned = settings.reconstruct, settings.caption.captioner != "none"
        if reconstruct.sampler == "lcm" and reconstruct.strength > 0:
            learnt, known = models.learnt_steps(reconstruct)
            try:
                check_steps(reconstruct, learnt)
            except ConfigError as error:
                if known:
                    raise
                self.lines.append(f"reconstruct will refuse, unless the model's scheduler says otherwise: {error}")

        def total() -> float:
            each = flops.reconstruct_flops(reconstruct, models.diffusion(reconstruct), images.sizes, captioned)
            return float(sum(each[size] * count for size, count in images.sizes.items()))

        flops_left = self.counted("reconstruct", total)
        row = Row(f"reconstruct{of}", images.images, images.shards, flops=flops_left, rate=rate)
        row.disk = disk.reconstructions_bytes(settings, images)
        self.rows.append(row)
        if images.sizes:
            ((width, height), count), *others = images.sizes.most_common()
            most = f"{len(others) + 1} sizes, most often {width}×{height} ({count / images.images:.0%})"
            self.lines.append(f"reconstruct: {most if others else f'all {width}×{height}'}.")
            full, batch = images.images / (images.batches * reconstruct.batch_size), reconstruct.batch_size
            together, cures = reconstruct.shards_together, list[str]()
            if images.shards > together and images.images > batch:
                cures.append("a higher reconstruct.shards_together (after a kill as many shards are done again)")
            if others:
                cures.append("a coarser reconstruct.size_multiple (another x̂)")
            if full < MOSTLY_FULL and cures:
                self.lines.append(
                    f"reconstruct: batches of {batch} are {full:.0%} full: each is of one size, and of "
                    f"{_shards(together)}. What fills them: {', or '.join(cures)}."
                )
            if images.empty_rows:
                share = images.empty_rows / (images.images + images.empty_rows)
                self.lines.append(
                    f"reconstruct: {share:.1%} of the rows are empty: they fill up batches of compiled models."
                )
            if images.source_bytes is None and reconstruct.keep_source:
                self.lines.append("reconstruct: disk without the source files, which reconstruct.keep_source adds.")
            in_spool = min(2 * reconstruct.shards_together, images.shards)
            spool = bytes_text(in_spool * row.disk / images.shards)
            self.lines.append(
                f"reconstruct: a process has up to {_shards(in_spool)} in its spool ($SARE_SPOOL): about {spool}."
            )

    def add_detector(
        self, settings: Settings, epochs: int, trained: "Split | None", tested: "Split | None", rate: float | None
    ) -> None:
        """Rows of train and evaluate. None: only an index can say which images these are. epochs: still to come."""
        from sare_core.plan import flops  # torch: seconds

        cost = self.counted("train, evaluate", lambda: flops.detector_cost(settings.detector))
        train = Row("train", flops_per_image=cost and epochs * cost.step)
        evaluate = Row("evaluate", flops_per_image=cost and cost.forward)
        if trained is not None:
            samples = trained.images * len(detector_class(settings.detector.detector).samples(settings.detector))
            full = samples - samples % settings.train.batch_size  # an epoch ends with a full batch
            total = cost and epochs * (full * cost.step + trained.held_out * cost.forward)
            train = Row("train", trained.images + trained.held_out, trained.shards, flops=total)
        if tested is not None:
            size = disk.predictions_bytes(tested.images, tested.shards)
            evaluate = Row("evaluate", tested.images, tested.shards, cost and cost.forward, disk=size, rate=rate)
        train.disk = (cost and cost.best + cost.last) if epochs else 0
        self.rows += [train, evaluate]
        if trained is None or tested is None:
            self.lines.append("train, evaluate: of an image; only an index (sare index) tells training from test.")
        if epochs:
            self.lines.append(f"train: {epochs} epochs, forward and backward; held-out images are scored after each.")
            from sare_core.training.tracking import installed_tracker  # torch: seconds

            try:
                installed_tracker(settings.train.tracker)
            except ConfigError as error:
                self.lines.append(f"train will refuse: {error}")


class Split(NamedTuple):
    """Images and shards of a part of the data set; held_out: images of it that are scored once an epoch."""

    images: int
    shards: int
    held_out: int = 0


def plan_dataset(settings: Settings, index: Index, work: str, given: float | None) -> Plan:
    """What is still to do of an indexed data set. given: images a second of reconstruct."""
    plan, graph = Plan(f"to do: {index.about['dataset']}"), Graph(settings, index.about["dataset"], work)
    shards = partial(chosen_shards, index, subsets=settings.train_subsets, wanted=None)
    everything, used, tested = shards(ALL_SPLITS), shards(["train", "val"]), shards(["test"])
    predictions = last = None
    read: dict[str, tuple[Settings, Folder | None, Folder | None]] = {
        of: (each, None, None) for of, each in maps_read(settings).items()
    }
    try:
        for of, (each, _, _) in read.items():
            one = Graph(each, graph.dataset, work)
            read[of] = each, one.captions, one.reconstructions
        if used and not any(remaining(folder, index, used)[0] for folder in graph.maps.values()):
            detector = graph.detector_of(index)
            last, best = read_checkpoint(detector.store, "last"), read_checkpoint(detector.store, "best")
            predictions = graph.predictions(best) if best else None
    except ConfigError as error:
        plan.lines.append(f"Counted as open, since what is done cannot be told: {error}")
    images = dict(index.shards.select("shard", "images").iter_rows())

    def split(part: list[int], held_out: set[int] = frozenset()) -> Split:  # type: ignore[assignment]
        counts = [sum(images[shard] for shard in part if (shard in held_out) is held) for held in (False, True)]
        return Split(counts[0], len(part), counts[1])

    def left(stage: str, folder: Folder | None, part: list[int]) -> tuple[list[int], float | None]:
        todo, rate, device = remaining(folder, index, part)
        if todo and rate and not (given and stage == "reconstruct"):
            plan.lines.append(f"{stage}: {rate:.3g} images/s, measured on {device} by its finished shards.")
        return todo, rate

    for of, each in captions_read(settings).items():
        todo, rate = left("caption", read[of][1], everything)
        plan.add_caption(each, split(todo).images, len(todo), rate, of)
    for of, (each, _, reconstructions) in read.items():
        todo, rate = left("reconstruct", reconstructions, everything)
        plan.add_reconstruct(each, indexed_images(index, each, todo, multiple_of(each)), given or rate, of)
    todo, rate = left("evaluate", predictions, tested)
    used = [] if last and last.finished else used
    epochs = settings.train.epochs - (last.epoch if last else 0)
    trained = split(used, set(index.select(["val"])["shard"]))
    plan.add_detector(settings, epochs, trained, split(todo), rate)
    return plan


def plan_images(settings: Settings, count: int, size: Size, given: float | None) -> Plan:
    """The plan for images that are not indexed, all of one size in pixels."""
    plan = Plan(f"to do: {count:,} images of {size[0]}×{size[1]}, in shards of {SHARD_SIZE:,}")
    images = supposed_images(count, settings, size, multiple_of(settings))
    plan.rows.append(Row("index", count, images.shards, disk=disk.index_bytes(count)))
    for of, each in captions_read(settings).items():
        plan.add_caption(each, count, images.shards, None, of)
    for of, each in maps_read(settings).items():
        plan.add_reconstruct(each, images, given, of)
    plan.add_detector(settings, settings.train.epochs, None, None, None)
    return plan


def maps_read(settings: Settings) -> dict[str, Settings]:
    """The settings of each map that the detector reads, by its name as rows show it; these, where it reads none."""
    maps = detector_class(settings.detector.detector).maps or {"": {}}
    return {f", {name}" if n else "": changed(settings, changes) for n, (name, changes) in enumerate(maps.items())}


def captions_read(settings: Settings) -> dict[str, Settings]:
    """Those of `maps_read` that are made under captions, one for maps that share them; the first, if none is."""
    maps, found = maps_read(settings), dict[str, Settings]()
    under = {of: each for of, each in maps.items() if method_of(each.reconstruct).needs_captions}
    for of, each in (under or dict([*maps.items()][:1])).items():
        if (each.caption, each.view) not in [(other.caption, other.view) for other in found.values()]:
            found[of] = each
    return found


def remaining(folder: Folder | None, index: Index, shards: list[int]) -> tuple[list[int], float | None, str]:
    """The shards that are not done; images a second of one process, and its device, as the finished ones measured.

    Without a folder, where none can be named yet, all are to do.
    """
    if folder is None:
        return shards, None, ""
    states, entries = folder.states_and_entries({shard: index.digests[shard] for shard in shards})
    done = [shard for shard, state in states.items() if state.kind == "done"]
    todo = sorted(states.keys() - done)
    seconds, record = sum(entries[shard].seconds for shard in done), folder.record(done[0]) if done else None
    if not seconds or record is None:
        return todo, None, ""
    return todo, sum(entries[shard].images for shard in done) / seconds, record.device


def multiple_of(settings: Settings) -> int:
    """Pixels that sizes are floored to: as set, the model's, or Stable Diffusion's 8 where that is unavailable."""
    if settings.reconstruct.size_multiple:
        return settings.reconstruct.size_multiple
    from sare_core.plan import models  # torch: seconds

    try:
        return models.diffusion(settings.reconstruct).multiple
    except ConfigError:
        return 8


def _shards(count: int) -> str:
    return "one shard" if count == 1 else f"{count} shards"


def bytes_text(size: float) -> str:
    """Decimal, three digits: 1.02 TB."""
    return si(size) + "B"


def si(value: float) -> str:
    """Three digits and a prefix: 43.8 T."""
    prefixes = ("", "k", "M", "G", "T", "P", "E", "Z", "Y")
    step = 0
    while value >= 999.5 and step < len(prefixes) - 1:
        value, step = value / 1000, step + 1
    digits = f"{value:.{0 if step == 0 or value >= 99.95 else 1 if value >= 9.995 else 2}f}"
    return f"{digits} {prefixes[step]}"
