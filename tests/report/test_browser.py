"""The report in a real browser: narrow and wide, light and dark."""

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.report.conftest import Made

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium here (Debian: apt-get install chromium)")

MEASURE = """() => ({
    width: document.scrollingElement.scrollWidth,
    window: innerWidth,
    images: document.images.length,
    broken: [...document.images].filter(image => !image.naturalWidth).length,
    small: [...document.querySelectorAll('.chart text')].filter(t => t.getBoundingClientRect().height < 9).length,
    paper: getComputedStyle(document.body).backgroundColor,
    ink: getComputedStyle(document.body).color,
    curve: getComputedStyle(document.querySelector('.chart text')).fill,
})"""


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    with playwright.sync_playwright() as driver:
        sandbox = [] if os.getuid() else ["--no-sandbox"]  # Chromium refuses to sandbox itself as root
        browser = driver.chromium.launch(executable_path=BROWSER, args=sandbox)
        yield browser
        browser.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1440])
def test_the_page_fits_shows_all_and_asks_for_nothing(
    made: Made, browser: "playwright.Browser", width: int, scheme: str
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    address = (made.folder / "index.html").as_uri()
    page.goto(address)
    page.locator("details").click()
    found = page.evaluate(MEASURE)
    page.close()
    assert found["width"] <= found["window"] == width, "it scrolls sideways"
    assert found["images"] > 10
    assert found["broken"] == 0
    assert found["small"] == 0, "a figure's text is too small to read"
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [address]
    light, dark = "rgb(254, 254, 254)", "rgb(20, 24, 28)"
    assert found["paper"] == (light if scheme == "light" else dark)
    assert found["curve"] == found["ink"], "figures follow the scheme"
