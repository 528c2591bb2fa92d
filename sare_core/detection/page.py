"""One HTML file about the images that were examined, made to be kept with a case.

It needs nothing beside it, makes no request, and holds no clock and no folder's name: the same files, detector,
calibration and versions give the same bytes.
"""

import platform
from importlib.metadata import version
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from PIL import Image

from sare_core.detection import words
from sare_core.detection.calibration import Calibration
from sare_core.detection.examining import Examined, Examiner
from sare_core.detection.results import Result
from sare_core.errors import needs_extra
from sare_core.report.examples import Picture, brightened, picture
from sare_core.report.page import render

MOST = 100  # images with pictures
LARGE, SMALL, FEW = 512, 192, 10  # longest side of a picture in pixels: of few images large
_LIBRARIES = ("sare", "torch", "diffusers", "transformers", "pillow", "numpy")


class Card(NamedTuple):
    """An image of the page. maps: each by its name, times two."""

    name: str
    result: Result
    image: Picture | None
    reconstruction: Picture | None
    maps: dict[str, Picture]
    look: list[str]
    origin: list[str]


class Case:
    """The images of a page, gathered as they are examined. Memory: the pictures of MOST images.

    Raises ConfigError: the package that fills the template is not installed.
    """

    def __init__(self) -> None:
        with needs_extra("report"):  # before the images are examined, which takes long
            import jinja2  # noqa: F401

        self._shown, self.counts = list[Examined](), dict.fromkeys(words.VERDICTS, 0)

    def add(self, examined: list[Examined]) -> None:
        for each in examined:
            self.counts[each.result.verdict] += 1
            if len(self._shown) < MOST:
                self._shown.append(each._replace(image=each.image and reduced(each.image)))

    def page(self, examiner: Examiner) -> str:
        cards = [card(each, LARGE if len(self._shown) <= FEW else SMALL) for each in self._shown]
        about = examiner.detector.folder.about
        return render(
            "case.html.jinja",
            "sare_core.detection",
            cards=cards,
            counts={words.VERDICTS[verdict]: count for verdict, count in self.counts.items() if count},
            total=sum(self.counts.values()),
            verdicts=words.VERDICTS,
            meanings=words.MEANINGS,
            limits=words.LIMITS,
            detector=examiner.id,
            trained_on=about.dataset,
            note=about.settings and about.settings.get("note"),
            checks=examiner.checks,
            checked=examiner.scored > 1,
            calibration=_facts_of(examiner.calibration),
            maps=bool(examiner.detector.pipelines),
            versions={name: version(name) for name in _LIBRARIES} | {"Python": platform.python_version()},
        )


def card(examined: Examined, longest: int) -> Card:
    """longest: side of its pictures, in pixels."""
    result, why = examined.result, examined.explanation
    made = {name: brightened(Image.fromarray(found)) for name, found in (why.maps if why else {}).items()}
    x_hat = why.reconstruction if why else None
    return Card(
        name=PurePosixPath(result.path).name,
        result=result,
        image=None if examined.image is None else picture(examined.image, longest),
        reconstruction=None if x_hat is None else picture(Image.fromarray(x_hat), longest),
        maps={name: picture(found, longest) for name, found in made.items()},
        look=list(words.to_look_at(result.model_copy(update={"pictures": None}))),
        origin=list(words.of_provenance(result.provenance)) if result.provenance else [],
    )


def reduced(image: Image.Image) -> Image.Image:
    """As large as a page may show it."""
    small = image.copy()
    small.thumbnail((LARGE, LARGE), Image.Resampling.BOX)
    return small


def _facts_of(calibration: Calibration | None) -> dict[str, Any] | None:
    if calibration is None:
        return None
    sets = [calibration.reals, *([calibration.fakes] if calibration.fakes else [])]
    return {
        "digest": calibration.digest,
        "thresholds": list(words.of_thresholds(calibration.thresholds)),
        "sets": [(each.name, len(each.files), each.digest, words.of_ranges(each)) for each in sets],
    }
