"""A calibration: thresholds from images whose kind is known, kept beside the detector for which they hold.

    DETECTOR/calibrations/<digest>.json      digest: of the scoring, the rates and the SHA-256 of every image

It holds for images drawn as those were: the same cameras, sites and ways of processing. `drift` says whether a later
folder still looks like them.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from pydantic import ValidationError

from sare_core.detection.fitness import Ranges, outside, ranges_of
from sare_core.detection.results import Record, Share, Thresholds
from sare_core.detection.thresholds import FAKES, REALS, above_reals, below_fakes, interval, predicted, require_enough
from sare_core.detectors.folder import CALIBRATIONS
from sare_core.errors import ConfigError
from sare_core.images.decoding import ImageInfo
from sare_core.store.storage import Store, place_of

NOTICED = 0.01  # p-value of the two-sample test below which the scores are called different


class Scored(NamedTuple):
    """An image of a calibration. image_id: of its pixels."""

    sha256: str
    image_id: str
    info: ImageInfo
    logit: float


class ImageSet(Record):
    """What thresholds were made from. digest: of the SHA-256 of all files, sorted. logits: sorted.

    left_out: how many images gave no score or were there already, by reason. ranges, formats: of these images alone:
    a threshold that reals set says nothing of images that only the fakes look like.
    """

    name: str
    digest: str
    files: list[str]
    logits: list[float]
    left_out: dict[str, int]
    ranges: Ranges
    formats: list[str]

    @property
    def why_left_out(self) -> str:
        """How many, for each reason; empty: none."""
        return "; ".join(f"{count:,} {why.replace('_', ' ')}" for why, count in self.left_out.items())


class Calibration(Record):
    """fpr: of real photographs, the share that may be called likely_ai. miss_rate: of generated images, likely_real.

    scoring: see `DetectorId`. created: when, UTC; the digest does not hold it.
    """

    version: int = 1
    digest: str
    detector: str
    scoring: str
    fpr: Share
    miss_rate: Share
    reals: ImageSet
    fakes: ImageSet | None
    thresholds: Thresholds
    created: str

    def files(self) -> list[str]:
        """The SHA-256 of all its images."""
        return [*self.reals.files, *(self.fakes.files if self.fakes else [])]


class Drift(NamedTuple):
    """A later folder beside the reals of a calibration. p_value: of Kolmogorov and Smirnov's two-sample test on logits.

    crossed: how many of them score above likely_ai's threshold, with the exact interval of their rate. most: that would
    be expected of images like those reals, the upper end of a 95 % prediction interval.
    """

    images: int
    statistic: float
    p_value: float
    crossed: int
    interval: tuple[float, float]
    most: int

    @property
    def too_many(self) -> bool:
        return self.crossed > self.most

    @property
    def noticed(self) -> bool:
        return self.p_value < NOTICED


def image_set(name: str, scored: Sequence[Scored], left_out: Counter[str]) -> tuple[ImageSet, list[Scored]]:
    """A set by its distinct images, and these: one that is there twice would count twice."""
    distinct = list({each.image_id: each for each in scored}.values())
    left_out = left_out + Counter({"the same pixels as another": len(scored) - len(distinct)})
    files = sorted(each.sha256 for each in distinct)
    digest = hashlib.sha256("\n".join(files).encode()).hexdigest()
    logits = sorted(each.logit for each in distinct)
    infos = [each.info for each in distinct]
    made = ImageSet(
        name=name,
        digest=digest,
        files=files,
        logits=logits,
        left_out=dict(left_out),
        ranges=ranges_of(infos),
        formats=sorted({info.format for info in infos}),
    )
    return made, distinct


def calibrate(
    detector: str,
    scoring: str,
    reals: tuple[ImageSet, list[Scored]],
    fakes: tuple[ImageSet, list[Scored]] | None,
    fpr: float,
    miss_rate: float,
) -> Calibration:
    """Raises ConfigError: too few images for the rates, or the same image among reals and fakes."""
    real_set, real_images = reals
    fake_set, fake_images = fakes or (None, [])
    if both := {each.image_id for each in real_images} & {each.image_id for each in fake_images}:
        raise ConfigError(
            f"{len(both):,} images are among the reals and among the fakes. Remove them from one of these."
        )
    require_enough(len(real_set.logits), fpr, real_set.name, REALS, real_set.why_left_out)
    if fake_set:
        require_enough(len(fake_set.logits), miss_rate, fake_set.name, FAKES, fake_set.why_left_out)
    thresholds = Thresholds(
        likely_ai=above_reals(real_set.logits, fpr, real_set.name),
        likely_real=below_fakes(fake_set.logits, miss_rate, fake_set.name) if fake_set else None,
    )
    made_of = [scoring, fpr, miss_rate, real_set.digest, fake_set and fake_set.digest]
    return Calibration(
        digest=hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:12],
        detector=detector,
        scoring=scoring,
        fpr=fpr,
        miss_rate=miss_rate,
        reals=real_set,
        fakes=fake_set,
        thresholds=thresholds,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def drift(calibration: Calibration, logits: Sequence[float], left_out: str = "") -> Drift:
    """Real photographs of a later day beside those of the calibration. Raises ConfigError: there are none."""
    from scipy.stats import ks_2samp

    if not logits:
        why = f" ({left_out})" if left_out else ""
        raise ConfigError(f"the later folder has no other image with a score{why}, so there is nothing to compare.")
    found = ks_2samp(calibration.reals.logits, logits)
    threshold = calibration.thresholds.likely_ai
    crossed, most = sum(logit > threshold.logit for logit in logits), predicted(threshold, len(logits))[1]
    return Drift(
        len(logits), float(found.statistic), float(found.pvalue), crossed, interval(crossed, len(logits)), most
    )


def unlike(images: ImageSet, others: Sequence[Scored]) -> int:
    """How many of others have a format, size or JPEG quality that a set has not."""
    return sum(outside(each.info, images.ranges, images.formats, images.name) is not None for each in others)


def save_calibration(calibration: Calibration, store: Store) -> str:
    """Put it into a folder, by default the detector's; returns its path. Raises ConfigError: nothing can be written."""
    name = f"{CALIBRATIONS}/{calibration.digest}.json"
    store.write(name, (calibration.model_dump_json(indent=1) + "\n").encode())
    return store.path(name)


def find_calibration(store: Store, scoring: str, wanted: str | None = None) -> Calibration | None:
    """The latest of a detector's folder that was made for this scoring, or None; or the one that is `wanted`.

    wanted: a digest, or the path of a file elsewhere. Raises ConfigError: it is not there, not a calibration, or of
    another scoring.
    """
    if wanted is not None:
        found = _read(*place_of(wanted)) if wanted.endswith(".json") else _read(store, f"{CALIBRATIONS}/{wanted}.json")
        if found.scoring != scoring:
            raise ConfigError(
                f"{wanted}: was made for another detector, or for other weights, settings or views of this one. "
                "Run sare calibrate with the same --detector and --set as here."
            )
        return found
    files = [f"{CALIBRATIONS}/{name}" for name in store.names(CALIBRATIONS) if name.endswith(".json")]
    fitting = [found for found in (_read(store, file) for file in files) if found.scoring == scoring]
    return max(fitting, key=lambda each: (each.created, each.digest), default=None)


def _read(store: Store, name: str) -> Calibration:
    try:
        return Calibration.model_validate_json(store.read(name))
    except FileNotFoundError:
        raise ConfigError(f"{store.path(name)}: no such calibration. Make one with sare calibrate.") from None
    except ValidationError as error:
        raise ConfigError(
            f"{store.path(name)}: not a calibration of this version of sare. Remove it, and run sare calibrate again."
        ) from error
