"""A stand-in for a trained detector, so that what surrounds one is tested in no time; and images of a few levels."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sare_core.config import Settings, load_settings
from sare_core.detection.calibration import Calibration, Scored, calibrate, image_set, save_calibration
from sare_core.detection.examining import Examiner
from sare_core.detection.running import examined
from sare_core.detection.sources import sources
from sare_core.images.decoding import image_id
from sare_core.pipeline import Explanation
from sare_core.store.storage import Store
from stages import options
from stages.app import app
from tests.conftest import STANDIN

Sare = Callable[..., tuple[int, str]]


class StandIn:
    """As `sare_core.pipeline.Detector`, but its logit is how bright the image is: from -8 (black) to 8 (white).

    of: another rule, from image and id. batches: how many images each pass had.
    """

    def __init__(self, settings: Settings, store: Store, of: Callable[[Image.Image, str], float] | None = None) -> None:
        self.settings, self.pipelines, self.scoring = settings, {"sare": object()}, "0123456789ab"
        about = SimpleNamespace(dataset="tree", settings={"note": settings.note}, made_by={"weights": {}}, upstream={})
        self.folder = SimpleNamespace(
            store=store,
            about=about,
            best=SimpleNamespace(sha256="a" * 64),
            folder=lambda: SimpleNamespace(fingerprint="ba9876543210"),
        )
        self.of = of or (lambda image, _: brightness(image))
        self.batches = list[int]()

    def explain(
        self, images: Sequence[Image.Image], ids: Sequence[str], tell: Callable[[str], object] = lambda step: None
    ) -> list[Explanation]:
        tell("scoring")
        self.batches.append(len(images))
        map_ = np.full((8, 8, 3), 40, np.uint8)
        return [
            Explanation(self.of(image, name), "a picture of <b>something</b>", map_, {"sare": map_})
            for image, name in zip(images, ids, strict=True)
        ]


def brightness(image: Image.Image) -> float:
    return float(np.asarray(image, dtype=float).mean() - 127.5) / 16


def grained(level: float, seed: int = 0, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """An RGB image of one level with some grain, so that it is not blank."""
    grain = np.random.default_rng(seed).normal(level, 12, (size[1], size[0], 3))
    return Image.fromarray(grain.clip(0, 255).astype(np.uint8))


@pytest.fixture
def stand_in(tmp_path: Path) -> StandIn:
    return StandIn(load_settings(STANDIN), Store(str(tmp_path / "detector")))


@pytest.fixture
def reals(tmp_path: Path) -> Path:
    """Forty PNGs of 64x48 pixels, most of them dark: logits from about -5 to -1."""
    folder = tmp_path / "reals"
    folder.mkdir()
    for number in range(40):
        grained(45 + 1.6 * number, number).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture
def calibration(stand_in: StandIn, reals: Path) -> Calibration:
    """Of `reals`, at 5 %; saved beside the detector."""

    made = calibrated(stand_in, reals)
    save_calibration(made, stand_in.folder.store)
    return made


def calibrated(detector: Any, reals: Path, fakes: Path | None = None, fpr: float = 0.05) -> Calibration:
    sets = [image_set(place.name, scored(detector, place), Counter()) for place in (reals, fakes) if place]
    return calibrate("ba9876543210", detector.scoring, sets[0], sets[1] if fakes else None, fpr, fpr)


def scored(detector: Any, place: Path) -> list[Scored]:
    found = [each for batch in examined(sources([str(place)]), Examiner(detector, None)) for each in batch]
    return [
        Scored(each.result.sha256 or "", image_id(each.image), each.info, each.result.logit)
        for each in found
        if each.image and each.info and each.result.logit is not None
    ]


@pytest.fixture
def sare(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Sare:
    """`sare("detect", "photo.jpg")` with the stand-in: the exit code, and standard output."""
    monkeypatch.setattr("sare_core.pipeline.Detector.from_pretrained", lambda *_, **__: stand_in)

    def run(*arguments: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as end, options.exit_codes():
            app([str(each) for each in arguments] + ([] if "--schema" in arguments else ["--detector", "it"]))
        assert isinstance(end.value.code, int)
        return end.value.code, capsys.readouterr().out

    return run
