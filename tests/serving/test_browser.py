"""The page in a real browser: by keyboard, at three widths, light and dark, and no request that leaves the server."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from sare_core.detection.calibration import Calibration
from sare_core.serving.queue import Queue
from tests.detection.conftest import StandIn
from tests.serving.conftest import Gate, running

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium here (Debian: apt-get install chromium)")

# Of all text that is seen, the least contrast with what is behind it, as WCAG 2 defines it.
CONTRAST = """() => {
  const channels = colour => colour.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => [r, g, b].map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    for (; element; element = element.parentElement) {
      const colour = channels(getComputedStyle(element).backgroundColor);
      if (colour.length < 4 || colour[3] === 1) return colour;
    }
  };
  let least = [21, ""];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const inks = [element.closest("svg") ? style.fill : style.color, getComputedStyle(element).backgroundColor];
    const pair = [luminance(channels(inks[0])), luminance(behind(element))].sort((a, b) => b - a);
    const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (ratio < least[0]) least = [ratio, walker.currentNode.data];
  }
  return least;
}"""
NAMELESS = """() => [...document.querySelectorAll("input, button, a, img, svg[role=img]")]
    .filter(e => e.checkVisibility())
    .filter(e => !(e.labels?.length || e.alt || e.ariaLabel || e.textContent.trim())).length"""


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    with playwright.sync_playwright() as driver:
        sandbox = [] if os.getuid() else ["--no-sandbox"]  # Chromium refuses to sandbox itself as root
        browser = driver.chromium.launch(executable_path=BROWSER, args=sandbox)
        yield browser
        browser.close()


@pytest.fixture
def image(tmp_path: Path, photo: bytes) -> Path:
    return tmp_path / "photo.png"


def test_by_keyboard_from_start_to_end(
    stand_in: StandIn, calibration: Calibration, gate: Gate, image: Path, browser: "playwright.Browser"
) -> None:
    """Tab to the file, choose it, Tab to the button, Enter; what goes on is announced; focus goes to the verdict."""
    with running(stand_in, calibration) as server:
        page = browser.new_page(viewport={"width": 360, "height": 640})
        asked: list[str] = []
        said: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("filechooser", lambda chooser: None)  # so that the browser is told early to leave choosing to us
        page.goto(f"http://127.0.0.1:{server.port}/")
        page.bring_to_front()
        page.keyboard.press("Tab")
        page.locator("#image:focus").wait_for()
        with page.expect_file_chooser() as chosen:
            page.keyboard.press("Enter")
        chosen.value.set_files(image)
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.wait_for_selector("[aria-current=step][data-stage=scoring]")
        assert page.locator("#told[role=status]").text_content() == "Scoring …"
        gate.open.set()
        assert page.locator("#verdict h2:focus").text_content() == "Inconclusive"
        assert page.locator("#told").text_content() == "Examined: inconclusive."
        limits = page.locator("section.limits").bounding_box()
        assert limits and limits["y"] < 640 - 100, "limits begin in the first screen, below the verdict"
        page.keyboard.press("Shift+Tab")  # back to the form, for the next
        assert page.evaluate("document.activeElement.textContent") == "Examine"
        own = f"http://127.0.0.1:{server.port}/"
        assert {url.removeprefix(own) for url in asked if not url.startswith(("data:", "blob:"))} == {
            "",
            "page.css",
            "page.js",
        }
        assert said == []
        page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_can_be_read(
    stand_in: StandIn, calibration: Calibration, image: Path, browser: "playwright.Browser", scheme: str
) -> None:
    with running(stand_in, calibration) as server:
        for width in (360, 768, 1280):
            page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
            page.goto(f"http://127.0.0.1:{server.port}/")
            page.set_input_files("#image", image)
            page.click("button[type=submit]")
            page.wait_for_selector("#verdict h2")
            assert page.evaluate("document.scrollingElement.scrollWidth") == width, "it scrolls sideways"
            least, text = page.evaluate(CONTRAST)
            assert least >= 4.5, text
            assert page.evaluate(NAMELESS) == 0
            assert page.evaluate("[...document.images].filter(i => i.checkVisibility()).every(i => i.naturalWidth)")
            dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 28)"
            assert dark == (scheme == "dark")
            page.close()


def test_dropped_pasted_and_refused(
    stand_in: StandIn, image: Path, browser: "playwright.Browser", monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(stand_in) as server:
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.port}/")
        give = """async ([kind, bytes]) => {
          const held = new DataTransfer();
          held.items.add(new File([new Uint8Array(bytes)], "it.png", { type: "image/png" }));
          const how = kind === "paste" ? new ClipboardEvent(kind, { clipboardData: held })
            : new DragEvent(kind, { dataTransfer: held, cancelable: true });
          document.dispatchEvent(how);
        }"""
        for kind in ("drop", "paste"):
            page.evaluate("document.querySelector('#verdict').replaceChildren()")
            page.evaluate(give, [kind, list(image.read_bytes())])
            page.wait_for_selector("#verdict h2")
        page.set_input_files("#image", image)
        assert page.locator("#verdict").is_hidden(), "what was found of one image stands beside another"
        assert page.title() == "Examine an image – sare"
        monkeypatch.setattr(Queue, "idle", False)  # or it would be gone before it is asked
        server.queue.stopping = True
        page.evaluate(give, ["drop", [1, 2, 3]])
        page.locator("#told").get_by_text("The server is about to stop.").wait_for()
        assert page.locator("#verdict").is_hidden()
        page.close()
        monkeypatch.undo()


def test_without_a_script(stand_in: StandIn, image: Path, browser: "playwright.Browser") -> None:
    with running(stand_in) as server:
        page = browser.new_context(java_script_enabled=False).new_page()
        page.goto(f"http://127.0.0.1:{server.port}/")
        page.set_input_files("#image", image)
        page.click("button[type=submit]")
        assert page.locator("#verdict h2").text_content() == "Inconclusive"
        assert page.title() == "inconclusive – Examine an image – sare"
        page.context.close()
