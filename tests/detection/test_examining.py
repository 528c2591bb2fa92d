"""One function from files to verdicts: what it says, and when it rather says nothing."""

import io
import math
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from sare_core.config import load_settings
from sare_core.config.stored import changed
from sare_core.detection.calibration import Calibration
from sare_core.detection.examining import Checks, Examiner
from sare_core.detection.loading import load, of_bytes
from sare_core.detection.results import Result
from sare_core.detection.sources import Source
from sare_core.errors import ConfigError, ImageError
from sare_core.models.weights import resolve
from tests.detection.conftest import StandIn, brightness, calibrated, grained


def examine(examiner: Examiner, folder: Path, *images: Image.Image, **saved: Any) -> list[Result]:
    """The results of images that are stored first, as PNG or as `saved` says."""
    paths = []
    for number, image in enumerate(images):
        paths.append(folder / f"image-{number}.{saved.get('format', 'png').lower()}")
        image.save(paths[-1], **saved)
    return [each.result for each in examiner.examine([load(Source(str(path))) for path in paths])]


def codes(result: Result) -> list[str]:
    return [reason.code for reason in result.reasons]


def test_without_calibration_nothing_is_called_either(stand_in: StandIn, tmp_path: Path) -> None:
    for result in examine(Examiner(stand_in, None), tmp_path, grained(250), grained(10)):
        assert (result.verdict, codes(result)) == ("inconclusive", ["not_calibrated"])
        assert result.score is not None and result.thresholds is None
        assert "sare calibrate" in result.reasons[0].text


def test_verdicts_follow_the_thresholds(stand_in: StandIn, calibration: Calibration, tmp_path: Path) -> None:
    bright, dark = examine(Examiner(stand_in, calibration), tmp_path, grained(200), grained(60))
    assert (bright.verdict, codes(bright)) == ("likely_ai", ["above_threshold"])
    assert (dark.verdict, codes(dark)) == ("inconclusive", ["between_thresholds"]), "there were no generated images"
    assert bright.logit == pytest.approx(brightness(grained(200)))
    assert bright.thresholds == calibration.thresholds and bright.calibration == calibration.digest
    assert bright.caption == "a picture of <b>something</b>"


def test_all_images_and_checks_go_through_in_one_pass(stand_in: StandIn, tmp_path: Path) -> None:
    examiner = Examiner(stand_in, None, Checks(("jpeg:90", "resize:0.9"), draws=3))
    results = examine(examiner, tmp_path, grained(200), grained(60), grained(90))
    assert stand_in.batches == [3 * (1 + 2 + 2)]
    assert examiner.scored == 5
    for result, level in zip(results, (200, 60, 90), strict=True):
        assert list(result.encodings) == ["jpeg:90", "resize:0.9"] and len(result.draws) == 2
        assert [*result.encodings.values(), *result.draws] == pytest.approx([brightness(grained(level))] * 4, abs=0.2)


def test_a_verdict_that_flips_is_none(stand_in: StandIn, calibration: Calibration, tmp_path: Path) -> None:
    stand_in.of = lambda image, name: 5.0 if image.size == (64, 48) and ":" not in name else -5.0
    for checks, code in (
        (Checks(("resize:0.9",)), "unstable_encoding"),
        (Checks((), draws=2), "unstable_noise"),
    ):
        (result,) = examine(Examiner(stand_in, calibration, checks), tmp_path, grained(200))
        assert (result.verdict, codes(result)) == ("inconclusive", [code, "above_threshold"])
    (steady,) = examine(Examiner(stand_in, calibration, Checks(("jpeg:90",))), tmp_path, grained(200))
    assert steady.verdict == "likely_ai"


def test_a_check_that_is_no_view_is_refused(stand_in: StandIn) -> None:
    with pytest.raises(ConfigError, match="no step 'jpg'"):
        Examiner(stand_in, None, Checks(("jpg:90",)))


@pytest.mark.parametrize(
    ("image", "saved", "what"),
    [
        (grained(200, size=(100, 70)), {}, "longer side is 100"),
        (grained(200), {"format": "JPEG"}, "format is JPEG"),
    ],
)
def test_what_calibration_never_saw_gets_no_verdict_from_it(
    stand_in: StandIn, calibration: Calibration, tmp_path: Path, image: Image.Image, saved: dict[str, Any], what: str
) -> None:
    (result,) = examine(Examiner(stand_in, calibration), tmp_path, image, **saved)
    assert (result.verdict, codes(result)[0]) == ("inconclusive", "outside_calibration")
    assert what in result.reasons[0].text


def test_a_verdict_takes_images_like_those_of_the_threshold(stand_in: StandIn, reals: Path, tmp_path: Path) -> None:
    fakes = tmp_path / "fakes"
    fakes.mkdir()
    for number in range(40):
        grained(150 + number, number).save(fakes / f"{number}.webp", lossless=True)
    examiner = Examiner(stand_in, calibrated(stand_in, reals, fakes))
    for kind, level, verdict, reasons in (
        ("PNG", 220, "likely_ai", ["above_threshold"]),
        ("WEBP", 220, "inconclusive", ["outside_calibration", "above_threshold"]),  # no photograph was a WebP
        ("WEBP", 30, "likely_real", ["below_threshold"]),
        ("PNG", 30, "inconclusive", ["outside_calibration", "below_threshold"]),
        ("JPEG", 30, "inconclusive", ["outside_calibration", "below_threshold"]),
        ("JPEG", 130, "inconclusive", ["unlike_both", "outside_calibration", "outside_calibration"]),
    ):
        (result,) = examine(examiner, tmp_path, grained(level), format=kind)
        assert (result.verdict, codes(result)) == (verdict, reasons)


@pytest.mark.parametrize(
    ("image", "code"),
    [
        (Image.new("RGB", (1, 1), "white"), "too_small"),
        (grained(200, size=(400, 20)), "too_small"),
        (Image.new("RGB", (64, 48), "white"), "blank"),
        (Image.new("RGBA", (64, 48), (9, 9, 9, 0)), "blank"),
    ],
)
def test_what_shows_nothing_is_not_scored(
    stand_in: StandIn, calibration: Calibration, tmp_path: Path, image: Image.Image, code: str
) -> None:
    stand_in.batches.clear()  # of the calibration
    (result,) = examine(Examiner(stand_in, calibration), tmp_path, image)
    assert (result.verdict, codes(result), result.score) == ("no_verdict", [code], None)
    assert stand_in.batches == [], "no model is asked"


@pytest.mark.parametrize("model", ["semantic-encoder", "diffusion"])
def test_the_scale_model_refuses_photographs(stand_in: StandIn, tmp_path: Path, model: str) -> None:
    about, toy = stand_in.folder.about, resolve(f"sare_core/miniature/shipped/models/{model}").digest
    if model == "diffusion":  # which made the maps
        about.upstream["maps"] = SimpleNamespace(made_by={"weights": {"model": toy}}, upstream={})
    else:
        about.made_by["weights"]["semantic_encoder"] = toy
    stand_in.settings = changed(stand_in.settings, {"note": "whatever"})
    gray = grained(120, size=(32, 32)).convert("L").convert("RGB")
    refused = [grained(120, size=(32, 32)), grained(120, size=(640, 480)).convert("L").convert("RGB")]
    for result in examine(Examiner(stand_in, None), tmp_path, *refused):
        assert (result.verdict, codes(result)) == ("no_verdict", ["scale_model"])
    assert examine(Examiner(stand_in, None), tmp_path, gray)[0].verdict == "inconclusive"


def test_without_weights_the_note_of_the_training_tells(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.folder.about.settings["note"] = load_settings("mini").note
    stand_in.settings = changed(stand_in.settings, {"note": "whatever"})
    assert codes(examine(Examiner(stand_in, None), tmp_path, grained(120))[0]) == ["scale_model"]


def test_a_note_makes_no_scale_model(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.settings = changed(stand_in.settings, {"note": "Trained on photographs of a scale model."})
    assert examine(Examiner(stand_in, None), tmp_path, grained(120))[0].verdict == "inconclusive"


def test_one_that_cannot_be_scored_does_not_hold_up_the_others(stand_in: StandIn, tmp_path: Path) -> None:
    def fails_on_bright(image: Image.Image, name: str) -> float:
        if brightness(image) > 3:
            raise ImageError("image 1: there is no caption for it")
        return 1.0

    stand_in.of = fails_on_bright
    results = examine(Examiner(stand_in, None), tmp_path, grained(60), grained(220), grained(70))
    assert [each.verdict for each in results] == ["inconclusive", "no_verdict", "inconclusive"]
    assert codes(results[1]) == ["not_scored"]
    assert "no caption" in results[1].reasons[0].text


def test_a_score_that_is_no_number_is_none(stand_in: StandIn, calibration: Calibration, tmp_path: Path) -> None:
    stand_in.of = lambda image, name: math.nan if image.size == (58, 43) else 5.0
    steady, broken = (
        examine(Examiner(stand_in, calibration, checks), tmp_path, grained(200))[0]
        for checks in (Checks(), Checks(("resize:0.9",)))
    )
    assert steady.verdict == "likely_ai"
    assert (broken.verdict, codes(broken), broken.logit) == ("no_verdict", ["not_scored"], None)


def test_damaged_files_stop_nothing(stand_in: StandIn) -> None:
    """A few bytes changed, removed or added, anywhere or among the first, which hold headers and metadata."""
    exif, random = Image.Exif(), Random(0)
    exif[0x0131] = "a program"
    whole = []
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"):
        whole.append(io.BytesIO())
        grained(120).save(whole[-1], kind, **({} if kind in ("GIF", "BMP") else {"exif": exif}))
    files = []
    for number in range(400):
        data = bytearray(random.choice(whole).getvalue())
        for _ in range(random.choice((1, 3, 10))):
            place = random.randrange(random.choice((40, 400, len(data) - 100)))
            added = random.randbytes(random.choice((0, 1, 1, 20)))
            data[place : place + random.choice((0, 1, 1, 20))] = added
        files.append(of_bytes(f"{number}", bytes(data)))
    verdicts = [each.result.verdict for each in Examiner(stand_in, None).examine(files)]
    assert set(verdicts) == {"no_verdict", "inconclusive"}
    assert verdicts.count("no_verdict") > 50


def test_what_was_done_to_pixels_is_told(
    stand_in: StandIn, calibration: Calibration, tmp_path: Path, reals: Path
) -> None:
    examiner = Examiner(stand_in, calibration)
    alpha = grained(60)
    alpha.putalpha(100)
    assert "transparency" in " ".join(examine(examiner, tmp_path, alpha)[0].warnings)
    cmyk = examine(examiner, tmp_path, grained(60).convert("CMYK"), format="JPEG")[0]
    assert "CMYK" in " ".join(cmyk.warnings)
    frames = io.BytesIO()
    grained(60).save(frames, "GIF", save_all=True, append_images=[grained(90)])
    (tmp_path / "a.gif").write_bytes(frames.getvalue())
    (animated,) = examiner.examine([load(Source(str(tmp_path / "a.gif")))])
    assert "only the first" in " ".join(animated.result.warnings)
    (known,) = examiner.examine([load(Source(str(reals / "00.png")))])
    assert "one of the calibration's" in " ".join(known.result.warnings)
