"""The page: a form that works without its script, and results as words, pictures and facts."""

from importlib.metadata import version
from importlib.resources import files
from typing import Any, NamedTuple

from markupsafe import Markup

from sare_core.detection import words
from sare_core.detection.examining import Examined, Examiner
from sare_core.detection.page import card
from sare_core.detection.results import Thresholds
from sare_core.detectors.card import LIMITS
from sare_core.report.page import render
from sare_core.serving.limits import Limits

LONGEST = 512  # pixels of a picture
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
    """Of one examiner. Raises ConfigError: the package that fills templates is not installed."""

    def __init__(self, examiner: Examiner, limits: Limits) -> None:
        self.version, self._examiner, self._limits = version("sare"), examiner, limits
        own = files("sare_core.serving")
        self.style = (files("sare_core.report") / "page.css").read_text("utf-8") + (own / "page.css").read_text("utf-8")
        self.script = (own / "page.js").read_text("utf-8")
        self.empty = self._filled()

    def with_result(self, examined: Examined) -> str:
        parts = self.parts(examined)
        return self._filled(title=parts["said"], verdict=Markup(parts["verdict"]), evidence=Markup(parts["evidence"]))

    def with_error(self, error: str) -> str:
        return self._filled(title="Not examined", error=error)

    def parts(self, examined: Examined) -> dict[str, str]:
        """HTML of what is found, to stand above and below the limits, and the verdict in words."""
        result, shown = examined.result, card(examined, LONGEST)
        content = {
            "card": shown,
            "result": result,
            "said": _sentence(words.VERDICTS[result.verdict]),
            "meaning": words.MEANINGS[result.verdict],
            "scale": None if result.logit is None else scale_of(result.logit, result.thresholds),
            "thresholds": list(words.of_thresholds(result.thresholds)) if result.thresholds else [],
            "absent": words.ABSENT,
            "width": WIDTH,
        }
        made = {part: render(f"{part}.html.jinja", "sare_core.serving", **content) for part in ("verdict", "evidence")}
        return {**made, "said": content["said"]}

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
            limits=LIMITS,
            note=about.settings and about.settings.get("note"),
            calibration=self._examiner.calibration,
            detector=self._examiner.id,
            version=self.version,
        )


def scale_of(logit: float, thresholds: Thresholds | None) -> Scale | None:
    """None: there are no thresholds to compare with."""
    if thresholds is None:
        return None
    ai, real = thresholds.likely_ai.logit, thresholds.likely_real and thresholds.likely_real.logit
    known = [ai, logit] if real is None else [real, ai, logit]
    low, span = min(known), max(max(known) - min(known), 1.0)
    low, span = low - MARGIN * span, (1 + 2 * MARGIN) * span

    def place(value: float) -> float:
        return round(WIDTH * (value - low) / span, 1)

    # Where the thresholds overlap (a score below the one and above the other) neither verdict is given.
    first, last = (None, ai) if real is None else (min(real, ai), max(real, ai))
    middle = words.VERDICTS["inconclusive"]
    zones = [Zone(0 if first is None else place(first), place(last), middle), Zone(place(last), WIDTH, "likely AI")]
    if first is not None:
        zones.insert(0, Zone(0, place(first), "likely a photograph"))
    told = [f"likely AI-generated begins above {ai:.2f}"]
    told += [] if real is None else [f"likely a photograph begins below {real:.2f}"]
    return Scale(
        mark=place(logit),
        ticks=[(place(value), value) for value in known[:-1]],
        zones=zones,
        text=f"Score {logit:.2f}; {', '.join(told)}.",
    )


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]
