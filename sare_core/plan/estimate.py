"""The plan itself: a row a stage, and the lines that say what it rests on."""

from dataclasses import dataclass, field

from sare_core.config import Settings
from sare_core.errors import ConfigError
from sare_core.plan import disk
from sare_core.plan.images import Images


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


def multiple_of(settings: Settings) -> int:
    """Pixels that sizes are floored to: the model's, or Stable Diffusion's 8 where that is unavailable."""
    try:
        from sare_core.plan import models  # torch: seconds

        return models.diffusion(settings.reconstruct).multiple
    except ConfigError:
        return 8


def caption_row(plan: Plan, settings: Settings, images: int, shards: int, rate: float | None) -> Row:
    caption = settings.caption
    per_image = None
    try:
        from sare_core.plan import flops  # torch: seconds

        per_image = flops.caption_flops(caption)
        if per_image and images:
            plan.lines.append(f"caption: counted to the last of {caption.max_new_tokens} words; many are shorter.")
    except ConfigError as error:
        plan.lines.append(f"caption: FLOPs not counted: {error}")
    return Row("caption", images, shards, per_image, disk=disk.captions_bytes(images, shards), rate=rate)


def reconstruct_row(plan: Plan, settings: Settings, images: Images, rate: float | None) -> Row:
    reconstruct, total = settings.reconstruct, None
    try:
        from sare_core.plan import flops, models  # torch: seconds

        model = models.diffusion(reconstruct)
        captioned = settings.caption.captioner != "none"
        per_size = flops.reconstruct_flops(reconstruct, model, images.sizes, captioned)
        total = float(sum(per_size[size] * count for size, count in images.sizes.items()))
    except ConfigError as error:
        plan.lines.append(f"reconstruct: FLOPs not counted: {error}")
    if images.sizes:
        (size, count), *_ = images.sizes.most_common(1)
        what = f"{len(images.sizes)} sizes, most often" if len(images.sizes) > 1 else "all"
        share = f" ({count / images.images:.0%})" if len(images.sizes) > 1 else ""
        plan.lines.append(f"reconstruct: {what} {size[0]}×{size[1]}{share}.")
    if images.images and images.source_bytes is None and reconstruct.keep_source:
        plan.lines.append("reconstruct: disk lacks the source files, which reconstruct.keep_source adds as they are.")
    if images.images:
        spool = disk.spool_bytes(settings, images)
        plan.lines.append(
            f"reconstruct: each process writes a shard of up to {bytes_text(spool)} to its spool ($SARE_SPOOL) first."
        )
    size_on_disk = disk.reconstructions_bytes(settings, images)
    return Row("reconstruct", images.images, images.shards, flops=total, disk=size_on_disk, rate=rate)


@dataclass(frozen=True)
class Split:
    """Images and shards of a part of the data set; train only: those held out, which are scored once an epoch."""

    images: int
    shards: int
    held_out: int = 0


def detector_rows(
    plan: Plan, settings: Settings, trained: Split | None, epochs: int, tested: Split | None, rate: float | None
) -> list[Row]:
    """Rows of train and evaluate. None: an index has to say which images these are. epochs: still to come."""
    cost = None
    try:
        from sare_core.plan import flops  # torch: seconds

        cost = flops.detector_cost(settings.detector)
    except ConfigError as error:
        plan.lines.append(f"train, evaluate: FLOPs and checkpoints not counted: {error}")
    train = Row("train", disk=(cost and cost.best + cost.last) if epochs else 0)
    evaluate = Row("evaluate", flops_per_image=cost and cost.forward)
    if trained is None and cost:
        train.flops_per_image = epochs * cost.step
    elif trained is not None:
        full = (
            trained.images // settings.train.batch_size * settings.train.batch_size
        )  # an epoch ends with a full batch
        total = cost and epochs * (full * cost.step + trained.held_out * cost.forward)
        train = Row("train", trained.images + trained.held_out, trained.shards, flops=total, disk=train.disk)
    if tested is not None:
        size = disk.predictions_bytes(tested.images, tested.shards)
        evaluate = Row("evaluate", tested.images, tested.shards, cost and cost.forward, disk=size, rate=rate)
    if trained is None or tested is None:
        plan.lines.append("train, evaluate: of an image; only an index (sare index) tells training from test.")
    if epochs:
        plan.lines.append(f"train: {epochs} epochs, forward and backward; held-out images are scored after each.")
    return [train, evaluate]


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
