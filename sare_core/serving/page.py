"""The page: a form that works without its script, and results as words, pictures and facts."""

from importlib.metadata import version
from importlib.resources import files
from itertools import pairwise
from typing import Any, NamedTuple

from markupsafe import Markup

from sare_core.detection import words
from sare_core.detection.examining import Examined, Examiner
from sare_core.detection.page import LARGE, card
from sare_core.detection.results import Thresholds
from sare_core.report.page import render
from sare_core.serving.limits import Limits

STAGES = {
    "queued": "Waiting in the queue",
    "decoding": "Reading the file",
    "captioning": "Writing a caption",
    "reconstructing": "Drawing it again under the caption",
    "scoring": "Scoring",
}
_OF_MAPS = ("captioning", "reconstructing")
WIDTH, MARGIN = 340.0, 0.12  # of the scale; room at its ends, as a share of what lies between them


class Zone(NamedTuple):
    """Part of the scale in which a verdict holds: from, to, and its name."""

    left: float
    right: float
    name: str


class Scale(NamedTuple):
    """A score among the thresholds; places from 0 to WIDTH. ticks: place and logit of each threshold."""

    mark: float
    ticks: list[tuple[float, float]]
    zones: list[Zone]
    text: str


class Page:
    """Of one examiner."""

    def __init__(self, examiner: Examiner, limits: Limits) -> None:
        self.version, self._examiner, self._limits = version("sare"), examiner, limits
        own = files("sare_core.serving")
        styles = (
            files("sare_core.report") / "page.css",
            files("sare_core.detection") / "evidence.css",
            own / "page.css",
        )
        self.style = "\n".join(each.read_text("utf-8") for each in styles)
        self.script = (own / "page.js").read_text("utf-8")
        self.empty = self._filled()

    def with_result(self, examined: Examined) -> str:
        parts = self.parts(examined)
        return self._filled(title=parts["said"], verdict=Markup(parts["verdict"]), evidence=Markup(parts["evidence"]))

    def with_error(self, error: str) -> str:
        return self._filled(title="Not examined", error=error)

    def parts(self, examined: Examined) -> dict[str, str]:
        """HTML of what is found, to stand above and below the limits, and the verdict in words."""
        result, said = examined.result, words.VERDICTS[examined.result.verdict]
        verdict = render(
            "verdict.html.jinja",
            "sare_core.serving",
            result=result,
            said=said,
            meaning=words.MEANINGS[result.verdict],
            scale=result.logit is not None and result.thresholds and scale_of(result.logit, result.thresholds),
            width=WIDTH,
        )
        told = list(words.of_thresholds(result.thresholds)) if result.thresholds else []
        evidence = render("evidence.html.jinja", "sare_core.detection", card=card(examined, LARGE), thresholds=told)
        return {"said": said, "verdict": verdict, "evidence": evidence}

    def docs(self, openapi: dict[str, Any]) -> str:
        """What the endpoints take and give, for people."""
        return render("docs.html.jinja", "sare_core.serving", api=openapi)

    def _filled(self, **content: Any) -> str:
        detector = self._examiner.detector
        about = detector.folder.about
        empty = {"title": None, "verdict": None, "evidence": None, "error": None}
        return render(
            "page.html.jinja",
            "sare_core.serving",
            **empty | content,
            stages={name: text for name, text in STAGES.items() if detector.pipelines or name not in _OF_MAPS},
            megabytes=f"{self._limits.body / 1e6:g}",
            limits=words.LIMITS,
            note=about.settings and about.settings.get("note"),
            calibration=self._examiner.calibration,
            detector=self._examiner.id,
            version=self.version,
        )


def scale_of(logit: float, thresholds: Thresholds) -> Scale:
    """Between the thresholds, in whichever order they stand, the answer is `inconclusive`."""
    ai, real = thresholds.likely_ai.logit, thresholds.likely_real.logit if thresholds.likely_real else None
    ends = [ai] if real is None else sorted((real, ai))
    low, high = min(*ends, logit), max(*ends, logit)
    room = MARGIN * max(high - low, 1.0)
    low, high = low - room, high + room

    def place(value: float) -> float:
        return round(WIDTH * (value - low) / (high - low), 1)

    names = [words.VERDICTS[each] for each in ("likely_real", "inconclusive", "likely_ai")][-1 - len(ends) :]
    told = [names[0], *(f"from {value:.2f} {name}" for value, name in zip(ends, names[1:], strict=True))]
    edges = [0.0, *map(place, ends), WIDTH]
    return Scale(
        mark=place(logit),
        ticks=[(place(value), value) for value in ends],
        zones=[Zone(*ends, name) for ends, name in zip(pairwise(edges), names, strict=True)],
        text=f"Score {logit:.2f}. The scale: {', '.join(told)}.",
    )
