"""Whether a detector can say anything about an image: before it is scored, and against what calibration saw."""

import numpy as np
from PIL import Image, ImageStat

from sare_core.config import Settings, load_settings
from sare_core.detection.results import Reason
from sare_core.engine.about import About, Upstream
from sare_core.images.decoding import ImageInfo
from sare_core.miniature.foreign import SIDE, toys

BLANK = 2.0  # 8-bit levels: an image none of whose channels deviates so much, in the standard deviation, shows nothing

Ranges = dict[str, tuple[float, float]]  # by a measure's name: the least and the greatest that calibration saw


def unfit(image: Image.Image, settings: Settings, scale_model: bool) -> Reason | None:
    """Why an RGB image is not scored at all; None where nothing is in the way. scale_model: see `is_scale_model`."""
    if scale_model and not _of_scale_model(image):
        return Reason(
            code="scale_model",
            text=(
                f"This detector belongs to the scale model: it knows gray images of {SIDE} pixels that were made for a "
                "demonstration. It cannot judge a photograph, and does not."
            ),
        )
    least = settings.detector.input_size // 2
    if min(image.size) < least:
        text = (
            f"It has {image.width}x{image.height} pixels; below {least} on the shorter side there is too little to see."
        )
        return Reason(code="too_small", text=text)
    if max(ImageStat.Stat(image).stddev) < BLANK:
        return Reason(code="blank", text="It is all but one colour, so that there is nothing to judge.")
    return None


def is_scale_model(about: About) -> bool:
    """Whether a detector, or what its maps were made by, has weights of the models that ship, by their digests.

    One that starts from no weights at all (conv_b) has only the note of the settings that trained it.
    """
    if about.made_by.get("weights") or about.upstream:
        return _has_toys(about)
    return (about.settings or {}).get("note") == load_settings("mini").note


def _has_toys(about: About | Upstream) -> bool:
    weights = about.made_by.get("weights", {}).values()
    return not toys().isdisjoint(weights) or any(map(_has_toys, about.upstream.values()))


def measures(info: ImageInfo) -> dict[str, float]:
    """What is compared with the calibration's images. JPEG quality: an estimate, of JPEGs alone."""
    sides = sorted((info.width, info.height))
    found = {"shorter side": float(sides[0]), "longer side": float(sides[1])}
    return found | ({"JPEG quality": float(info.quality)} if info.quality is not None else {})


def ranges_of(infos: list[ImageInfo]) -> Ranges:
    """The least and greatest of each measure."""
    all_of: dict[str, list[float]] = {}
    for info in infos:
        for name, value in measures(info).items():
            all_of.setdefault(name, []).append(value)
    return {name: (min(values), max(values)) for name, values in sorted(all_of.items())}


def outside(info: ImageInfo, ranges: Ranges, formats: list[str], name: str) -> Reason | None:
    """What of an image the set of this name never had, in one sentence; None: it had the like."""
    told = [f"its format is {info.format}, and theirs {', '.join(formats)}"] if info.format not in formats else []
    for measure, value in measures(info).items():
        if measure in ranges and not ranges[measure][0] <= value <= ranges[measure][1]:
            told.append(f"its {measure} is {value:g}, and theirs {ranges[measure][0]:g} to {ranges[measure][1]:g}")
    text = f"It is unlike the images of “{name}”, so their threshold may not hold for it: {'; '.join(told)}."
    return Reason(code="outside_calibration", text=text) if told else None


def warnings_of(info: ImageInfo) -> list[str]:
    """What was done to a file's pixels that a reader should know."""
    told = {
        "It has several frames; only the first was looked at.": info.animated,
        "It was stored as CMYK; its colours were converted.": info.mode == "CMYK",
        "It has more than 8 bits a channel; they were reduced to 8.": info.mode[0] in "IF",
        "It has transparency, which was laid on white.": info.mode in ("RGBA", "LA", "PA", "La", "RGBa"),
    }
    return [text for text, so in told.items() if so]


def _of_scale_model(image: Image.Image) -> bool:
    if max(image.size) > SIDE:
        return False
    pixels = np.asarray(image)
    return bool((pixels == pixels[:, :, :1]).all())
