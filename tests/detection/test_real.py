"""A detector that was trained, calibrated and asked as a user does it, by its path, its run's name and a hub id."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

import sare_core
from sare_core.config import load_settings
from sare_core.detection.examining import Checks, Examiner
from sare_core.detection.loading import load
from sare_core.detection.sources import Source
from sare_core.detectors.folder import open_detector
from sare_core.errors import ConfigError
from sare_core.images.decoding import decode
from stages.calibrate import calibrate
from stages.detect import detect
from tests.conftest import STANDIN, standin_overrides
from tests.faults.whole import SMALL
from tests.hub import empty_hub, publish
from tests.pipeline import Pipeline
from tests.trees import genimage_tree


@pytest.fixture
def trained(tmp_path: Path, standin_models: Path) -> Pipeline:
    overrides = [*standin_overrides(standin_models), *SMALL]
    pipeline = Pipeline(load_settings(STANDIN, overrides), str(tmp_path / "manifests"), str(tmp_path / "work"))
    pipeline.index(genimage_tree(tmp_path / "tree", per_cell=6, subsets=["sdv1.4"]))
    pipeline.captions(), pipeline.reconstructions(), pipeline.detector().describe(run="first-try")
    return pipeline


def test_from_photographs_to_verdicts(
    trained: Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder,) = Path(trained.work).glob("tree/detectors/*")
    reals, fakes = (next((tmp_path / "tree").glob(f"*/*/train/{kind}")) for kind in ("nature", "ai"))
    where = {"fpr": 0.2, "miss_rate": 0.2, "work": trained.work}
    calibrate("first-try", str(reals), str(fakes), **where)
    assert "6 real photographs" in capsys.readouterr().out
    out = tmp_path / "out.json"
    images = sorted(str(path) for path in (tmp_path / "tree").rglob("val/*/*"))
    detect(images, str(folder), json=str(out), encoding=["raw", "jpeg:50"], draws=2, work=trained.work)
    found = json.loads(out.read_text())

    detector = sare_core.Detector.from_pretrained(folder, device="cpu", work=trained.work)
    pictures = [decode(Path(path).read_bytes(), path)[0] for path in images]
    for each, alone in zip(found, detector.explain(pictures), strict=True):
        assert each["logit"] == pytest.approx(alone.logit, abs=2e-3)
        assert each["encodings"]["raw"] == pytest.approx(each["logit"], abs=1e-4), "the noise is the image's own"
        assert each["draws"][0] != pytest.approx(each["logit"], abs=1e-5), "and another draw is another"
        assert each["calibration"] and each["detector"]["fingerprint"] == folder.name
    # Another view is another scoring, for which the calibration says nothing.
    detect(images[:1], str(folder), json=str(out), view="jpeg:50", work=trained.work, checks=False)
    assert json.loads(out.read_text())[0]["reasons"][0]["code"] == "not_calibrated"

    hub = empty_hub(tmp_path / "hub", monkeypatch)
    copy = shutil.copytree(folder, tmp_path / "copy")
    publish(hub, "somebody/detector", copy)
    assert open_detector("somebody/detector", "work").about == open_detector(folder, "work").about
    with pytest.raises(ConfigError, match="unavailable from the model hub"):
        open_detector("somebody/another", "work")
    with pytest.raises(ConfigError, match="holds no trained detector"):
        open_detector("no-such-run", trained.work)


def test_a_detector_without_maps_has_no_noise_to_draw(trained: Pipeline, tmp_path: Path, standin_models: Path) -> None:
    overrides = [*standin_overrides(standin_models), *SMALL, "detector.detector=image"]
    other = Pipeline(load_settings(STANDIN, overrides), trained.manifests, trained.work)
    image = tmp_path / "image.png"
    Image.effect_noise((48, 48), 60).convert("RGB").save(image)
    detector = sare_core.Detector.from_pretrained(other.detector().store.url, device="cpu")
    (found,) = Examiner(detector, None, Checks(("jpeg:90",), draws=3)).examine([load(Source(str(image)))])
    assert found.result.logit is not None and len(found.result.encodings) == 1
    assert (found.result.draws, found.result.caption, found.result.pictures) == ([], None, None)
