"""The page of a case: the same bytes, nothing of this machine in it, and readable on a phone."""

import os
import shutil
from pathlib import Path

import pytest

from sare_core.detection import words
from sare_core.detection.calibration import Calibration
from sare_core.detection.examining import Checks, Examiner
from sare_core.detection.page import MOST, Case
from sare_core.detection.running import examined
from sare_core.detection.sources import sources
from tests.detection.conftest import StandIn, grained

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def page(examiner: Examiner, *places: Path) -> str:
    case = Case()
    for batch in examined(sources(map(str, places)), examiner):
        case.add(batch)
    return case.page(examiner)


def test_it_is_the_same_to_the_byte_wherever_the_file_lies(
    stand_in: StandIn, calibration: Calibration, tmp_path: Path
) -> None:
    examiner = Examiner(stand_in, calibration, Checks(("jpeg:90",), draws=2))
    (tmp_path / "one").mkdir()
    grained(200).save(tmp_path / "one" / "photo.png")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    first, second = (page(examiner, tmp_path / place / "photo.png") for place in ("one", "two"))
    assert first == second
    assert str(tmp_path) not in first
    for said in (calibration.digest, stand_in.scoring, "a" * 64, "Likely AI-generated", "1 of 40 real photographs"):
        assert said in first
    assert "Score" not in first[: first.index("What this does not say")], (
        "a bare number beside the verdict reads as a share"
    )
    for claim in ("probability of", "confidence", "manipulated"):
        assert claim not in first.lower()


def test_limits_come_before_pictures(stand_in: StandIn, tmp_path: Path) -> None:
    grained(200).save(tmp_path / "photo.png")
    made = page(Examiner(stand_in, None), tmp_path / "photo.png")
    first = made[: made.index("<main>")]
    assert all(limit.replace("'", "&#39;") in first for limit in words.LIMITS)
    assert "not calibrated" in first and "data:image/png" not in first


def test_many_images_make_no_endless_page(stand_in: StandIn, tmp_path: Path) -> None:
    for number in range(MOST + 3):
        grained(100, number, (40, 40)).save(tmp_path / f"{number:03}.png")
    made = page(Examiner(stand_in, None), tmp_path)
    assert made.count('<section class="card">') == MOST
    assert f"{MOST + 3} images examined" in made and f"The first {MOST} are shown." in made


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here (Debian: apt-get install chromium)")
def test_it_fits_a_phone_and_asks_for_nothing(stand_in: StandIn, calibration: Calibration, tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    image = tmp_path / f"{'long-name' * 20}.png"
    grained(200).save(image)
    (tmp_path / "case.html").write_text(page(Examiner(stand_in, calibration, Checks(("jpeg:90",), 2)), image))
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=[] if os.getuid() else ["--no-sandbox"])
        for width in (375, 1280):
            shown, said, asked = browser.new_page(viewport={"width": width, "height": 900}), [], []
            shown.on("console", lambda message, said=said: said.append(message.text))
            shown.on("request", lambda request, asked=asked: asked.append(request.url))
            shown.goto((tmp_path / "case.html").as_uri())
            assert shown.evaluate("document.scrollingElement.scrollWidth") <= width
            limits = shown.locator(".limits li").first.bounding_box()
            assert limits and limits["y"] < 900, "limits stand in the first screen"
            assert said == [] and [url for url in asked if not url.startswith("data:")] == [asked[0]]
        browser.close()
