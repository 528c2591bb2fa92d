"""Results in words, for people. Never a percentage, and nothing that says where or how an image was made."""

from collections.abc import Iterator, Mapping

from sare_core.detection.calibration import Calibration, Drift, ImageSet
from sare_core.detection.results import ContentCredentials, Provenance, Result, Threshold, Thresholds, Verdict
from sare_core.detection.thresholds import predicted
from sare_core.detectors import card

VERDICTS: dict[Verdict, str] = {
    "likely_ai": "likely AI-generated",
    "inconclusive": "inconclusive",
    "likely_real": "likely a photograph",
    "no_verdict": "no verdict",
}
MEANINGS: dict[Verdict, str] = {
    "likely_ai": "It scores as few real photographs of the calibration do. Some do: this is no proof.",
    "inconclusive": "Nothing can be said of it either way.",
    "likely_real": "It scores as few generated images of the calibration do. Images of other generators may.",
    "no_verdict": "The detector was not asked, or had no answer.",
}
ABSENT = "That nothing is found in a file's metadata means nothing: most sites remove it. What is found can be forged."
LIMITS = (*card.LIMITS, ABSENT)


def of_result(result: Result) -> Iterator[str]:
    """Lines about one image: the verdict, why, and what to look at."""
    yield f"{result.path}: {VERDICTS[result.verdict].upper()}"
    for reason in result.reasons:
        yield f"  {reason.text}"
    if result.score is not None:
        yield f"  Score {result.score:.2f} (logit {result.logit:.2f}): it orders images and is no probability."
    if result.caption is not None:
        yield f"  Caption: {result.caption}"
    yield from (f"  Look at: {line}" for line in to_look_at(result))
    if result.provenance is not None:
        yield from (f"  Origin: {line}" for line in of_provenance(result.provenance))
    yield from (f"  Note: {warning}" for warning in result.warnings)


def of_many(
    counts: Mapping[str, int], calibration: Calibration | None, alarms: list[str], checked: bool = True
) -> Iterator[str]:
    """Lines about many images. counts: by verdict, among others. alarms: the first paths that are likely_ai.

    checked: whether they were also scored encoded anew or under other noise.
    """
    told = [f"{counts[each]:,} {VERDICTS[each]}" for each in VERDICTS if counts.get(each)]
    total = sum(counts.get(each, 0) for each in VERDICTS)
    yield f"{total:,} images: {', '.join(told)}."
    if calibration is None:
        yield "The detector is not calibrated, so none is called either. Run: sare calibrate --detector … --reals …"
        return
    if not checked and (counts.get("likely_ai") or counts.get("likely_real")):
        yield "None was scored encoded anew or under other noise, as single files are; some may not stand it: --checks."
    if scored := total - counts.get("no_verdict", 0):
        low, high = predicted(calibration.thresholds.likely_ai, scored)
        yield (
            f"Were all {scored:,} with a score real photographs like those of “{calibration.reals.name}”, "
            f"{f'{low:,} to' if low else 'at most'} {high:,} of them would score above the threshold of likely "
            "AI-generated all the same (95 % prediction interval)."
        )
    if alarms:
        yield "Likely AI-generated:"
    yield from first_of(alarms, counts.get("likely_ai", 0))


def first_of(told: list[str], count: int) -> Iterator[str]:
    yield from (f"  {each}" for each in told)
    if count > len(told):
        yield f"  … and {count - len(told):,} more"


def of_calibration(found: Calibration) -> Iterator[str]:
    """Lines about a calibration: from what, what it promises, and what it can find."""
    for images, kind in ((found.reals, "real photographs"), (found.fakes, "generated images")):
        if images:
            yield of_set(images, kind)
    yield from of_thresholds(found.thresholds)
    yield (
        f"Promised: on average over calibrations like this one, at most {1000 * found.fpr:g} of 1,000 real photographs "
        "drawn as these were are called likely AI-generated."
    )
    ai, real = found.thresholds.likely_ai.logit, found.thresholds.likely_real
    if found.fakes:
        caught = sum(logit > ai for logit in found.fakes.logits)
        yield (
            f"Of the generated images {caught:,} of {len(found.fakes.logits):,} score above the threshold of likely "
            "AI-generated. The checks of a single file leave as many or fewer."
        )
    if real:
        cleared = sum(logit < real.logit for logit in found.reals.logits)
        yield f"Of the real photographs {cleared:,} of {len(found.reals.logits):,} score below that of a photograph."
    else:
        yield "Without --fakes nothing is called likely a photograph."


def of_set(images: ImageSet, kind: str) -> str:
    left = f" (left out: {images.why_left_out})" if images.left_out else ""
    return f"{images.name}: {len(images.files):,} {kind}{left}."


def of_ranges(images: ImageSet) -> str:
    """Formats and sizes of a set, which an image must share to be judged by it."""
    return "; ".join([", ".join(images.formats), *(f"{k} {a:g} to {b:g}" for k, (a, b) in images.ranges.items())])


def of_drift(found: Drift, calibration: Calibration, later: ImageSet, unlike: int) -> Iterator[str]:
    """Lines about a later folder of real photographs beside those of the calibration. unlike: how many of them are."""
    yield of_set(later, "real photographs")
    if unlike:
        yield (
            f"{unlike:,} of them have a format, size or JPEG quality that “{calibration.reals.name}” has not "
            f"({of_ranges(calibration.reals)}): none of these can be called likely AI-generated."
        )
    name, low, high = calibration.reals.name, *(round(1000 * rate, 1) for rate in found.interval)
    yield (
        f"{found.images:,} photographs beside the {len(calibration.reals.logits):,} of “{name}”: the share below any "
        f"one score differs by {found.statistic:.2f} at most (Kolmogorov and Smirnov's test, p = {found.p_value:.2g})."
    )
    if found.noticed:
        yield f"So they are not drawn as those were: the thresholds of “{name}” do not hold for them. Calibrate anew."
    else:
        yield "No difference was noticed. With few photographs only a large one would be."
    yield (
        f"{found.crossed:,} of them score above the threshold of likely AI-generated; of 1,000 like them, {low:g} to "
        f"{high:g} would (95 % interval). If all are real, these are false alarms."
    )
    if found.too_many:
        yield (
            f"Of as many photographs like those of “{name}”, at most {found.most:,} would (95 % prediction interval): "
            "either not all of these are real, or more of them are called likely AI-generated than was promised."
        )


def of_thresholds(thresholds: Thresholds) -> Iterator[str]:
    ai, real = thresholds.likely_ai, thresholds.likely_real
    yield f"Likely AI-generated begins above {_place(ai)}: {of_rate(ai, 'real photographs')}"
    if real:
        yield f"Likely a photograph begins below {_place(real)}: {of_rate(real, 'generated images')}"


def of_rate(threshold: Threshold, kind: str) -> str:
    """How often images of the other kind cross a threshold, as counts of a thousand."""
    low, high = (round(1000 * rate, 1) for rate in threshold.interval)
    return (
        f"{threshold.crossed:,} of {threshold.images:,} {kind} of “{threshold.measured_on}” lie beyond it; of 1,000 "
        f"like them, {low:g} to {high:g} would (95 % interval)."
    )


def to_look_at(result: Result) -> Iterator[str]:
    """What a person can check, which the detector cannot."""
    if result.caption is not None:
        yield (
            "does the caption name what the image shows? If not, the image was drawn again as something else, and its "
            "score means little."
        )
    if result.pictures and result.pictures.reconstruction:
        yield f"what changed: {result.pictures.reconstruction} beside the image. A change is not a trace of forgery."
    if result.verdict != "no_verdict":
        yield "where the image comes from: who published it first, and what else shows the same scene."


def of_provenance(found: Provenance) -> Iterator[str]:
    """What the file says of itself, found or absent."""
    yield of_credentials(found.content_credentials)
    for each in found.digital_source_types:
        yield f"{each.where} names its source type: {each.value}"
    for each in found.generator_text:
        yield f"{each.where}, {each.name}: {each.value}"
    if not found.digital_source_types and not found.generator_text:
        yield "no source type and no generator's text in its metadata."


def of_credentials(found: ContentCredentials) -> str:
    by = f" by {found.generator}" if found.generator else ""
    signed = f", signed as {found.signer}; who that is was not checked" if found.signer else ""
    because = f" ({', '.join(found.problems)})" if found.problems else ""
    return {
        "absent": "no content credentials (C2PA).",
        "remote": f"content credentials (C2PA) lie elsewhere, at {found.url}, and were not fetched.",
        "valid": f"content credentials (C2PA){by}{signed}. They fit this file{because}.",
        "invalid": f"content credentials (C2PA){by} that do not fit this file or cannot be read{because}.",
        "not_checked": f"content credentials (C2PA) may be there and were not checked{because}.",
    }[found.status]


def _place(threshold: Threshold) -> str:
    return f"score {threshold.score:.2f} (logit {threshold.logit:.2f})"
