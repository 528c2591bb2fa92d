"""One function from images to results: decoded, looked over, scored in one pass, and judged by the thresholds."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from sare_core.detection.calibration import Calibration
from sare_core.detection.fitness import is_scale_model, outside, unfit, warnings_of
from sare_core.detection.loading import THREADS, Loaded
from sare_core.detection.provenance import read_provenance
from sare_core.detection.results import SCHEMA_VERSION, DetectorId, Reason, Result, Verdict
from sare_core.detection.text import shown
from sare_core.detection.thresholds import judge, sigmoid
from sare_core.engine.fingerprint import fingerprint
from sare_core.errors import ImageError
from sare_core.images.decoding import ImageInfo, decode, image_id
from sare_core.images.views import apply_view, validate_view

if TYPE_CHECKING:  # torch: seconds
    from sare_core.pipeline import Detector, Explanation, Step

ENCODINGS = ("jpeg:90", "webp:80", "resize:0.9")  # what sites do to a picture that passes through them
DRAWS = 2


class Checks(NamedTuple):
    """What else each image is scored as, to see whether its verdict stands. encodings: views (docs/settings.md).

    draws: of the noise, the usual one included; 1: no other. Each costs as much as the image itself.
    """

    encodings: tuple[str, ...] = ()
    draws: int = 1


NO_CHECKS = Checks()
UNCHECKED = "Its verdict was not checked: encoded anew or under other noise, it might not be called the same."


class Examined(NamedTuple):
    """A result, with what led to it: the RGB image, what its file was, what gave the score; None where there is none.

    fresh: False of one that was examined by an earlier run, whose result alone is known.
    """

    result: Result
    image: Image.Image | None = None
    info: ImageInfo | None = None
    explanation: "Explanation | None" = None
    fresh: bool = True


class _Seen(NamedTuple):
    """A file that was decoded, or why not; and why it is not to be scored."""

    file: Loaded
    image: Image.Image | None
    info: ImageInfo | None
    refused: Reason | None


class _Scores(NamedTuple):
    """Of one image: as it is, encoded anew, and under other draws. failed: encodings that could not be made."""

    explanation: "Explanation"
    encodings: dict[str, float]
    draws: list[float]
    failed: list[str]


class Examiner:
    """A detector with its calibration, for one thread at a time.

    calibration: None: every image that has a score is inconclusive. Raises ConfigError: a check is no view.
    """

    def __init__(self, detector: "Detector", calibration: Calibration | None, checks: Checks = NO_CHECKS) -> None:
        self.detector, self.calibration = detector, calibration
        self.checks = checks if detector.pipelines else checks._replace(draws=1)  # no noise without a reconstruction
        for view in checks.encodings:
            validate_view(view)
        self.id = DetectorId(
            fingerprint=detector.folder.folder().fingerprint,
            checkpoint=detector.folder.best.sha256,
            scoring=detector.scoring,
        )
        self.digest = fingerprint(
            {
                "schema": SCHEMA_VERSION,
                "scoring": detector.scoring,
                "calibration": calibration and calibration.digest,
                "encodings": list(self.checks.encodings),
                "draws": self.checks.draws,
            }
        )
        self._scale_model = is_scale_model(detector.folder.about)
        self._calibrated_on = frozenset(calibration.files() if calibration else ())

    @property
    def scored(self) -> int:
        """As how many images each file is scored: once for itself and once for each check."""
        return len(self.checks.encodings) + self.checks.draws

    def examine(self, files: Sequence[Loaded], tell: "Callable[[Step], object]" = lambda step: None) -> list[Examined]:
        """A result for each file, in order; all of them go through the models in one pass. tell: what begins."""
        begun = time.monotonic()
        with ThreadPoolExecutor(THREADS) as threads:
            seen = list(threads.map(self._look, files))
            sources = list(threads.map(lambda each: each.image and read_provenance(each.file.data), seen))
        scores = self._scores([each for each in seen if each.refused is None], tell)
        found = iter(scores)
        milliseconds = 1000 * (time.monotonic() - begun) / max(1, len(files))
        examined = []
        for each, provenance in zip(seen, sources, strict=True):
            scored = next(found) if each.refused is None else each.refused
            facts = self._facts(each) | {"provenance": provenance, "milliseconds": round(milliseconds, 1)}
            if isinstance(scored, Reason):
                explanation, facts = None, facts | {"verdict": "no_verdict", "reasons": [scored]}
            else:
                assert each.info is not None
                explanation, facts = scored.explanation, facts | self._judged(each.info, scored)
                facts["warnings"] += [f"It could not be scored as {view}." for view in scored.failed]
                facts["warnings"] += [UNCHECKED] if facts["verdict"] != "inconclusive" and self.scored == 1 else []
            examined.append(Examined(Result.model_validate(facts), each.image, each.info, explanation))
        return examined

    def _look(self, file: Loaded) -> _Seen:
        problem, image, info = file.problem, None, None
        if not problem:
            try:
                image, info = decode(file.data, shown(file.path))
            except ImageError as error:
                problem = str(error)
        if image is None:
            return _Seen(file, None, None, Reason(code="unreadable", text=shown(problem)))
        return _Seen(file, image, info, unfit(image, self.detector.settings, self._scale_model))

    def _scores(self, seen: list[_Seen], tell: "Callable[[Step], object]") -> list[_Scores | Reason]:
        """All images and all that they are also scored as, in one pass; one by one where one of them fails it."""
        images, ids, encoded = list[Image.Image](), list[str](), list[list[str]]()
        for each in seen:
            assert each.image is not None
            name = image_id(each.image)
            variants = self._encoded(each.image, name)
            encoded.append(list(variants))
            several = [each.image, *variants.values(), *[each.image] * (self.checks.draws - 1)]
            images += several
            # The noise of an image is the same however it is encoded: what changes then is the encoding alone.
            ids += [name] * (1 + len(variants)) + [f"{name}:{draw}" for draw in range(2, self.checks.draws + 1)]
        try:
            explained = self.detector.explain(images, ids, tell) if images else []
        except ImageError as error:
            if len(seen) == 1:  # a place among its variants would tell nobody anything
                why = error.__cause__ if isinstance(error.__cause__, ImageError) else error
                return [Reason(code="not_scored", text=shown(str(why)))]
            return [one for each in seen for one in self._scores([each], tell)]
        places = iter(explained)
        return [self._scores_of(next(places), names, places) for names in encoded]

    def _scores_of(self, itself: "Explanation", names: list[str], others: "Iterator[Explanation]") -> _Scores | Reason:
        """Of one image, from its own explanation and from those of its variants, which are taken from `others`."""
        again = {name: next(others).logit for name in names}
        draws = [next(others).logit for _ in range(self.checks.draws - 1)]
        if not all(map(math.isfinite, (itself.logit, *again.values(), *draws))):
            return Reason(code="not_scored", text="The detector gave no finite score.")
        return _Scores(itself, again, draws, [view for view in self.checks.encodings if view not in again])

    def _encoded(self, image: Image.Image, name: str) -> dict[str, Image.Image]:
        made = {}
        for view in self.checks.encodings:
            try:
                made[view] = apply_view(image, view, name)
            except ImageError:  # one whose sides a format cannot store; the result says that it was not checked
                continue
        return made

    def _facts(self, seen: _Seen) -> dict[str, Any]:
        file, info, calibration = seen.file, seen.info, self.calibration
        return {
            "path": shown(file.path),
            "sha256": file.sha256,
            "bytes": len(file.data) if file.sha256 else None,
            "width": info and info.width,
            "height": info and info.height,
            "format": info and info.format,
            "thresholds": calibration and calibration.thresholds,
            "calibration": calibration and calibration.digest,
            "detector": self.id,
            "examined": self.digest,
            "warnings": self._warnings(seen),
        }

    def _warnings(self, seen: _Seen) -> list[str]:
        warnings = warnings_of(seen.info) if seen.info else []
        if seen.file.sha256 in self._calibrated_on:
            warnings.append("This file is one of the calibration's: its verdict proves nothing.")
        return warnings

    def _judged(self, info: ImageInfo, scores: _Scores) -> dict[str, Any]:
        verdict, reasons = self._verdict(info, scores)
        return {
            "verdict": verdict,
            "reasons": reasons,
            "score": sigmoid(scores.explanation.logit),
            "logit": scores.explanation.logit,
            "caption": scores.explanation.caption or None,
            "encodings": scores.encodings,
            "draws": scores.draws,
        }

    def _strange(self, info: ImageInfo, verdict: Verdict) -> list[Reason]:
        """How an image differs from those that set the threshold of its verdict; from either set without one."""
        assert self.calibration
        reals, fakes = self.calibration.reals, self.calibration.fakes
        sets = {"likely_ai": (reals,), "likely_real": (fakes,)}.get(verdict, (reals, fakes))
        found = [outside(info, each.ranges, each.formats, each.name) for each in sets if each]
        return [each for each in found if each]

    def _verdict(self, info: ImageInfo, scores: _Scores) -> tuple[Verdict, list[Reason]]:
        if self.calibration is None:
            text = (
                "This detector is not calibrated: nobody has measured how high real photographs score with it. Run: "
                "sare calibrate --detector … --reals FOLDER, with photographs of the kind that you check."
            )
            return "inconclusive", [Reason(code="not_calibrated", text=text)]
        thresholds = self.calibration.thresholds
        verdict, reason = judge(scores.explanation.logit, thresholds)
        doubts = self._strange(info, verdict)
        if verdict == "inconclusive":
            return verdict, [reason, *doubts]
        if flipped := [view for view, logit in scores.encodings.items() if judge(logit, thresholds)[0] != verdict]:
            text = f"Encoded anew ({', '.join(flipped)}) it would not be called the same."
            doubts.append(Reason(code="unstable_encoding", text=text))
        if any(judge(logit, thresholds)[0] != verdict for logit in scores.draws):
            text = "Under another draw of the noise it would not be called the same."
            doubts.append(Reason(code="unstable_noise", text=text))
        return ("inconclusive", [*doubts, reason]) if doubts else (verdict, [reason])
