"""The list of detectors: all that are registered, each with numbers of a real one."""

import json
from pathlib import Path

import pytest
import torch

from sare_core import detectors
from sare_core.config import load_settings
from sare_core.detectors import build_detector, detector_names, named_encoders, register
from sare_core.plan.detectors import catalogue
from stages.detectors import detectors as command
from tests.conftest import STANDIN, standin_overrides


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the detectors three, and one of somebody's own, which is of no paper."""
    known = {name: detectors._DETECTORS[name] for name in ("drct", "linear_probe", "sare")}
    monkeypatch.setattr(detectors, "_DETECTORS", known)
    register("own", "sare_core.detectors.image:ImageDetector")


def test_numbers_are_those_of_the_detectors(few: None, standin_models: Path) -> None:
    overrides = standin_overrides(standin_models)
    found = {entry.name: entry for entry in catalogue(STANDIN, overrides)}
    assert list(found) == ["drct", "linear_probe", "own", "sare"]
    settings = load_settings(STANDIN, [*overrides, "detector.detector=sare"]).detector
    sare = build_detector(settings, {role: model for role, (model, _) in named_encoders(settings).items()})
    assert found["sare"].parameters == sum(value.numel() for value in sare.parameters())
    assert found["sare"].trained_parameters == sum(v.numel() for v in sare.parameters() if v.requires_grad)
    assert found["sare"].trained == ["semantic_encoder", "embedding", "fusion", "head"]
    assert (found["sare"].source, found["own"].released) == ("the paper", False)

    own, drct = found["own"], found["drct"]
    with torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
        sare.image_encoder(pixel_values=torch.zeros(1, 3, 64, 64))
    assert own.flops == pytest.approx(counter.get_total_flops(), rel=0.05), "torch does not count fused attention here"
    assert own.flops == own.with_maps and drct.flops == drct.with_maps, "they are scored by the image alone"
    assert found["sare"].with_maps > 50 * found["sare"].flops  # type: ignore[operator]
    assert drct.needs == ["image", "reconstruction"] and drct.released

    assert found["linear_probe"].parameters is None
    assert found["linear_probe"].problem.startswith("detector.backbone takes images of 224 pixels")


def test_the_command(
    few: None, standin_models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = standin_overrides(standin_models)
    command(STANDIN, overrides, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told == [entry._asdict() for entry in catalogue(STANDIN, overrides)]
    monkeypatch.setenv("COLUMNS", "80")
    command(STANDIN, overrides)
    said = capsys.readouterr().out
    assert all(name in said for name in detector_names())
    assert "semantic_encoder, embedding, fusion, head" in said, "no name is broken into lines"
    assert "yes" in said and "none" in said, "published weights"
    assert "linear_probe: not counted: detector.backbone takes images of 224 pixels" in said
